"""A prefix cache that is smaller than a sweep's prompts: the sweep says which order reads each of them once."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvt_async.contract.load import load_settings
from kvt_async.contract.settings import Settings
from kvt_async.sweep.prompt_order import cached_tokens
from kvt_async.sweep.sweep import SweepOptions, run
from tests.worlds import query

NOTE = (
    r"prefix cache holds 512 tokens and the 8 prompts have [\d,]+: .*limits.order: interleaved each prompt is read once"
)


@pytest.fixture(scope="module")
def small_cache() -> Iterator[str]:
    command = [sys.executable, "-m", "kvt_async.serve", "--port", "0", "--prefill-cache-mb", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield re.findall(r"http://\S+", process.stdout.readline())[0]
        process.terminate()


def settings_of(tmp_path: Path, url: str, *more: str) -> Settings:
    overrides = [
        *("experiment.exp_group_id=g", "dataset.name=kvtext", "dataset.task=single", "model.name=reference"),
        *("dataset.params={contexts: 8, min_tokens: 160, max_tokens: 320}", "binning.n_bins=1", "binning.n_per_bin=8"),
        *(f"engine.base_url={url}", f"output.runs_dir={tmp_path}/runs", f"output.data_dir={tmp_path}/data"),
        *("decoding.max_tokens=2", "kv.budgets=[1.0, 0.5]", "kv.control_repeats=0", *more),
    ]
    return load_settings(None, overrides, environ={})


async def notes_of(settings: Settings) -> list[str]:
    report = await run(settings, options=SweepOptions(quiet=True, allow_dead_knob=True))
    assert report.responses == 16
    return [note for note in report.notes if "prefix cache holds" in note]


async def test_the_sweep_says_which_order_reads_each_prompt_once(tmp_path: Path, small_cache: str) -> None:
    settings = settings_of(tmp_path, small_cache)
    (note,) = await notes_of(settings)
    assert re.search(NOTE, note)
    assert f"{query(settings, 'SELECT sum(token_len) FROM manifest_entries')[0][0]:,}" in note
    assert await notes_of(settings) == [], "nothing is left to send"


async def test_only_the_prompts_that_are_still_to_be_read_count(tmp_path: Path, small_cache: str) -> None:
    await run(settings_of(tmp_path, small_cache), options=SweepOptions(quiet=True, allow_dead_knob=True))
    more = settings_of(tmp_path, small_cache, "kv.budgets=[1.0, 0.5, 0.4, 0.3]")
    report = await run(more, options=SweepOptions(quiet=True, allow_dead_knob=True, limit=1))
    assert [note for note in report.notes if "prefix cache holds" in note] == [], "one prompt at two levels"
    assert (report.planned, report.responses, report.pending) == (18, 18, 0), "more are answered than the limit plans"


async def test_an_order_that_reads_each_prompt_once_is_not_remarked_on(tmp_path: Path, small_cache: str) -> None:
    assert await notes_of(settings_of(tmp_path, small_cache, "limits.order=interleaved")) == []


async def test_one_level_below_a_cache_that_holds_everything_needs_no_order(tmp_path: Path, small_cache: str) -> None:
    short = "dataset.params={contexts: 8, min_tokens: 32, max_tokens: 40}"
    assert await notes_of(settings_of(tmp_path, small_cache, short)) == []


@pytest.mark.parametrize(
    ("labels", "tokens"),
    [
        ({"enable_prefix_caching": "True", "num_gpu_blocks": "1000", "block_size": "16"}, 16_000),
        ({"enable_prefix_caching": "True", "num_gpu_blocks": "0", "num_cpu_blocks": "512", "block_size": "1"}, 512),
        ({"enable_prefix_caching": "False", "num_gpu_blocks": "1000", "block_size": "16"}, None),
        ({"enable_prefix_caching": "True", "num_gpu_blocks": "None", "block_size": "16"}, None),
        ({"block_size": "16", "cache_dtype": "auto"}, None),
        ({}, None),
    ],
)
def test_what_a_server_says_of_its_cache_is_read_in_tokens(labels: dict[str, str], tokens: int | None) -> None:
    assert cached_tokens(labels) == tokens

"""The sweep against the reference server: a real model whose cache really evicts, with evidence of every budget."""

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from analyzer.verify.findings import verified
from kvt_async.contract.load import load_settings
from kvt_async.contract.settings import Settings
from kvt_async.sweep.sweep import SweepOptions, run
from tests.data.long_context_rows import mrcr_files, mrcr_row
from tests.worlds import check_invariants, db_of, query

NAMES = ("babin", "bador", "bafal", "bagus", "bakem", "balan")


@pytest.fixture(scope="module")
def reference_url() -> Iterator[str]:
    command = [sys.executable, "-m", "kvt_async.serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield re.findall(r"http://\S+", process.stdout.readline())[0]
        process.terminate()


async def test_each_budget_is_applied_and_echoed_and_full_cache_repeats_itself(
    tmp_path: Path, reference_url: str
) -> None:
    settings = load_settings(
        None,
        [
            "experiment.exp_group_id=g", "dataset.name=kvtext", "dataset.task=multikey",
            "dataset.params={contexts: 12, min_tokens: 128, max_tokens: 512}", "binning.n_bins=2",
            "binning.n_per_bin=6", "model.name=reference", f"engine.base_url={reference_url}",
            f"output.runs_dir={tmp_path}/runs", f"output.data_dir={tmp_path}/data", "decoding.max_tokens=8",
            "kv.policies=[snapkv, {policy: snapkv, mode: question_agnostic}, streaming_llm]",
            "kv.budgets=[1.0, 0.5, 0.1]", "engine.warm_up=prefill",
        ],
        environ={},
    )  # fmt: skip
    report = await run(settings, options=SweepOptions(quiet=True))
    assert (report.exit_code, report.responses, report.canary) == (0, 8 * 12, "alive")
    check_invariants(settings)
    rows = query(settings, "SELECT kv_budget, kv_effective, token_len FROM responses JOIN requests USING (request_id) "
                           "JOIN runs USING (run_id) JOIN manifest_entries USING (dataset_id, example_id)")  # fmt: skip
    assert all(abs(effective - budget) <= max(0.01, 2 / length) for budget, effective, length in rows)
    by_run = "SELECT example_id, text FROM responses JOIN requests USING (request_id) JOIN runs USING (run_id) WHERE "
    full = dict(query(settings, by_run + "is_full = 1 AND repeat_idx = 0"))
    assert dict(query(settings, by_run + "repeat_idx = 1")) == full
    assert dict(query(settings, by_run + "series = 'streaming_llm/aware' AND kv_budget = 0.1")) != full
    assert query(settings, "SELECT DISTINCT engine_name LIKE 'kvt %' FROM runs") == [(1,)]


async def test_each_prompt_of_a_suite_is_prefilled_once_for_all_its_levels_and_answers(
    tmp_path: Path, reference_url: str
) -> None:
    settings = load_settings(
        None,
        [
            "experiment.exp_group_id=suite", "dataset.name=kvtext", "dataset.task=[single, multikey]",
            "dataset.params={contexts: 8, min_tokens: 160, max_tokens: 320, seed: 5}", "binning.n_bins=1",
            "binning.n_per_bin=8", "model.name=reference", f"engine.base_url={reference_url}",
            f"output.runs_dir={tmp_path}/runs", f"output.data_dir={tmp_path}/data",
            "decoding={max_tokens: 8, samples: 2, temperature: 0.7}", "kv.budgets=[1.0, 0.5, 0.1]",
            "analysis.guard=0.5",
        ],
        environ={},
    )  # fmt: skip
    before = counters(reference_url)
    report = await run(settings, options=SweepOptions(quiet=True))
    after = counters(reference_url)
    assert (report.exit_code, report.responses) == (0, 2 * 8 * 2 * 5), "tasks x prompts x answers x levels"
    read = {name: after[name] - before[name] for name in after}
    (tokens,) = query(settings, "SELECT sum(token_len) FROM manifest_entries")[0]
    assert read["queries"] >= 10 * tokens, "two answers at five levels each"
    assert read["queries"] - read["hits"] == tokens, "the canary asks prompts of the manifest, too"


def counters(url: str) -> dict[str, float]:
    """Prompt tokens that the server's prefill cache was asked for, and those that it had."""
    page = urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=10).read().decode()
    return {
        name: float(re.findall(rf"^vllm:prefix_cache_{name}_total\S* (\S+)$", page, re.MULTILINE)[0])
        for name in ("queries", "hits")
    }


async def test_a_haystack_of_many_messages_is_compressed_alone_and_cut_as_the_config_says(
    tmp_path: Path, reference_url: str
) -> None:
    mrcr_files(tmp_path / "rows", [mrcr_row(seed, pairs=8) for seed in range(6)])
    body = (
        '{kv: {policy: "{policy}", budget: "{budget}", mode: "{mode}", context_chars: "{context_chars}", '
        'context_messages: "{context_messages}"}}'
    )
    overrides = [
        *("experiment.exp_group_id=mrcr", "dataset.name=mrcr", "dataset.task=2needle", f"dataset.path={tmp_path}/rows"),
        *("binning.n_bins=1", "binning.n_per_bin=6", "model.name=reference", f"engine.base_url={reference_url}"),
        *(f"output.runs_dir={tmp_path}/runs", f"output.data_dir={tmp_path}/data", "decoding.max_tokens=8"),
        "kv.policies=[{policy: snapkv, mode: question_agnostic}, truncate_prompt]",
        *("kv.budgets=[1.0, 0.5]", f"kv.apply={{via: body, body: {body}}}"),
    ]
    settings = load_settings(None, overrides, environ={})
    report = await run(settings, options=SweepOptions(quiet=True, allow_dead_knob=True))
    assert (report.exit_code, report.responses) == (0, 4 * 6)
    check_invariants(settings)
    rows = (
        "FROM responses JOIN requests USING (request_id) JOIN runs USING (run_id) "
        "JOIN manifest_entries USING (dataset_id, example_id) WHERE series = "
    )
    echo = "SELECT usage_json ->> '$.kv.compressible_tokens', usage_json ->> '$.kv.kept_tokens', context_tokens "
    echoes = query(settings, f"{echo} {rows} 'snapkv/agnostic'")
    assert len(echoes) == 6
    for compressible, kept, ours in echoes:
        assert abs(int(str(compressible)) - int(str(ours))) <= 2  # marks at the two ends
        assert int(str(kept)) == int(str(compressible)) // 2
    cut = query(settings, f"SELECT kv_effective {rows} 'truncate_prompt/middle'")
    assert all(abs(float(str(effective)) - 0.5) <= 0.01 for (effective,) in cut)


def with_answer_prefixes(folder: Path, url: str, *overrides: str) -> Settings:
    """Six lookups whose answers begin with a word that is given: `the code of mira is` 112 140."""
    lines = [
        {
            "example_id": f"e{n}",
            "context": " ".join(
                f"the code of {name} is {100 + n} {120 + 7 * n + at} ." for at, name in enumerate(NAMES)
            ),
            "question": f"what is the code of {NAMES[n]} ?",
            "answers": [f"{120 + 8 * n}"],
            "meta": {"answer_prefix": f" {100 + n}"},
        }
        for n in range(6)
    ]
    (folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return load_settings(
        None,
        [
            "dataset.name=jsonl", "dataset.task=begun", f"dataset.path={folder}/rows.jsonl", "binning.n_bins=1",
            "binning.n_per_bin=6", "model.name=reference", f"engine.base_url={url}", f"output.runs_dir={folder}/runs",
            f"output.data_dir={folder}/data", "decoding.max_tokens=4", "kv.control_repeats=0", "kv.budgets=[1.0, 0.6]",
            "kv.policies=[{policy: snapkv, mode: question_agnostic}, {policy: truncate_prompt}]", *overrides,
        ],
        environ={},
    )  # fmt: skip


async def test_an_answer_prefix_begins_the_assistants_turn_over_either_endpoint(
    tmp_path: Path, reference_url: str
) -> None:
    answers = {}
    for endpoint in ("chat", "completions"):
        settings = with_answer_prefixes(
            tmp_path, reference_url, f"experiment.exp_group_id={endpoint}", f"prompt.endpoint={endpoint}",
            "prompt.answer_prefix=turn",
        )  # fmt: skip
        report = await run(settings, options=SweepOptions(quiet=True, allow_dead_knob=True))
        assert report.exit_code == 0, report
        rows = query(settings, """SELECT series, kv_budget, example_id, text,
            json_extract(usage_json, '$.prompt_tokens'), token_len, kv_effective FROM responses
            JOIN requests USING (request_id) JOIN runs USING (run_id)
            JOIN manifest_entries USING (dataset_id, example_id)""")  # fmt: skip
        whole = [row for row in rows if row[0] != "truncate_prompt/middle"]
        assert len(rows) == 3 * 6
        assert [row[4] for row in whole] == [row[5] for row in whole]  # the server read what was counted
        agnostic = [row for row in rows if row[0] == "snapkv/agnostic"]
        assert all(abs(row[6] - 0.6) < 0.02 for row in agnostic)  # of the context alone, wherever it ends in the text
        answers[endpoint] = {row[:3]: row[3] for row in rows}
        assert verified(db_of(settings), tmp_path / "data").exit_code == 0  # it renders every prompt again
    assert answers["chat"] == answers["completions"]
    plain = with_answer_prefixes(tmp_path, reference_url, "experiment.exp_group_id=plain")
    assert (await run(plain, options=SweepOptions(quiet=True, allow_dead_knob=True))).exit_code == 0
    full = dict(query(plain, "SELECT example_id, text FROM responses JOIN requests USING (request_id) JOIN runs USING "
                             "(run_id) WHERE is_full"))  # fmt: skip
    assert all(full[example] != text for (series, _, example), text in answers["chat"].items() if series == "full")

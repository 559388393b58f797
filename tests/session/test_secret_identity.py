"""A group stays the same group whatever its secrets are by now, and however they were stored."""

from pathlib import Path

import pytest

from analyzer.stages import every_stage
from kvt_async.contract.errors import ContractMismatchError
from kvt_async.contract.load import load_settings
from kvt_async.contract.settings import Settings
from kvt_async.sweep.sweep import SweepOptions, run
from tests.servers.openai_server import Script, serving
from tests.worlds import query, sweep_settings

QUIET = SweepOptions(quiet=True, allow_dead_knob=True)


def settings_with(folder: Path, url: str, secret: str, *, in_the_clear: bool = False, more: str = "") -> Settings:
    """A group whose level and whose contract hold a secret: from a variable, or written out as if it were none."""
    text = secret if in_the_clear else "${A_TOKEN}"
    path = sweep_settings(folder, url, n=4).dataset.path
    return load_settings(
        None,
        [
            "experiment.exp_group_id=g", "dataset.name=jsonl", "dataset.task=made", f"dataset.path={path}",
            "tokenizer.name=approx:chars/4", "binning.n_bins=1", "binning.n_per_bin=4", "model.name=reference",
            f"engine.base_url={url}", f"output.runs_dir={folder}/runs", f"output.data_dir={folder}/data",
            "decoding.max_tokens=8", "kv.budgets=[1.0, 0.5]", "kv.control_repeats=0",
            "analysis.charts=false", "analysis.resamples=200",
            f"decoding.extra_body={{trace: 'for {text}'}}",
            f"kv.apply={{via: body, body: {{kv: {{budget: '{{budget}}'}}, mark: '{text}{more}'}}}}",
        ],
        environ={"A_TOKEN": secret},
    )  # fmt: skip


@pytest.mark.parametrize("before", ["masked", "in the clear"])
@pytest.mark.parametrize("now", ["tok-0123456789", "tok-renewed-987"])
async def test_a_renewed_secret_resumes_the_group_also_one_made_when_secrets_were_stored(
    tmp_path: Path, before: str, now: str
) -> None:
    async with serving(Script()) as (server, url):
        first = settings_with(tmp_path, url, "tok-0123456789", in_the_clear=before == "in the clear")
        assert (await run(first, options=QUIET)).responses == 8
        sent = len(server.bodies)
        again = await run(settings_with(tmp_path, url, now), options=QUIET)
        assert (again.responses, again.generation, len(server.bodies)) == (8, 1, sent)
    assert server.bodies[-1]["mark"] == "tok-0123456789"  # what is stored is masked, what is sent is not
    stored = str(query(first, "SELECT apply_json FROM runs") + query(first, "SELECT contract_json FROM experiments"))
    assert ("tok-" in stored) is (before == "in the clear")
    every_stage(settings_with(tmp_path, url, "tok-0123456789"), partial=True)
    reports = [path.read_text() for path in (tmp_path / "runs/g").glob("report.*")]
    assert (len(reports), any("tok-0123456789" in text for text in reports)) == (2, False)


async def test_another_level_is_another_level_although_a_mask_stands_in_it(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        await run(settings_with(tmp_path, url, "tok-0123456789"), options=QUIET)
        with pytest.raises(ContractMismatchError, match="another identity"):
            await run(settings_with(tmp_path, url, "tok-0123456789", more=" --dtype fp8"), options=QUIET)

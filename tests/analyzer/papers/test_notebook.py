"""The notebook of examples/: it makes a report's headline anew from single outcomes, in a few lines."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from analyzer import open_group, paired_losses, safe_budget, stages
from kvt_async.contract.load import load_settings
from tests.analyzer.synthetic import make_db

NOTEBOOK = Path(__file__).parents[3] / "examples" / "headline.ipynb"


def cells() -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    """A working directory whose runs/demo is safe at 0.5 and broken at 0.2."""
    place = tmp_path / "runs" / "demo"
    right = {1.0: 1.0, 0.5: 1.0, 0.2: 0.5}
    make_db(place / "kv_transition.sqlite", n_bins=2, n_per_bin=50, exp_group_id="demo", p_correct=right)
    given = ("experiment.exp_group_id=demo", f"output.runs_dir={place.parent}", "analysis.resamples=100")
    settings = load_settings(None, (*given, "analysis.charts=false"), environ={})
    stages.score_stage(settings)
    stages.analyze_stage(settings)
    before = Path.cwd()
    os.chdir(tmp_path)
    yield place
    os.chdir(before)


def test_every_cell_runs_and_finds_what_the_report_says(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for cell in cells():
        exec(compile(cell, NOTEBOOK.name, "exec"), names)
    results = open_group(runs)
    verdict = results.verdict(results.series[0])
    assert verdict is not None
    assert verdict.safe_budget == 0.5, "there is something to find"
    assert verdict.verdict_text in capsys.readouterr().out
    losses = paired_losses(results.outcomes())
    assert safe_budget(losses.with_columns(p_safe=0.5), results.series[0]) == 1.0, "nothing proven is full cache"
    for budget, drop in results.paired(results.series[0]):
        row = losses.filter(series=drop.series, kv_budget=budget).row(0, named=True)
        stored = [drop.drop_mean, drop.drop_ci_low, drop.drop_ci_high, drop.p_safe, drop.p_loss, drop.p_collapse]
        made = [row[name] for name in ("drop", "drop_low", "drop_high", "p_safe", "p_loss", "p_broken")]
        assert made == pytest.approx(stored, abs=1e-9)


def test_it_takes_fewer_than_twenty_lines() -> None:
    assert sum(bool(line.strip()) for cell in cells() for line in cell.splitlines()) < 20


def test_failures_and_answers_that_do_not_count_yet_are_judged_as_a_verdict_judges_them(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    make_db(place / "kv_transition.sqlite", n_bins=2, n_per_bin=12, exp_group_id="demo", failures=0.2, samples=2)
    given = ("experiment.exp_group_id=demo", f"output.runs_dir={tmp_path}", "analysis.resamples=100")
    settings = load_settings(None, (*given, "analysis.charts=false"), environ={})
    stages.score_stage(settings)
    stages.analyze_stage(settings)
    results = open_group(place)
    outcomes = results.outcomes()
    assert (outcomes["state"] == "failed").any()
    losses = paired_losses(outcomes.filter(pl.col("sample_idx") < results.samples))
    stored = [drop.p_safe for _, drop in results.paired(results.series[0])]
    assert losses["p_safe"].to_list() == pytest.approx(stored, abs=1e-9)

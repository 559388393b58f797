"""A margin as a share of what full cache scores, through the whole analysis."""

import json
from typing import Any

import pytest

from analyzer.report.answers import first_screen
from analyzer.report.figures_json import figures
from analyzer.report.guards import same_question
from analyzer.report.terminal_verdict import verdict_lines
from analyzer.results.results import read_results
from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from kvt_async.contract.errors import MissingPrerequisiteError
from tests.analyzer.conftest import Experiment, Opened
from tests.analyzer.read.test_declared_plan import planned
from tests.analyzer.summarise.test_guessing_floor import changed


def low_scores(series: str, budget: float, bin_idx: int) -> float:
    """Full cache is right in three of ten; at 0.5 a tenth of these is lost, 0.03 of all."""
    return 0.3 if budget == 1.0 else 0.27


def analysed(experiment: Experiment, *overrides: str, **asked: Any) -> Opened:
    conn, settings = experiment(n_bins=2, n_per_bin=200, budgets=(1.0, 0.5), overrides=overrides, **asked)
    score(conn, "synthetic")
    analyze(conn, settings)
    return conn, settings


def row(conn: Any) -> Any:
    return conn.execute("SELECT * FROM transition_summary WHERE bin_idx = -1").fetchone()


def test_a_loss_inside_the_absolute_margin_can_be_beyond_the_relative_one(experiment: Experiment) -> None:
    absolute, _ = analysed(experiment, "analysis.margin=0.06", p_correct=low_scores)
    relative, _ = analysed(experiment, "analysis.margin=0.06", "analysis.margin_kind=relative", p_correct=low_scores)
    assert row(absolute)["safe_budget"] == 0.5
    assert row(relative)["safe_budget"] == 1.0
    assert "margin_kind" not in json.loads(row(absolute)["method"])
    assert json.loads(row(relative)["method"])["margin_kind"] == "relative"


def test_sentences_say_that_the_margin_is_a_share(experiment: Experiment) -> None:
    conn, settings = analysed(experiment, "analysis.margin=0.3", "analysis.margin_kind=relative", p_correct=low_scores)
    assert row(conn)["safe_budget"] == 0.5
    assert "less than 30% of full cache's accuracy" in row(conn)["verdict_text"]
    results = read_results(conn, "synthetic")
    text = " ".join(" ".join(verdict_lines(results, settings)).split())
    assert "less than 30% of full cache's accuracy" in text
    assert figures(results, settings)["margin_kind"] == "relative"


def test_the_interval_that_a_relative_verdict_belongs_to_is_stored_and_told(experiment: Experiment) -> None:
    conn, settings = analysed(experiment, "analysis.margin=0.3", "analysis.margin_kind=relative", p_correct=low_scores)
    share, low, high = json.loads(row(conn)["zone_json"])["lost_share"]["0.5"]
    assert low < share < high < 0.3  # proven to be less than the margin
    drop = conn.execute("SELECT drop_mean FROM budget_stats WHERE bin_idx = -1 AND kv_budget = 0.5").fetchone()[0]
    assert share == pytest.approx(drop / row(conn)["acc_full"])
    answers = first_screen(read_results(conn, "synthetic"), settings).answers
    assert any("of what full cache scores." in line for answer in answers for line in answer.lines)


def test_a_report_under_another_kind_of_margin_is_refused(experiment: Experiment) -> None:
    conn, settings = analysed(experiment, "analysis.margin_kind=relative")
    other = settings.model_copy(update={"analysis": settings.analysis.model_copy(update={"margin_kind": "absolute"})})
    same_question(read_results(conn, "synthetic"), settings)
    with pytest.raises(MissingPrerequisiteError, match="margin_kind relative, the config says absolute"):
        same_question(read_results(conn, "synthetic"), other)


def test_a_kind_chosen_after_the_data_is_named(experiment: Experiment) -> None:
    conn, settings = experiment(n_per_bin=10, overrides=("analysis.margin_kind=relative",))
    changed(conn, "UPDATE sessions SET config_yaml = 'analysis: {margin: 0.05, alpha: 0.05}'")
    score(conn, "synthetic")
    analyze(conn, settings)
    assert planned(conn) == {"margin_kind": "absolute"}
    text = " ".join(" ".join(verdict_lines(read_results(conn, "synthetic"), settings)).split())
    assert "That the margin is relative was chosen after the data; the plan said absolute." in text

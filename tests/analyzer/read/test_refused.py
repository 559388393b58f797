"""Requests that were given up for a key or a quota in databases of before: pending, never wrong answers."""

import sqlite3
from pathlib import Path

import pytest

from analyzer.read.run_counts import refused, run_counts
from analyzer.report.answers import first_screen
from analyzer.results.results import read_results
from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from analyzer.verbs.export import export
from kvt_async.contract.errors import MissingPrerequisiteError
from tests.analyzer.conftest import Experiment

EXPIRED = {"n_bins": 1, "n_per_bin": 50, "p_correct": 1.0, "refused_from": {0.5: 10}, "control_repeats": 0}
REFUSALS = [
    ("HttpError", 401),
    ("HttpError", 402),
    ("HttpError", 403),
    ("QuotaExhausted", 429),
    ("QuotaExhausted", 402),
]


def failed(conn: sqlite3.Connection) -> int:
    return sum(count.failures for count in run_counts(conn, "synthetic", 1).values())


@pytest.mark.parametrize("refusal", REFUSALS)
def test_no_loss_is_proven_from_a_key_that_expired(experiment: Experiment, refusal: tuple[str, int]) -> None:
    """40 of 50 answers at the budget are missing; counted as wrong they would prove a loss beyond any margin."""
    conn, settings = experiment(**EXPIRED, budgets=(1.0, 0.5), refusal=refusal)
    score(conn, "synthetic")
    with pytest.raises(MissingPrerequisiteError, match="40 requests are still pending") as caught:
        analyze(conn, settings)
    assert "40 of 50, 40 of them refused for the key or the quota" in str(caught.value)
    assert "--retry-failed" in str(caught.value)
    analyze(conn, settings, partial=True)
    facts = read_results(conn, "synthetic")
    verdict, drop = facts.verdict("snapkv/aware"), facts.drops[0]
    assert verdict is not None
    assert (verdict.collapse_budget, verdict.zone_low) == (None, None)
    assert (drop.n, drop.drop_mean, drop.n_worse) == (10, 0.0, 0)
    (alarm,) = first_screen(facts, settings).alarms
    assert alarm.name == "PARTIAL"
    assert "40 were refused for the key or the quota, which says nothing about them" in alarm.says
    assert failed(conn) == 0


def test_scores_that_they_were_given_before_are_taken_away(experiment: Experiment) -> None:
    conn, _ = experiment(**EXPIRED, budgets=(1.0, 0.5))
    conn.execute(
        "INSERT INTO scores SELECT request_id, 0, 0, 0, 'f1', NULL, NULL, 'ENGINE_ERROR', '', NULL, '2' FROM failures"
    )
    score(conn, "synthetic")
    assert conn.execute("SELECT count(*) FROM scores JOIN failures USING (request_id)").fetchone()[0] == 0


def test_one_that_was_refused_while_later_ones_were_answered_was_refused_on_its_own_account(
    experiment: Experiment,
) -> None:
    conn, settings = experiment(**EXPIRED, budgets=(1.0, 0.5), refused_at="2026-01-02T03:04:00Z")
    score(conn, "synthetic")
    analyze(conn, settings)
    assert failed(conn) == 40
    assert refused(conn) == {}


def test_other_failures_stay_failures(experiment: Experiment) -> None:
    conn, settings = experiment(**EXPIRED, budgets=(1.0, 0.5), refusal=("HttpError", 500))
    score(conn, "synthetic")
    analyze(conn, settings)
    assert failed(conn) == 40


def test_an_export_leaves_them_out(experiment: Experiment, tmp_path: Path) -> None:
    conn, settings = experiment(**EXPIRED, budgets=(1.0, 0.5))
    score(conn, "synthetic")
    assert export(conn, settings, tmp_path / "out.csv").rows == 60

"""The plan is fixed before the data: where an analysis says otherwise, the first session's config is named."""

import json
import sqlite3
from typing import Any

import pytest

from analyzer.read.declared_plan import DeclaredPlan, plan_of
from analyzer.read.snapshot import snapshot
from analyzer.report.terminal_verdict import verdict_lines
from analyzer.results.results import read_results
from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from kvt_async.contract.settings import Analysis
from tests.analyzer.conftest import Experiment, Opened
from tests.analyzer.summarise.test_guessing_floor import changed


def group(
    experiment: Experiment, margin: float, config: str = "analysis: {margin: 0.05, alpha: 0.05}", **asked: Any
) -> Opened:
    """A group whose first session had `config`, analysed with another margin."""
    conn, settings = experiment(n_per_bin=10, **asked)
    quoted = config.replace("'", "''")
    changed(conn, f"UPDATE sessions SET config_yaml = '{quoted}'")
    score(conn, "synthetic")
    settings = settings.model_copy(update={"analysis": settings.analysis.model_copy(update={"margin": margin})})
    analyze(conn, settings)
    return conn, settings


def planned(conn: sqlite3.Connection) -> Any:
    return json.loads(conn.execute("SELECT method FROM transition_summary WHERE bin_idx = -1").fetchone()[0]).get(
        "planned"
    )


def test_a_margin_chosen_after_the_data_is_named_in_the_headline(experiment: Experiment) -> None:
    conn, settings = group(experiment, 0.1)
    assert planned(conn) == {"margin": 0.05}
    text = " ".join(" ".join(verdict_lines(read_results(conn, "synthetic"), settings)).split())
    assert "The margin of 0.1 was chosen after the data; the plan said 0.05." in text


def test_a_plan_that_was_kept_is_not_spoken_of(experiment: Experiment) -> None:
    conn, settings = group(experiment, 0.05)
    assert planned(conn) is None
    assert "the plan said" not in " ".join(verdict_lines(read_results(conn, "synthetic"), settings))


@pytest.mark.parametrize(
    "config", ["", "a: 1", "analysis: [1]", "analysis: {margin: yes}", "{", "- x", "a: " + "[" * 3000]
)
def test_a_config_that_says_nothing_is_no_plan(experiment: Experiment, config: str) -> None:
    conn, _ = group(experiment, 0.1, config)
    assert planned(conn) is None


def test_the_first_series_of_the_first_session_is_the_primary_one(experiment: Experiment) -> None:
    """A second session whose config puts another series first: its claims would be the confirmatory ones."""
    conn, settings = experiment(n_per_bin=10, series=("random", "snapkv/aware"))
    changed(
        conn,
        "UPDATE runs SET created_at = '2026-03-01T00:00:00Z' WHERE series = 'random'",
        "INSERT INTO sessions SELECT 'later', exp_group_id, generation, '2026-02-01T00:00:00Z', command, config_yaml, "
        "config_sha256, kvt_version, git_commit, python, platform, engine_loop, concurrency, order_seed, "
        "shard_i, shard_n, host, notes_json FROM sessions",
    )
    score(conn, "synthetic")
    analyze(conn, settings)
    assert planned(conn)["series"] == "snapkv/aware"
    text = " ".join(" ".join(verdict_lines(read_results(conn, "synthetic"), settings)).split())
    assert "The first series random was chosen after the data; the plan said snapkv/aware." in text


def test_without_a_session_nothing_was_planned() -> None:
    assert DeclaredPlan().otherwise(Analysis(margin=0.1, metric="em"), "a", "f1", {}) == {}
    conn = sqlite3.connect(":memory:")
    conn.execute(
        "CREATE TABLE sessions (session_id, exp_group_id, generation, started_at, config_sha256, shard_i, shard_n)"
    )
    assert plan_of(conn, "g", 1) == DeclaredPlan()


def test_the_snapshot_of_an_analysis_sees_the_plan(experiment: Experiment) -> None:
    conn, _ = group(experiment, 0.05)
    with snapshot(conn) as facts:
        stated = DeclaredPlan(0.05, "absolute", 0.05, "snapkv/aware", aggregate="mean")
        assert plan_of(facts, "synthetic", 1) == stated

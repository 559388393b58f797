"""What was counted of the same facts is not counted again, and whatever changes them since is noticed."""

import sqlite3

import pytest

from analyzer import stages
from analyzer.read import kept_counts
from analyzer.read.run_counts import run_counts
from analyzer.results.results import read_results
from analyzer.scoring.score import score
from tests.analyzer.conftest import Experiment

KEY = ("synthetic", 1)


def counting(conn: sqlite3.Connection) -> list[str]:
    """The statements of a count that go through rows of requests."""
    seen: list[str] = []
    conn.set_trace_callback(seen.append)
    run_counts(conn, *KEY)
    conn.set_trace_callback(None)
    return [sql for sql in seen if "FROM requests" in sql or "FROM failures" in sql or "FROM scores" in sql]


def test_once_scored_nothing_is_counted_again(experiment: Experiment) -> None:
    conn, _ = experiment(n_per_bin=5)
    assert counting(conn)
    score(conn, "synthetic")
    assert not counting(conn)
    assert run_counts(conn, *KEY) == run_counts(conn, *KEY, kept=False)


@pytest.mark.parametrize("samples", [1, 2])
def test_what_is_kept_is_of_the_answers_that_were_planned(experiment: Experiment, samples: int) -> None:
    conn, _ = experiment(n_per_bin=5)
    score(conn, "synthetic")
    (dataset,) = conn.execute("SELECT dataset_id FROM datasets").fetchone()
    counts = run_counts(conn, *KEY, {dataset: samples}).values()
    assert {count.planned for count in counts} == {25 * samples}


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM scores WHERE rowid % 3 = 0",
        "DELETE FROM scores",
        "DROP TRIGGER scores_removed; DELETE FROM scores WHERE rowid % 3 = 0",
        "DROP TRIGGER responses_no_delete; DROP TRIGGER scores_removed; DELETE FROM responses WHERE rowid = 7",
        "INSERT INTO try_series SELECT request_id, 1, (SELECT session_id FROM sessions), '' FROM requests LIMIT 4",
        "INSERT INTO requests SELECT request_id || '.7', run_id, example_id, 7, 0, '', '' FROM requests LIMIT 3",
        "INSERT INTO sample_plans SELECT 'synthetic', 1, dataset_id, 2, session_id, '' FROM datasets, sessions",
    ],
)
def test_a_change_since_is_counted(experiment: Experiment, change: str) -> None:
    conn, _ = experiment(n_per_bin=5)
    score(conn, "synthetic")
    before = run_counts(conn, *KEY)
    conn.executescript(change)
    assert run_counts(conn, *KEY) == run_counts(conn, *KEY, kept=False) != before


def test_a_database_of_before_gets_the_guards_that_keeping_hangs_on(experiment: Experiment) -> None:
    conn, _ = experiment(n_per_bin=5)
    score(conn, "synthetic")
    conn.executescript("DROP TRIGGER scores_removed; DELETE FROM scores WHERE rowid = 1")
    assert score(conn, "synthetic").scored == 25  # that run's, all of them
    conn.execute("DELETE FROM scores WHERE rowid = (SELECT max(rowid) FROM scores)")
    assert not kept_counts.scores_written(conn, *KEY).keys() >= run_counts(conn, *KEY).keys()


def test_volumes_are_summed_once(experiment: Experiment) -> None:
    conn, settings = experiment(n_per_bin=5)
    db = conn.execute("PRAGMA database_list").fetchone()[2]
    stages.every_stage(settings.model_copy(update={"db": settings.db.model_copy(update={"path": db})}))
    kept = kept_counts.read_kept(conn, *KEY, kept_counts.VOLUMES)
    assert kept is not None
    volumes = read_results(conn, "synthetic", volumes=True).volumes
    conn.execute("DELETE FROM analysis_state WHERE stage = 'volumes'")
    assert read_results(conn, "synthetic", volumes=True).volumes == volumes

"""Large experiments are scored and read in several processes, and nothing in the results tells."""

import multiprocessing
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest

from analyzer import parallel
from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from kvt_async.contract.schema_tables import DERIVED_TABLES

SMALL = {"n_bins": 2, "n_per_bin": 12, "graded": True, "failures": 0.1, "budgets": (1.0, 0.5, 0.2)}


def derived_rows(conn: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: sorted((tuple(row) for row in conn.execute(f"SELECT * FROM {table}")), key=repr)
        for table in DERIVED_TABLES
    }


def test_processes_store_what_one_process_stores(
    experiment: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = []
    for worth_it in (0, 10**9):
        monkeypatch.setattr(parallel, "WORTH_IT_ROWS", worth_it)
        monkeypatch.setattr(parallel, "cores", lambda: 2)  # whatever machine this runs on
        conn, settings = experiment(**SMALL)
        score(conn, "synthetic")
        analyze(conn, settings)
        stored.append(derived_rows(conn))
    assert all(stored[0][table] for table in ("scores", "bin_stats", "run_evidence", "budget_stats"))
    assert stored[0] == stored[1]


def test_small_runs_together_store_what_each_stores_alone(
    experiment: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = []
    for rows in (1, 10**9):
        monkeypatch.setattr(parallel, "BATCH_ROWS", rows)
        series = ("snapkv/aware", "truncate_prompt/middle")  # of the second, a short prompt is no fault of the server
        conn, settings = experiment(**SMALL, series=series, reads=lambda sent: sent - 50, partial=0.1)
        score(conn, "synthetic")
        analyze(conn, settings, partial=True)
        stored.append(derived_rows(conn))
    flags = [sum("prompt_truncated" in str(row) for row in tables["scores"]) for tables in stored]
    assert 0 < flags[0] < len(stored[0]["scores"])
    assert stored[0] == stored[1]


def test_a_batch_holds_alike_parts_that_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "BATCH_ROWS", 5)
    parts = [("a", 2), ("a", 3), ("a", 1), ("b", 1), ("b", 9), ("b", 1), ("a", 5)]
    together = parallel.batches(parts, lambda part: part[0], lambda part: part[1])
    assert together == [parts[:2], parts[2:3], parts[3:4], parts[4:5], parts[5:6], parts[6:]]


@pytest.mark.parametrize(
    ("free", "each", "n"),
    [(None, 0, 16), (1 << 40, 0, 16), (10 << 30, 0, 16), (10 << 30, 1 << 30, 4), (1 << 20, 1 << 30, 1), (0, 0, 1)],
)
def test_there_are_as_many_processes_as_cores_and_memory_hold(
    monkeypatch: pytest.MonkeyPatch, free: int | None, each: int, n: int
) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: 16)
    monkeypatch.setattr(parallel, "free_bytes", lambda: free)
    assert parallel.processes(100, each) == n
    assert parallel.processes(2, each) == min(2, n)


def test_what_is_free_is_known_of_this_machine() -> None:
    free = parallel.free_bytes()
    assert free is None or 0 <= free < 1 << 50


@pytest.mark.parametrize("rows", [0, parallel.WORTH_IT_ROWS - 1])
def test_little_work_stays_in_this_process(rows: int) -> None:
    assert parallel.results(len, ["a", "bc"], rows=rows) == [None, None]


def test_results_come_in_the_order_of_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    assert parallel.results(len, ["a", "bc", ""], rows=10**9) == [1, 2, 0]


def test_the_last_result_comes_when_the_processes_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    alive = []
    for _ in parallel.stream(len, ["a", "bc", ""], rows=10**9):
        alive.append(len(multiprocessing.active_children()))
    assert alive[0] > 0
    assert alive[-1] == 0


def test_the_next_result_is_made_while_one_is_used() -> None:
    made = [threading.Event() for _ in range(3)]

    def make(i: int) -> int:
        made[i].set()
        return i * i

    seen = []
    for result in parallel.one_ahead(make, range(3)):
        seen.append(result)
        assert made[min(len(seen), 2)].wait(10), "the next one waits for this one to be used"
    assert seen == [0, 1, 4]


def test_what_goes_wrong_in_the_thread_goes_wrong_here() -> None:
    with pytest.raises(ZeroDivisionError):
        list(parallel.one_ahead(lambda n: 1 // n, [1, 0, 2]))

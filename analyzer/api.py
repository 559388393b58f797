"""The door for notebooks and programs: what was measured and derived of a group, as typed rows. See docs/API.md."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from analyzer.frames.bench_results import BenchResults, read_bench
from analyzer.frames.group_results import GroupResults, GroupSuite
from analyzer.frames.paired_losses import paired_losses, safe_budget
from analyzer.read import group_connection, runs
from analyzer.read.snapshot import snapshot
from analyzer.results.results import Results, read_results
from analyzer.results.suite_results import SuiteResults, read_suite
from kvt_async.contract.command_line.run_folder import database_of
from kvt_async.contract.errors import ConfigError

__all__ = [
    "BenchResults",
    "GroupResults",
    "GroupSuite",
    "Results",
    "SuiteResults",
    "open_bench",
    "open_group",
    "open_suite",
    "paired_losses",
    "safe_budget",
]


def open_group(
    place: str | Path, group: str | None = None, *, task: str | None = None, volumes: bool = False
) -> GroupResults:
    """Read a group's newest generation: its runs, and every row that `kvt analyze` stored of them.

    `place` is a run's folder or a database in it; `group` an experiment.exp_group_id, by default the one that was run
    last; `task` one of its tasks, needed where it has several. Nothing is written, and nothing that the folder holds is
    executed. All rows show one state of the database, also while a sweep goes on; frames of outcomes and
    answers are read when they are asked for. Before the first `kvt analyze`, runs
    and their counts are there and the derived rows are empty. `volumes` (requests, tokens and seconds of each session)
    reads every response, so it is left out unless asked for.

    Raises ConfigError where `place` is neither folder nor database, several tasks are there and none is named, or the
    group was benched (open_bench reads those); MissingPrerequisiteError where nothing was
    run there, or not this group or task; GuardError where a link would lead out of the folder.
    """
    with _swept(place, group) as (conn, name):
        return GroupResults.of(read_results(conn, name, task=task, volumes=volumes), database_of(Path(place)))


def open_suite(place: str | Path, group: str | None = None, *, volumes: bool = False) -> GroupSuite:
    """Read all tasks of a group's newest generation, and what is said of them together; for the rest see open_group.

    A group of one task has its results as the only ones of `tasks`, and no rows of several together.
    """
    with _swept(place, group) as (conn, name):
        return GroupSuite.of(read_suite(conn, name, volumes=volumes), database_of(Path(place)))


def open_bench(place: str | Path, group: str | None = None, *, alpha: float = 0.05) -> BenchResults:
    """Read a benched group's newest generation: every load with its intervals (of 1 - alpha), and every request.

    `place` and `group` as of open_group. Raises ConfigError where the group was swept, MissingPrerequisiteError where
    nothing was benched.
    """
    with closing(group_connection.open_group(database_of(Path(place)))) as group_conn, snapshot(group_conn) as conn:
        name = group if group is not None else runs.newest_group(conn)[0]
        if not runs.benched(conn, name):
            raise ConfigError(
                f"the group {name!r} was swept: it has budgets and no loads",
                where=str(place),
                do="Open it with open_group, or open_suite.",
            )
        return read_bench(conn, name, alpha)


@contextmanager
def _swept(place: str | Path, group: str | None) -> Iterator[tuple[sqlite3.Connection, str]]:
    """A database held at one state, and the name of a group in it that was swept."""
    with closing(group_connection.open_group(database_of(Path(place)))) as group_conn, snapshot(group_conn) as conn:
        name = group if group is not None else runs.newest_group(conn)[0]
        if runs.benched(conn, name):
            raise ConfigError(
                f"the group {name!r} was benched: it has loads and no budgets to judge",
                where=str(place),
                do="Open it with open_bench.",
            )
        yield conn, name

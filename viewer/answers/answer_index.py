"""All answers of a group in memory, a few numbers for each: what the explorer filters and pages through.

One row a request of the newest generation, ordered by task, example, answer, turn and level. Texts stay in the
database: a million answers take some 50 MB here.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from analyzer.read.group_connection import parts
from analyzer.read.group_tasks import GroupTask, group_tasks
from analyzer.read.row_portions import read_frame
from analyzer.read.runs import Run, benched, newest_generation, runs
from analyzer.read.same_answer import same_answer
from analyzer.results.length_bins import length_bins
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.labels import level_label

ANSWERED, FAILED, PENDING = "answered", "failed", "pending"
STATES = pl.Enum([ANSWERED, FAILED, PENDING])
RIGHT, PARTLY, WRONG, UNSCORED = "right", "partly", "wrong", "not scored"
_SCHEMA: dict[str, Any] = {
    "request_id": pl.String,
    "example_id": pl.String,
    "sample": pl.Int16,
    "turn": pl.Int16,
    "answered": pl.Int8,
    "score": pl.Float32,
    "label": pl.String,
    "same": pl.Int8,
}
# Whether an answer is full cache's: as its score says, else by the texts.
_SAME = f"""CASE WHEN p.request_id IS NULL OR :full IS NULL OR r.run_id = :full THEN NULL
    WHEN s.request_id IS NOT NULL AND (s.first_divergence IS NOT NULL OR instr(s.flags, 'identical_to_full'))
        THEN instr(s.flags, 'identical_to_full') > 0
    ELSE (SELECT {same_answer("p", "g")} FROM requests q JOIN responses g ON g.request_id = q.request_id
          WHERE q.run_id = :full AND q.example_id = r.example_id AND q.sample_idx = r.sample_idx
          AND q.turn_idx = r.turn_idx) END"""
_ROWS = f"""SELECT r.request_id, r.example_id, r.sample_idx, r.turn_idx, p.request_id IS NOT NULL, s.score,
    s.failure_label, {_SAME} FROM requests r LEFT JOIN responses p ON p.request_id = r.request_id
    LEFT JOIN scores s ON s.request_id = r.request_id WHERE r.run_id = :run"""
_ENTRIES = "SELECT example_id, seq, bin_idx FROM manifest_entries WHERE dataset_id = ? ORDER BY seq"
_WATCHED = ("requests", "responses", "scores", "give_ups", "try_series")


@dataclass(frozen=True)
class ViewedTask:
    """A task and the names of its length bins."""

    task: GroupTask
    bins: dict[int, str]


@dataclass(frozen=True)
class AnswerIndex:
    """`answers`: request_id, run (place in `runs`), task (place in `tasks`), entry, bin, sample, turn, state, score,
    label, differs (from full cache's answer; null: not known, or full cache itself), key (its place, ascending).
    `state`: what the database held, as a short text that changes with it."""

    group: str
    generation: int
    tasks: Sequence[ViewedTask]
    runs: Sequence[Run]
    answers: pl.DataFrame
    state: str
    texts: dict[str, pl.Series] = field(default_factory=dict)  # text searched for -> whether each answer holds it

    @property
    def levels(self) -> list[str]:
        """Names of the levels, one of each over all tasks, in the order of the config."""
        return list(dict.fromkeys(map(level_of, self.runs)))


def level_of(run: Run) -> str:
    """'full', 'snapkv/aware 0.5': what a level is called."""
    return level_label(run.series, run.kv_budget, run.kv_unit, is_full=run.is_full, repeat_idx=run.repeat_idx)


def facts_seen(conn: sqlite3.Connection) -> str:
    """A short text that is another one after anything was added or scored anew."""
    counts = [
        part.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0] or 0
        for part in parts(conn)
        for table in _WATCHED
        if _has_rowid(part, table)
    ]
    return ",".join(map(str, counts))


def _has_rowid(part: sqlite3.Connection, table: str) -> bool:
    """Whether it is a table, and no view that stands for one."""
    made = part.execute("SELECT type FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    hidden = part.execute("SELECT 1 FROM sqlite_temp_master WHERE name = ?", (table,)).fetchone()
    return made is not None and made[0] == "table" and hidden is None


def answer_index(conn: sqlite3.Connection, group: str) -> AnswerIndex:
    """Read a group's newest generation. Raises MissingPrerequisiteError where it has no runs or was benched."""
    refuse_benched(conn, group)
    state = facts_seen(conn)
    generation = newest_generation(conn, group)
    tasks = group_tasks(conn, group, generation)
    every = runs(conn, group, generation)
    failures = _failures(conn, every)
    frames = []
    for place, task in enumerate(tasks):
        own = [(at, run) for at, run in enumerate(every) if run.dataset_id == task.dataset_id]
        full = next((run.run_id for _, run in own if run.is_baseline), None)
        entries = read_frame(
            conn.execute(_ENTRIES, (task.dataset_id,)),
            {"example_id": pl.String, "entry": pl.Int32, "bin": pl.Int16},
        )
        for at, run in own:
            for part in parts(conn):
                rows = part.execute(_ROWS, {"run": run.run_id, "full": full})
                frame = read_frame(rows, _SCHEMA, lambda some: some.with_columns(pl.col("label").cast(pl.Categorical)))
                frames.append(_of_run(frame.join(entries, on="example_id", how="left"), at, place, failures))
    answers = pl.concat(frames) if frames else _of_run(_empty(), 0, 0, failures)
    return AnswerIndex(
        group,
        generation,
        [ViewedTask(task, {b.bin_idx: b.label for b in length_bins(conn, task.dataset_id)}) for task in tasks],
        every,
        answers.sort("key"),
        state,
    )


def refuse_benched(conn: sqlite3.Connection, group: str) -> None:
    """Raise MissingPrerequisiteError where a group has loads in place of levels."""
    if benched(conn, group):
        raise MissingPrerequisiteError(
            f"{group} was benched: its answers belong to loads and have no full cache to stand beside"
        )


def _empty() -> pl.DataFrame:
    schema = {**_SCHEMA, "label": pl.Categorical, "entry": pl.Int32, "bin": pl.Int16}
    return pl.DataFrame(schema=schema)


def _failures(conn: sqlite3.Connection, every: Sequence[Run]) -> pl.DataFrame:
    own = {run.run_id for run in every}
    rows = (
        (request_id, why)
        for part in parts(conn)
        for request_id, run_id, why in part.execute(
            "SELECT request_id, run_id, ifnull(error_type, reason) FROM failures"
        )
        if run_id in own
    )
    return read_frame(rows, {"request_id": pl.String, "why": pl.String}).unique("request_id")


def _of_run(frame: pl.DataFrame, run: int, task: int, failures: pl.DataFrame) -> pl.DataFrame:
    """The rows of one run as the index has them. The key holds task, entry, answer, turn and run, in so many bits."""
    joined = frame.join(failures, on="request_id", how="left")
    entry = pl.col("entry").fill_null(0).cast(pl.Int64)
    place = ((task * (1 << 24) + entry) * 1024 + pl.col("sample")) * 512 + pl.col("turn")
    return joined.select(
        "request_id",
        pl.lit(run, dtype=pl.UInt16).alias("run"),
        pl.lit(task, dtype=pl.UInt16).alias("task"),
        pl.col("bin"),
        "sample",
        "turn",
        state=pl.when(pl.col("answered") == 1)
        .then(pl.lit(ANSWERED))
        .when(pl.col("why").is_not_null())
        .then(pl.lit(FAILED))
        .otherwise(pl.lit(PENDING))
        .cast(STATES),
        score="score",
        label=pl.coalesce(pl.col("label").cast(pl.String), "why").cast(pl.Categorical),
        differs=pl.col("same") == 0,
        key=place * 4096 + run,
    )

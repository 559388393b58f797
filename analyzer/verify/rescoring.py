"""One run, scored again from its facts and read as the analysis reads it: the half of `kvt verify` that sees responses.

Recomputed scores go into a temporary table that lies over the stored one, so whatever reads them afterwards reads
recomputed ones only. The database itself is open for reading.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import polars as pl

from analyzer.read import examples, runs
from analyzer.read.examples import BinnedDataset
from analyzer.read.snapshot import held
from analyzer.scoring import score
from analyzer.scoring.prepared_golds import Golds
from analyzer.scoring.runs_to_score import SCORER_VERSION
from analyzer.summarise.run_data import ReadingRule, RunData, read_runs
from analyzer.verify import differences
from analyzer.verify.differences import Difference, Findings
from kvt_async.contract.older_schemas import rows_of_today
from kvt_async.contract.schema import connect_for_reading

_OVER = (
    "CREATE TEMP TABLE scores (request_id TEXT PRIMARY KEY, em REAL, f1 REAL, score REAL, metric TEXT, pred_norm TEXT, "
    "gold_norm TEXT, failure_label TEXT, flags TEXT, first_divergence INTEGER, scorer_version TEXT)"
)
_NUMBERS = ("em", "f1", "score")
_EQUAL = ("metric", "pred_norm", "gold_norm", "failure_label", "flags", "first_divergence")
_DIFFERENT = " OR ".join(
    [f"abs(m.{n} - t.{n}) > {differences.EXACT}" for n in _NUMBERS] + [f"m.{n} IS NOT t.{n}" for n in _EQUAL]
)
_NAMED = 100  # differing scores of one run that are named
_AT_ONCE = 10_000


@dataclass(frozen=True)
class Database:
    """A file to be read; `frozen`: nobody writes to it, so SQLite needs no files of its own beside it."""

    file: Path
    frozen: bool

    def connect(self) -> sqlite3.Connection:
        return connect_for_reading(self.file, immutable=self.frozen)


@dataclass(frozen=True)
class RunToCheck:
    """A run whose scores are recomputed; `reading` None: it has no analysis that could be repeated."""

    db: Database
    run: runs.Run
    full_run_id: str | None
    dataset: BinnedDataset
    reading: ReadingRule | None
    complete: bool  # its scores were all made from the facts that are there now


def check_run(task: RunToCheck) -> tuple[Findings, RunData | None]:
    """Recompute and compare the scores of one run, then read it as the analysis does, from the recomputed scores."""
    findings = Findings()
    with closing(held(task.db.connect())) as facts:
        facts.execute("DROP VIEW IF EXISTS temp.scores")  # of an older schema
        facts.execute(f"CREATE TEMP VIEW stored_scores AS {rows_of_today(facts, 'scores')}")
        facts.execute(_OVER)
        rules = score.rules_of(facts, task.run, task.full_run_id, task.dataset)
        for frame in score.with_golds(
            facts, [task.run], task.full_run_id, _golds(task.db, task.dataset), task.dataset.metric
        ):
            made = score.score_frame(frame, rules)
            for part in made.iter_slices(_AT_ONCE):
                facts.executemany("INSERT INTO temp.scores VALUES (?,?,?,?,?,?,?,?,?,?,?)", part.rows())
        _compare_scores(facts, task, findings)
        if task.reading is None:
            return findings, None
        entries = _entries(task.db, task.run.dataset_id)
        return findings, read_runs(facts, [(task.run, task.reading)], entries)[0]


def _golds(db: Database, dataset: BinnedDataset) -> Golds:
    return _golds_of(db, dataset.dataset_id, dataset.metric)


@cache
def _golds_of(db: Database, dataset_id: str, metric: str) -> Golds:
    with closing(db.connect()) as conn:
        return Golds(examples.dataset(conn, dataset_id).scored_by(metric))


@cache
def _entries(db: Database, dataset_id: str) -> pl.DataFrame:
    with closing(db.connect()) as conn:
        return examples.entries(conn, dataset_id)


def _compare_scores(facts: sqlite3.Connection, task: RunToCheck, findings: Findings) -> None:
    run_id, version = task.run.run_id, SCORER_VERSION
    versions = facts.execute(
        "SELECT m.scorer_version, count(*) FROM main.requests r JOIN stored_scores m ON m.request_id = r.request_id "
        "WHERE r.run_id = ? GROUP BY 1",
        (run_id,),
    ).fetchall()
    for other, n in versions:
        if other == version:
            findings.count("scores", n)
        else:
            findings.cannot_check(f"scores made by scorer {other}, this is {version}: can't be checked", n)
    names = [*_NUMBERS, *_EQUAL]
    both = ", ".join([f"m.{name}" for name in names] + [f"t.{name}" for name in names])
    both_made = "FROM temp.scores t JOIN stored_scores m USING (request_id) WHERE m.scorer_version = ?"
    unequal = f"{both_made} AND ({_DIFFERENT})"
    (n,) = facts.execute(f"SELECT count(*) {unequal}", (version,)).fetchone()
    for row in facts.execute(f"SELECT t.request_id, {both} {unequal} ORDER BY 1 LIMIT {_NAMED}", (version,)):
        pairs = zip(names, row[1 : 1 + len(names)], row[1 + len(names) :], strict=True)
        for name, stored, made in pairs:
            if not differences.equal(stored, made):
                findings.add(Difference("scores", {"request_id": row[0]}, name, stored, made))
    findings.n_differences += max(0, n - _NAMED)
    lost = facts.execute(
        "SELECT t.request_id FROM temp.scores t LEFT JOIN stored_scores m USING (request_id) "
        "WHERE m.request_id IS NULL ORDER BY 1"
    ).fetchall()
    if lost and task.complete:
        for i, (request,) in enumerate(lost[:_NAMED]):
            more = len(lost) - _NAMED + 1 if i == _NAMED - 1 else 1
            findings.add(Difference("scores", {"request_id": request}, "", None, "a row"), more)
    elif lost:
        findings.notes.append(f"{run_id}: {len(lost)} finished requests are not scored (`kvt score`)")
    surplus = facts.execute(
        "SELECT m.request_id, m.score FROM main.requests r JOIN stored_scores m ON m.request_id = r.request_id "
        "LEFT JOIN temp.scores t ON t.request_id = r.request_id "
        "WHERE r.run_id = ? AND t.request_id IS NULL AND NOT EXISTS "
        "(SELECT 1 FROM main.try_series s WHERE s.request_id = r.request_id)",  # pending again: `kvt score` drops it
        (run_id,),
    )
    for request, value in surplus.fetchmany(_NAMED):
        findings.add(Difference("scores", {"request_id": request}, "", value, None))

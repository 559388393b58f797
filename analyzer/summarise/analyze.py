"""Facts and scores -> every derived table: guards, then one read, then one short write.

Nothing is done when nothing changed: the fingerprint covers the settings, this code's version, and the counts of
append-only facts and what is known of the server; the rows themselves must still be those that were written.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer import parallel
from analyzer.read import examples
from analyzer.read.run_counts import RunCounts
from analyzer.read.snapshot import path_of, snapshot
from analyzer.scoring.score import plugin_sha256
from analyzer.stats.bootstrap import Columns, mean_of_bins, resample_means
from analyzer.stats.interim import look_of
from analyzer.stats.transition import Grid
from analyzer.store import derived_rows
from analyzer.store.derived_rows import ANALYZER_VERSION
from analyzer.store.tables import BinStat, Comparison, Drop, Evidence, OutcomeChange, Verdict, as_columns
from analyzer.summarise.bin_stats import with_bootstrap
from analyzer.summarise.budget_evidence import by_two_servers
from analyzer.summarise.group import Group
from analyzer.summarise.question import STAGE, Question, fingerprint_of, question_of
from analyzer.summarise.run_data import RunData, RunToRead, read_elsewhere, read_run
from analyzer.summarise.stored_sentences import with_sentences
from analyzer.summarise.summaries import GroupRows, group_rows
from analyzer.summarise.withdrawn import withdraw
from kvt_async.contract.errors import ContradictedError, GuardError
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import EvidenceStatus

Floats = npt.NDArray[np.float64]
RowsByTable = dict[str, Sequence[Any]]  # rows of the classes of store/tables.py


@dataclass(frozen=True)
class AnalyzeReport:
    """What `analyze` did; recomputed False: nothing had changed and nothing was written."""

    exp_group_id: str
    generation: int
    runs: int
    recomputed: bool
    partial: bool
    pending: int


@dataclass(frozen=True)
class Derived:
    """Every derived row of an analysis; `group` None where only single runs were analysed."""

    stats: list[BinStat]
    evidence: list[Evidence]
    group: GroupRows | None

    @property
    def of_runs(self) -> RowsByTable:
        """The rows of tables that hold a run's."""
        return {BinStat.TABLE: self.stats, Evidence.TABLE: self.evidence}

    @property
    def of_group(self) -> RowsByTable:
        """The rows of tables that hold a group's."""
        if self.group is None:
            return {}
        rows = self.group
        return {
            Drop.TABLE: rows.drops,
            Verdict.TABLE: rows.verdicts,
            Comparison.TABLE: rows.comparisons,
            OutcomeChange.TABLE: rows.changes,
        }


def analyze(
    conn: sqlite3.Connection,
    settings: Settings,
    *,
    run_id: str | None = None,
    partial: bool = False,
    generation: int | None = None,
    recompute: bool = False,
) -> AnalyzeReport:
    """Bring every derived table of the newest generation (or the one given) up to date.

    With `run_id` only that run's bin_stats and run_evidence; with `recompute` also where nothing changed.

    Raises MissingPrerequisiteError where tables, runs or scores are missing or requests pending without `partial`,
    DriftError where the server became another one (unless analysis.allow_drift), ContradictedError where a server
    applied another budget than asked (run_evidence is stored first), GuardError where stored facts break an invariant.
    """
    with snapshot(conn) as facts:
        question = question_of(facts, settings, run_id=run_id, partial=partial, generation=generation)
        group, gen, pending = question.exp_group_id, question.generation, question.pending
        mark = fingerprint_of(facts, question)
        report = AnalyzeReport(group, gen, len(question.runs), True, pending > 0, pending)
        if not recompute and derived_rows.stands(facts, group, gen, STAGE, question.scope, mark):
            return replace(report, recomputed=False)
        entries = examples.entries(facts, question.dataset.dataset_id)
        read = read_runs(facts, path_of(conn), question, entries)
    _check_invariants(read, question.counts)
    _refuse_contradicted(conn, [data.evidence for data in read], mark)
    _write(conn, question, mark, derive(question, read, entries))
    return report


def read_runs(facts: sqlite3.Connection, db: Path, question: Question, entries: pl.DataFrame) -> list[RunData]:
    """Every run of the question, in its order; of large experiments from several processes."""
    tasks = [RunToRead(db, run, question.counts[run.run_id], question.bins, question.rule) for run in question.runs]
    elsewhere = parallel.results(read_elsewhere, tasks, rows=sum(task.counts.scores for task in tasks))
    return [
        data or read_run(facts, task.run, entries, task.bins, task.rule)
        for data, task in zip(elsewhere, tasks, strict=True)
    ]


def derive(question: Question, read: Sequence[RunData], entries: pl.DataFrame) -> Derived:
    """Every derived row of the runs that were read, from nothing but them; `read` in the order of question.runs."""
    analysis, bins = question.analysis, question.bins
    grid = Grid(
        {data.run.run_id: data.aligned.score for data in read},
        entries["bin_idx"].to_numpy(),
        entries["cluster"].to_numpy(),
        {data.run.run_id: data.aligned.failed for data in read},
    )
    replicates = resample(grid, bins, analysis.resamples, analysis.seed)
    stats = [
        with_bootstrap(row, question.rule, replicates[row.bin_idx][:, i])
        for i, data in enumerate(read)
        for row in data.stats
    ]
    server = question.server
    evidence = [by_two_servers(data.evidence, server.drifts, server.differences) for data in read]
    if not question.whole:
        return Derived(stats, evidence, None)
    group = Group(
        runs=[data.run for data in read],
        grid=grid,
        outcomes={data.run.run_id: data.aligned for data in read},
        replicates=replicates,
        stats={(row.run_id, row.bin_idx): row for row in stats},
        evidence={row.run_id: row.status for row in evidence},
        analysis=analysis,
        bins=bins,
        partial=question.pending > 0,
        floors=next((data.floors for data in read if data.floors is not None), None),
        dataset=question.dataset,
        planned=question.planned,
        look=look_of(question.dataset.strategy, question.dataset.version),
        traits={data.run.run_id: data.traits for data in read},
    )
    counts = {data.run.run_id: data.counts for data in read}
    kept = withdraw(group_rows(group), counts, server.beside_canary)
    return Derived(stats, evidence, with_sentences(kept, group.unit, analysis.margin, question.lengths))


def resample(grid: Grid, bins: Sequence[int], resamples: int, seed: int) -> dict[int, Floats]:
    """Bootstrap means of every run's score: bin_idx -> [resamples, runs]; -1 is the equal-weight mean of bins."""
    everything = np.stack(list(grid.score.values()), axis=1)
    per_bin = {
        b: resample_means(Columns(everything[grid.rows(b)], grid.cluster[grid.rows(b)]), resamples, seed, b)
        for b in bins
    }
    return per_bin | {-1: mean_of_bins(list(per_bin.values()))}


def _check_invariants(read: Sequence[RunData], counts: Mapping[str, RunCounts]) -> None:
    for data in read:
        count = counts[data.run.run_id]
        scores = data.aligned.score
        problems = [
            (count.finished > count.requests, f"{count.finished} outcomes of {count.requests} requests"),
            (count.requests > count.planned, f"{count.requests} requests for {count.planned} manifest entries"),
            (count.scores > count.finished, f"{count.scores} scores for {count.finished} finished requests"),
            (data.n != count.scores, f"{data.n} of {count.scores} scores have an entry"),
            (bool(((scores < 0) | (scores > 1)).any()), "a score outside [0, 1]"),
        ]
        broken = [text for wrong, text in problems if wrong]
        if broken:
            raise GuardError(
                f"the stored facts of run {data.run.run_id} break an invariant: {'; '.join(broken)}",
                do="Nothing was written. Check the database with `PRAGMA integrity_check`, then run `kvt score` again.",
            )


def _refuse_contradicted(conn: sqlite3.Connection, evidence: Sequence[Evidence], mark: str) -> None:
    wrong = [row for row in evidence if row.status == EvidenceStatus.CONTRADICTED]
    if not wrong:
        return
    run_ids = [row.run_id for row in evidence]
    rows = [as_columns(row, fingerprint=mark) for row in evidence]
    derived_rows.in_transaction(conn, lambda c: derived_rows.replace_runs(c, Evidence.TABLE, run_ids, rows))
    raise ContradictedError(
        "the server applied another budget than asked; these runs can't be analysed",
        details=tuple(f"{row.run_id}: {row.reason}" for row in wrong),
        do="Correct kv.apply or kv.evidence, then run the levels again under a new experiment.exp_group_id.",
    )


def _write(conn: sqlite3.Connection, question: Question, mark: str, derived: Derived) -> None:
    """Replace the stored rows of what was asked, and record what they were made from, in one transaction."""
    group, generation, scope = question.exp_group_id, question.generation, question.scope
    run_ids = [run.run_id for run in question.runs]
    own = {
        "exp_group_id": group,
        "generation": generation,
        "dataset_id": question.dataset.dataset_id,
        "fingerprint": mark,
    }
    detail = {
        "analyzer_version": ANALYZER_VERSION,
        "settings": question.analysis.model_dump(mode="json"),
        "plugin_sha256": plugin_sha256(question.dataset.metric),
        "partial": question.pending > 0,
        "pending": question.pending,
        "runs": len(run_ids),
    }

    def write(c: sqlite3.Connection) -> None:
        for table, rows in derived.of_runs.items():
            derived_rows.replace_runs(c, table, run_ids, [as_columns(row, fingerprint=mark) for row in rows])
        for table, rows in derived.of_group.items():
            derived_rows.replace_group(c, table, group, generation, [as_columns(row, **own) for row in rows])
        content = derived_rows.content(c, group, generation, scope)
        derived_rows.set_state(c, group, generation, STAGE, scope, mark, detail | content)

    derived_rows.in_transaction(conn, write)

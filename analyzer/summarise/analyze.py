"""Facts and scores -> every derived table: guards, then one read, then one short write.

Nothing is done when nothing changed: the fingerprint covers the settings, this code's version, and the counts of
append-only facts and what is known of the server; the rows themselves must still be those that were written.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer import parallel
from analyzer.read import examples
from analyzer.read.group_connection import members_of
from analyzer.read.run_counts import RunCounts
from analyzer.read.snapshot import path_of, snapshot
from analyzer.scoring.score import plugin_sha256
from analyzer.stats.bootstrap import Columns, mean_of_bins, resample_means
from analyzer.stats.interim import look_of
from analyzer.stats.transition import Grid
from analyzer.store import derived_rows
from analyzer.store.derived_rows import ANALYZER_VERSION, GROUP_TABLES
from analyzer.store.tables import BinStat, Evidence, as_columns
from analyzer.summarise.bin_stats import ALL_BINS, CiRule, with_bootstrap
from analyzer.summarise.budget_evidence import by_two_servers
from analyzer.summarise.group import Group
from analyzer.summarise.question import STAGE, Question, TaskQuestion, fingerprint_of, question_of
from analyzer.summarise.run_data import OUTCOME_BYTES, RunData, RunToRead, read_elsewhere, read_runs
from analyzer.summarise.stored_sentences import with_sentences
from analyzer.summarise.suite_rows import SuiteRows, suite_rows
from analyzer.summarise.suite_task import SuiteTask, at_budgets
from analyzer.summarise.summaries import GroupRows, group_rows, group_tests
from analyzer.summarise.withdrawn import withdraw
from kvt_async.contract.errors import ContradictedError, GuardError
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import EvidenceStatus

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
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
class TaskData:
    """One task, read: over its n entries bin_idx [n] and cluster [n], which numbers their contexts; contexts [n] tell
    them apart over all tasks (None: there is one task); and its runs."""

    question: TaskQuestion
    bin_idx: Ints
    cluster: Ints
    contexts: pl.Series | None
    runs: list[RunData]


@dataclass(frozen=True)
class Derived:
    """Every derived row of an analysis; groups (by dataset_id) and suite are empty where only one run was analysed,
    the suite also where there is one task."""

    stats: list[BinStat]
    evidence: list[Evidence]
    groups: Mapping[str, GroupRows]
    suite: SuiteRows

    @property
    def of_runs(self) -> RowsByTable:
        """The rows of tables that hold a run's."""
        return {BinStat.TABLE: self.stats, Evidence.TABLE: self.evidence}

    def of_group(self, **own: Any) -> dict[str, list[dict[str, Any]]]:
        """The rows of tables that hold a group's, by column, each with its task's dataset_id and `own` columns."""
        tables: dict[str, list[dict[str, Any]]] = {table: [] for table in GROUP_TABLES}
        for dataset_id, of_task in self.groups.items():
            for table, rows in of_task.by_table.items():
                tables[table] += [as_columns(row, dataset_id=dataset_id, **own) for row in rows]
        for table, rows in self.suite.by_table.items():
            tables[table] += [as_columns(row, **own) for row in rows]
        return tables


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
        mark = fingerprint_of(question)
        report = AnalyzeReport(group, gen, len(question.runs), True, question.is_partial, pending)
        if not recompute and derived_rows.stands(facts, group, gen, STAGE, question.scope, mark):
            return replace(report, recomputed=False)
        evidence: list[Evidence] = []

        def checked() -> Iterator[TaskData]:
            for task in read_tasks(facts, path_of(conn), question):
                _check_invariants(task.runs, question.counts)
                evidence.extend(data.evidence for data in task.runs)
                yield task

        derived = derive(question, checked())
    _refuse_contradicted(conn, evidence, mark)
    _write(conn, question, mark, derived)
    return report


def read_tasks(facts: sqlite3.Connection, db: Path, question: Question) -> Iterator[TaskData]:
    """Every task of the question with its runs, in order; of large experiments from several processes, which read the
    next task while one is used."""
    parts = [
        RunToRead(
            db,
            members_of(facts),
            run,
            question.counts[run.run_id],
            question.reading_of(task, run),
            is_first=task.samples < task.task.samples,
        )
        for task in question.tasks
        for run in task.runs
    ]
    batches = parallel.batches(parts, lambda part: part.kind, lambda part: part.counts.scores)
    largest = max((sum(part.counts.scores for part in batch) for batch in batches), default=0)
    elsewhere = parallel.stream(
        read_elsewhere, batches, rows=sum(part.counts.scores for part in parts), bytes_each=largest * OUTCOME_BYTES
    )
    pairs = iter(zip(elsewhere, batches, strict=True))
    for task in question.tasks:
        entries = examples.entries(facts, task.dataset.dataset_id)
        read: list[RunData] = []
        while len(read) < len(task.runs):
            done, batch = next(pairs)
            read += done or read_runs(facts, [(part.run, part.reading) for part in batch], entries)
        yield task_data(facts, question, task, entries, read)


def task_data(
    facts: sqlite3.Connection, question: Question, task: TaskQuestion, entries: pl.DataFrame, read: list[RunData]
) -> TaskData:
    """What an analysis keeps of a task whose manifest holds `entries`."""
    contexts = examples.contexts(facts, task.dataset.dataset_id) if question.is_suite else None
    return TaskData(task, entries["bin_idx"].to_numpy(), entries["cluster"].to_numpy(), contexts, read)


def derive(question: Question, read: Iterable[TaskData]) -> Derived:
    """Every derived row of the tasks that were read, from nothing but them; in the order of the question."""
    stats: list[BinStat] = []
    evidence: list[Evidence] = []
    rows: dict[str, GroupRows] = {}
    in_suite: list[SuiteTask] = []
    for task in read:
        group = task_group(question, task)
        stats += group.stats.values()
        own = [by_two_servers(data.evidence, question.server.drifts, question.server.differences) for data in task.runs]
        evidence += own
        if not question.whole:
            continue
        group = replace(group, evidence={row.run_id: row.status for row in own})
        tests = group_tests(group)
        counts = {data.run.run_id: data.counts for data in task.runs}
        kept = withdraw(group_rows(group, tests), counts, question.server.beside_canary, group.compressions)
        rows[group.dataset.dataset_id] = with_sentences(kept, group.units, group.analysis.margin, task.question.lengths)
        if question.is_suite and task.question.task.name in question.chosen:
            room = tests.headrooms[ALL_BINS]
            p_headroom = room.p if room else 0.0
            in_suite.append(
                SuiteTask(
                    task.question.task,
                    replace(group, replicates={}, outcomes={}, traits={}),
                    rows[group.dataset.dataset_id].verdicts,
                    p_headroom,
                    task.contexts,
                    task.question.lengths,
                    at_budgets(task.question.task.name, group, tests.of, p_headroom),
                )
            )
    return Derived(stats, evidence, rows, suite_rows(question, in_suite) if in_suite else SuiteRows([], []))


def task_group(question: Question, task: TaskData) -> Group:
    """The runs of one task side by side."""
    analysis, bins = question.analysis, task.question.bins
    grid = Grid(
        {data.run.run_id: data.score for data in task.runs},
        task.bin_idx,
        task.cluster,
        {data.run.run_id: data.failed for data in task.runs},
    )
    replicates = resample(grid, bins, analysis.resamples, analysis.seed)
    stats = [
        with_bootstrap(row, CiRule(analysis.ci, analysis.alpha), replicates[row.bin_idx][:, i])
        for i, data in enumerate(task.runs)
        for row in data.stats
    ]
    return Group(
        runs=[data.run for data in task.runs],
        grid=grid,
        outcomes={data.run.run_id: data.answers for data in task.runs},
        replicates=replicates,
        stats={(row.run_id, row.bin_idx): row for row in stats},
        evidence={},
        dataset=task.question.dataset,
        analysis=analysis,
        bins=bins,
        partial=question.is_partial,
        floors=next((data.floors for data in task.runs if data.floors is not None), None),
        held=next((data.held for data in task.runs if data.held is not None), None),
        planned=question.planned,
        look=look_of(task.question.dataset.strategy, task.question.dataset.version),
        samples=task.question.samples,
        n_samples=task.question.task.samples,
        counts=question.counts,
        in_suite=question.is_suite,
        compressions={data.run.run_id: data.compressions for data in task.runs if data.compressions is not None},
        traits={data.run.run_id: data.traits for data in task.runs},
    )


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
        scores = data.answers.score
        problems = [
            (count.finished > count.requests, f"{count.finished} outcomes of {count.requests} requests"),
            (count.requests > count.planned, f"{count.requests} requests for {count.planned} planned ones"),
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
        "fingerprint": mark,
    }
    detail = {
        "analyzer_version": ANALYZER_VERSION,
        "settings": question.analysis.model_dump(mode="json"),
        "plugins_sha256": {task.dataset.dataset_id: plugin_sha256(task.dataset.metric) for task in question.tasks},
        "partial": question.is_partial,
        "pending": question.pending,
        "runs": len(run_ids),
        "samples": {task.dataset.dataset_id: task.samples for task in question.tasks},
    }

    def write(c: sqlite3.Connection) -> None:
        for table, rows in derived.of_runs.items():
            derived_rows.replace_runs(c, table, run_ids, [as_columns(row, fingerprint=mark) for row in rows])
        if question.whole:
            for table, columns in derived.of_group(**own).items():
                derived_rows.replace_group(c, table, group, generation, columns)
        content = derived_rows.content(c, group, generation, scope)
        derived_rows.set_state(c, group, generation, STAGE, scope, mark, detail | content)

    derived_rows.in_transaction(conn, write)

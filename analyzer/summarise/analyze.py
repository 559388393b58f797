"""Facts and scores -> every derived table: guards, then one read, then one short write.

Nothing is done when nothing changed: the fingerprint covers the settings, this code's version, and the counts of
append-only facts and what is known of the server; the rows themselves must still be those that were written. Requests
still pending, or not scored, need `partial`, and every row then says so.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer import parallel
from analyzer.read import runs as tables
from analyzer.read.declared_plan import Planned, plan_of
from analyzer.read.drift import Answers, answers_beside_canary, group_drifts, level_differences, refuse_drift, served
from analyzer.read.runs import Dataset, Run, RunCounts
from analyzer.scoring.score import SCORER_VERSION, score_fingerprint
from analyzer.stats.bootstrap import Columns, mean_of_bins, resample_means
from analyzer.stats.interim import look
from analyzer.stats.transition import Grid
from analyzer.store import derived_rows
from analyzer.store.derived_rows import ANALYZER_VERSION
from analyzer.store.tables import Evidence, as_columns
from analyzer.summarise.bin_stats import CiRule, with_bootstrap
from analyzer.summarise.budget_evidence import by_two_servers
from analyzer.summarise.run_data import Asked, RunData, read_elsewhere, read_run
from analyzer.summarise.stored_sentences import with_sentences
from analyzer.summarise.summaries import GroupRows, group_rows
from analyzer.summarise.withdrawn import withdraw
from kvt_async.contract.errors import ContradictedError, GuardError, MissingPrerequisiteError
from kvt_async.contract.formulas.server_identity import Drift
from kvt_async.contract.settings import Analysis, Settings
from kvt_async.contract.vocabulary import EvidenceStatus, Unit

Floats = npt.NDArray[np.float64]

STAGE = "analyze"


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
class Question:
    """What one analysis is about: runs of one generation, their dataset, the settings that it is made under, and what
    is known of the server beside its replies."""

    runs: list[Run]
    counts: Mapping[str, RunCounts]
    dataset: Dataset
    analysis: Analysis
    pending: int
    drifts: Sequence[Drift]
    differences: Sequence[Drift]  # between the servers of levels
    beside_canary: Answers | None
    whole: bool  # all runs of the generation: rows of the group are made too
    planned: Planned

    @property
    def rule(self) -> CiRule:
        return CiRule(self.analysis.ci, self.analysis.alpha)

    @property
    def bins(self) -> tuple[int, ...]:
        return tuple(self.dataset.bins)


@dataclass(frozen=True)
class Answer:
    """Rows of every derived table, without fingerprint; `group` None where only single runs were analysed."""

    bin_stats: list[dict[str, Any]]
    run_evidence: list[Evidence]
    group: GroupRows | None


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
    ContradictedError where a server applied another budget than asked (run_evidence is stored first), GuardError where
    stored facts break an invariant.
    """
    group = settings.experiment.exp_group_id
    with tables.snapshot(conn) as facts:
        gen = tables.newest_generation(facts, group, generation)
        drifts = group_drifts(facts, group, gen)
        refuse_drift([] if settings.analysis.allow_drift else drifts)
        all_runs = tables.runs(facts, group, gen)
        chosen = [tables.find_run(all_runs, run_id)] if run_id else all_runs
        counts = tables.progress(facts, group, gen)
        _check_scored(facts, group, gen, chosen)
        pending = _check_complete(chosen, counts, partial=partial)
        question = Question(
            chosen, counts, tables.dataset(facts, chosen[0].dataset_id), settings.analysis, pending, drifts,
            level_differences(facts, group, gen),
            answers_beside_canary(facts, group, gen), run_id is None, plan_of(facts, group, gen),
        )  # fmt: skip
        mark, scope = fingerprint_of(facts, question), run_id or "*"
        report = AnalyzeReport(group, gen, len(chosen), True, pending > 0, pending)
        if not recompute and derived_rows.stands(facts, group, gen, STAGE, scope, mark):
            return replace(report, recomputed=False)
        entries = tables.entries(facts, question.dataset.dataset_id)
        path = tables.path_of(conn)
        elsewhere = parallel.results(
            read_elsewhere,
            [Asked(path, run, counts[run.run_id], question.bins, question.rule) for run in chosen],
            rows=sum(counts[run.run_id].scores for run in chosen),
        )
        read = [
            data or read_run(facts, run, entries, question.bins, question.rule)
            for data, run in zip(elsewhere, chosen, strict=True)
        ]
    _check_invariants(read, counts)
    _refuse_contradicted(conn, [data.evidence for data in read], mark)
    rows = answer(question, read, entries)
    detail = {
        "analyzer_version": ANALYZER_VERSION,
        "settings": settings.analysis.model_dump(mode="json"),
        "partial": pending > 0,
        "pending": pending,
        "runs": len(chosen),
    }

    def write(c: sqlite3.Connection) -> None:
        of_runs = (("bin_stats", rows.bin_stats), ("run_evidence", [as_columns(row) for row in rows.run_evidence]))
        for table, content in of_runs:
            marked = [row | {"fingerprint": mark} for row in content]
            derived_rows.replace_runs(c, table, [run.run_id for run in chosen], marked)
        if rows.group is not None:
            _write_group(c, group, gen, mark, rows.group)
        derived_rows.set_state(c, group, gen, STAGE, scope, mark, detail | derived_rows.content(c, group, gen, scope))

    derived_rows.in_transaction(conn, write)
    return report


def answer(question: Question, read: Sequence[RunData], entries: pl.DataFrame) -> Answer:
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
        with_bootstrap(row, question.rule, replicates[row["bin_idx"]][:, i])
        for i, data in enumerate(read)
        for row in data.stats
    ]
    evidence = [by_two_servers(data.evidence, question.drifts, question.differences) for data in read]
    if not question.whole:
        return Answer(stats, evidence, None)
    group = group_rows(
        [data.run for data in read],
        grid,
        {data.run.run_id: data.aligned for data in read},
        replicates,
        stats,
        {row.run_id: row.status for row in evidence},
        analysis,
        bins=bins,
        partial=question.pending > 0,
        floors=next((data.floors for data in read if data.floors is not None), None),
        planned=question.planned,
        look=look(question.dataset.strategy, question.dataset.version),
    )
    counts = {data.run.run_id: data.counts for data in read}
    kept = withdraw(group, counts, question.beside_canary)
    unit = next((run.kv_unit for run in question.runs if not run.is_full), str(Unit.FRACTION))
    return Answer(stats, evidence, with_sentences(kept, unit, analysis.margin))


def resample(grid: Grid, bins: Sequence[int], resamples: int, seed: int) -> dict[int, Floats]:
    """Bootstrap means of every run's score: bin_idx -> [resamples, runs]; -1 is the equal-weight mean of bins."""
    everything = np.stack(list(grid.score.values()), axis=1)
    per_bin = {
        b: resample_means(Columns(everything[grid.rows(b)], grid.cluster[grid.rows(b)]), resamples, seed, b)
        for b in bins
    }
    return per_bin | {-1: mean_of_bins(list(per_bin.values()))}


def _check_scored(facts: sqlite3.Connection, group: str, generation: int, chosen: Sequence[Run]) -> None:
    """Scores that another scorer made, or that were changed since (their record is gone then), are no ground."""
    strange = [
        f"{run.run_id}: {'scored by version ' + version if version else 'scores without a record of who made them'}"
        for run in chosen
        if (version := derived_rows.scored_by(facts, group, generation, run.run_id)) != SCORER_VERSION
    ]
    if strange:
        raise MissingPrerequisiteError(
            f"these scores are not of this scorer (version {SCORER_VERSION})",
            details=tuple(strange),
            do="Run `kvt score -c CONFIG` first.",
        )


def _check_complete(chosen: Sequence[Run], counts: Mapping[str, RunCounts], *, partial: bool) -> int:
    unscored = sum(counts[run.run_id].finished - counts[run.run_id].scores for run in chosen)
    if unscored > 0 and (not partial or not any(counts[run.run_id].scores for run in chosen)):
        raise MissingPrerequisiteError(
            f"{unscored} finished requests have no score yet", do="Run `kvt score -c CONFIG` first."
        )
    pending = sum(counts[run.run_id].pending for run in chosen)
    if pending and not partial:
        raise MissingPrerequisiteError(
            f"{pending} requests are still pending",
            details=tuple(_owed(run, counts[run.run_id]) for run in chosen if counts[run.run_id].pending),
            do="Run `kvt sweep -c CONFIG` to finish them, or pass --partial to go on with what is there."
            if not any(counts[run.run_id].refused for run in chosen)
            else "Put the key or the quota right and run `kvt sweep -c CONFIG --retry-failed`, or pass --partial.",
        )
    return pending + max(0, unscored)


def _owed(run: Run, count: RunCounts) -> str:
    refused = f", {count.refused} of them refused for the key or the quota, which says nothing about them"
    return f"{run.run_id}: {count.pending} of {count.planned}{refused if count.refused else ''}"


def fingerprint_of(facts: sqlite3.Connection, question: Question) -> str:
    """What the rows of an analysis depend on."""
    counts = [(run, question.counts[run.run_id]) for run in question.runs]
    return derived_rows.fingerprint(
        ANALYZER_VERSION,
        question.analysis.model_dump(mode="json", exclude={"prices", "serving"}),
        [(run.run_id, score_fingerprint(question.dataset.metric, count, None), count.scores) for run, count in counts],
        [count.planned for _, count in counts],
        question.dataset.version,
        # A canary, a look at the server or a drift since: analysed anew.
        [served(facts, run, question.analysis.alpha).as_json for run in question.runs],
        [asdict(drift) for drift in (*question.drifts, *question.differences)],
        asdict(question.planned),
    )


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


def _write_group(conn: sqlite3.Connection, group: str, generation: int, mark: str, rows: GroupRows) -> None:
    common = {"exp_group_id": group, "generation": generation, "fingerprint": mark}
    for table, content in (
        ("budget_stats", rows.budget_stats),
        ("transition_summary", rows.transition_summary),
        ("comparisons", rows.comparisons),
    ):
        derived_rows.replace_group(conn, table, group, generation, [common | row for row in content])

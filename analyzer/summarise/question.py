"""What one analysis is about, whether it may be made, and what its rows depend on.

Requests still pending, or not scored, need `partial`, and every row then says so.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from analyzer.read import examples
from analyzer.read import runs as tables
from analyzer.read.declared_plan import DeclaredPlan, plan_of
from analyzer.read.drift import (
    Answers,
    answers_beside_canary,
    group_drifts,
    level_differences,
    refuse_drift,
    run_server,
)
from analyzer.read.examples import BinnedDataset
from analyzer.read.run_counts import RunCounts, run_counts
from analyzer.read.runs import Run
from analyzer.results.length_bins import Bin, length_bins
from analyzer.scoring.scorable import refuse_changed, refuse_undefined
from analyzer.scoring.score import SCORER_VERSION, score_fingerprint
from analyzer.store import derived_rows
from analyzer.store.derived_rows import ANALYZER_VERSION
from analyzer.summarise.bin_stats import CiRule
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.formulas.server_identity import Drift
from kvt_async.contract.settings import Analysis, Settings

STAGE = "analyze"


@dataclass(frozen=True)
class ServerHistory:
    """What is known of a generation's servers beside their replies.

    drifts: where one became another one; differences: between the servers of levels; beside_canary: the answers beside
    a canary that doubted the budget.
    """

    drifts: Sequence[Drift]
    differences: Sequence[Drift]
    beside_canary: Answers | None

    @classmethod
    def of(cls, facts: sqlite3.Connection, exp_group_id: str, generation: int) -> "ServerHistory":
        return cls(
            group_drifts(facts, exp_group_id, generation),
            level_differences(facts, exp_group_id, generation),
            answers_beside_canary(facts, exp_group_id, generation),
        )


@dataclass(frozen=True)
class Question:
    """What one analysis is about: runs of one generation, their dataset, and the settings that it is made under."""

    exp_group_id: str
    generation: int
    runs: list[Run]
    counts: Mapping[str, RunCounts]
    dataset: BinnedDataset
    analysis: Analysis
    server: ServerHistory
    planned: DeclaredPlan
    whole: bool  # all runs of the generation: rows of the group are made too
    lengths: Sequence[Bin]  # the dataset's bins, as they are called

    @property
    def scope(self) -> str:
        """As analysis_state names it: '*' for all runs, else the one."""
        return "*" if self.whole else self.runs[0].run_id

    @property
    def rule(self) -> CiRule:
        return CiRule(self.analysis.ci, self.analysis.alpha)

    @property
    def bins(self) -> tuple[int, ...]:
        return tuple(self.dataset.bins)

    @property
    def unscored(self) -> int:
        """Finished requests without a score."""
        return sum(self.counts[run.run_id].finished - self.counts[run.run_id].scores for run in self.runs)

    @property
    def pending(self) -> int:
        """Requests without an outcome, or without a score."""
        return sum(self.counts[run.run_id].pending for run in self.runs) + max(0, self.unscored)


def question_of(
    facts: sqlite3.Connection, settings: Settings, *, run_id: str | None, partial: bool, generation: int | None
) -> Question:
    """The analysis that `analyze` was asked for.

    Raises DriftError where the server became another one (unless analysis.allow_drift), MissingPrerequisiteError where
    runs or scores are missing, or requests are pending without `partial`.
    """
    group = settings.experiment.exp_group_id
    generation = tables.newest_generation(facts, group, generation)
    server = ServerHistory.of(facts, group, generation)
    refuse_drift([] if settings.analysis.allow_drift else server.drifts)
    runs = tables.runs(facts, group, generation)
    if run_id:
        runs = [tables.find_run(runs, run_id)]
    counts = run_counts(facts, group, generation)
    dataset = examples.dataset(facts, runs[0].dataset_id).scored_by(settings.analysis.metric)
    refuse_undefined(facts, dataset)
    _refuse_other_scorers(facts, group, generation, runs)
    _refuse_other_metrics(facts, runs, dataset)
    records = {run.run_id: derived_rows.scored_by(facts, group, generation, run.run_id) for run in runs}
    refuse_changed(dataset.metric, records)
    planned = plan_of(facts, group, generation)
    lengths = length_bins(facts, dataset.dataset_id)
    question = Question(
        group,
        generation,
        runs,
        counts,
        dataset,
        settings.analysis,
        server,
        planned,
        whole=run_id is None,
        lengths=lengths,
    )
    _refuse_incomplete(question, partial=partial)
    return question


def fingerprint_of(facts: sqlite3.Connection, question: Question) -> str:
    """What the rows of an analysis depend on."""
    counts = [(run, question.counts[run.run_id]) for run in question.runs]
    return derived_rows.fingerprint(
        ANALYZER_VERSION,
        question.analysis.model_dump(mode="json", exclude={"prices", "serving", "metric"}),
        [(run.run_id, score_fingerprint(question.dataset.metric, count, None), count.scores) for run, count in counts],
        [count.planned for _, count in counts],
        question.dataset.version,
        # A canary, a look at the server or a drift since: analysed anew.
        [run_server(facts, run, question.analysis.alpha).as_json for run in question.runs],
        [asdict(drift) for drift in (*question.server.drifts, *question.server.differences)],
        asdict(question.planned),
    )


def _refuse_other_scorers(facts: sqlite3.Connection, group: str, generation: int, runs: Sequence[Run]) -> None:
    """Scores that another scorer made, or that were changed since (their record is gone then), are no ground."""
    strange = [
        f"{run.run_id}: {'scored by version ' + version if version else 'scores without a record of who made them'}"
        for run in runs
        if (version := derived_rows.scored_by(facts, group, generation, run.run_id).version) != SCORER_VERSION
    ]
    if strange:
        raise MissingPrerequisiteError(
            f"these scores are not of this scorer (version {SCORER_VERSION})",
            details=tuple(strange),
            do="Run `kvt score -c CONFIG` first.",
        )


def _refuse_other_metrics(facts: sqlite3.Connection, runs: Sequence[Run], dataset: BinnedDataset) -> None:
    """Scores of another metric than the one asked for are no ground."""
    metrics = {run.run_id: tables.metric_of_scores(facts, run.run_id) for run in runs}
    other = {run_id: metric for run_id, metric in metrics.items() if metric not in (None, dataset.metric)}
    if other:
        by = f" --metric {dataset.other_metric}" if dataset.other_metric else ""
        raise MissingPrerequisiteError(
            f"these scores are of another metric than {dataset.metric}",
            details=tuple(f"{run_id}: scored by {metric}" for run_id, metric in other.items()),
            do=f"Run `kvt all -c CONFIG{by}`, or analyse these scores with --metric {next(iter(other.values()))}.",
        )


def _refuse_incomplete(question: Question, *, partial: bool) -> None:
    counts = [(run, question.counts[run.run_id]) for run in question.runs]
    if question.unscored > 0 and (not partial or not any(count.scores for _, count in counts)):
        raise MissingPrerequisiteError(
            f"{question.unscored} finished requests have no score yet", do="Run `kvt score -c CONFIG` first."
        )
    pending = sum(count.pending for _, count in counts)
    if pending and not partial:
        raise MissingPrerequisiteError(
            f"{pending} requests are still pending",
            details=tuple(_owed(run, count) for run, count in counts if count.pending),
            do="Run `kvt sweep -c CONFIG` to finish them, or pass --partial to go on with what is there."
            if not any(count.refused for _, count in counts)
            else "Put the key or the quota right and run `kvt sweep -c CONFIG --retry-failed`, or pass --partial.",
        )


def _owed(run: Run, count: RunCounts) -> str:
    refused = f", {count.refused} of them refused for the key or the quota, which says nothing about them"
    return f"{run.run_id}: {count.pending} of {count.planned}{refused if count.refused else ''}"

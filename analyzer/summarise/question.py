"""What one analysis is about, whether it may be made, and what its rows depend on.

Requests still pending, or not scored, need `partial`, and every row then says so.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from analyzer.read import examples
from analyzer.read import runs as tables
from analyzer.read.declared_plan import DeclaredPlan, plan_of
from analyzer.read.drift import (
    Answers,
    RunServer,
    answers_beside_canary,
    group_drifts,
    level_differences,
    refuse_drift,
    run_server,
)
from analyzer.read.examples import BinnedDataset
from analyzer.read.group_tasks import GroupTask, chosen_tasks, group_tasks
from analyzer.read.run_counts import RunCounts, run_counts
from analyzer.read.runs import Run
from analyzer.results.length_bins import Bin, length_bins
from analyzer.scoring.runs_to_score import SCORER_VERSION, score_fingerprint
from analyzer.scoring.scorable import refuse_changed, refuse_undefined
from analyzer.stats.repeated_answers import Aggregate
from analyzer.store import derived_rows
from analyzer.store.derived_rows import ANALYZER_VERSION
from analyzer.summarise.bin_stats import CiRule
from analyzer.summarise.run_data import ReadingRule
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
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
class TaskQuestion:
    """One task of an analysis: its runs, its data set, and how many answers of each example count."""

    task: GroupTask
    dataset: BinnedDataset
    runs: list[Run]
    samples: int
    lengths: Sequence[Bin]  # the dataset's bins, as they are called

    @property
    def bins(self) -> tuple[int, ...]:
        return tuple(self.dataset.bins)


@dataclass(frozen=True)
class Question:
    """What one analysis is about: runs of one generation, task by task, and the settings that it is made under.

    servers: by run, what is known of its server beside its replies. chosen: names of the tasks that the verdict over
    several is about. unrun: names of tasks that have no run yet. whole: it is about all runs of the generation, so that
    rows of the group are made too.
    """

    exp_group_id: str
    generation: int
    tasks: tuple[TaskQuestion, ...]
    counts: Mapping[str, RunCounts]
    analysis: Analysis
    server: ServerHistory
    servers: Mapping[str, RunServer]
    planned: DeclaredPlan
    chosen: tuple[str, ...]
    unrun: tuple[str, ...]
    whole: bool

    @property
    def runs(self) -> list[Run]:
        return [run for task in self.tasks for run in task.runs]

    @property
    def scope(self) -> str:
        """As analysis_state names it: '*' for all runs, else the one."""
        return "*" if self.whole else self.tasks[0].runs[0].run_id

    @property
    def is_suite(self) -> bool:
        """Whether there are several tasks, and a verdict over them."""
        return self.whole and len(self.tasks) + len(self.unrun) > 1

    @property
    def is_partial(self) -> bool:
        """Whether requests are missing, of a task that wasn't run yet or of others."""
        return self.pending > 0 or bool(self.unrun)

    @property
    def unscored(self) -> int:
        """Finished requests without a score."""
        return sum(self.counts[run.run_id].finished - self.counts[run.run_id].scores for run in self.runs)

    @property
    def pending(self) -> int:
        """Requests without an outcome, or without a score."""
        return sum(self.counts[run.run_id].pending for run in self.runs) + max(0, self.unscored)

    def reading_of(self, task: TaskQuestion, run: Run) -> ReadingRule:
        """How a run of a task is read."""
        return ReadingRule(
            bins=task.bins,
            rule=CiRule(self.analysis.ci, self.analysis.alpha),
            server=self.servers[run.run_id],
            samples=task.samples,
            aggregate=Aggregate.of(self.analysis.aggregate),
        )


def question_of(
    facts: sqlite3.Connection, settings: Settings, *, run_id: str | None, partial: bool, generation: int | None
) -> Question:
    """The analysis that `analyze` was asked for.

    Raises DriftError where the server became another one (unless analysis.allow_drift), MissingPrerequisiteError where
    runs or scores are missing, or requests are pending without `partial`, ConfigError where analysis.tasks names a task
    that the group lacks or analysis.aggregate needs more answers than are asked of each example.
    """
    group = settings.experiment.exp_group_id
    generation = tables.newest_generation(facts, group, generation)
    server = ServerHistory.of(facts, group, generation)
    refuse_drift([] if settings.analysis.allow_drift else server.drifts)
    runs = tables.runs(facts, group, generation)
    if run_id:
        runs = [tables.find_run(runs, run_id)]
    stored = group_tasks(facts, group, generation)
    tasks = task_questions(facts, stored, runs, settings.analysis.metric, asked_samples(settings))
    question = Question(
        exp_group_id=group,
        generation=generation,
        tasks=tasks,
        counts=run_counts(facts, group, generation, {task.dataset.dataset_id: task.samples for task in tasks}),
        analysis=settings.analysis,
        server=server,
        servers=run_servers(facts, runs, server, settings.analysis.alpha),
        planned=plan_of(facts, group, generation),
        chosen=chosen_names(facts, group, generation, settings.analysis),
        unrun=() if run_id else unrun_names(stored, runs),
        whole=run_id is None,
    )
    _refuse_other_scorers(facts, group, generation, runs)
    for task in tasks:
        refuse_undefined(facts, task.dataset)
        _refuse_other_metrics(facts, task.runs, task.dataset)
        records = {run.run_id: derived_rows.scored_by(facts, group, generation, run.run_id) for run in task.runs}
        refuse_changed(task.dataset.metric, records)
        _refuse_few_answers(task, settings.analysis)
    _refuse_incomplete(question, partial=partial)
    return question


def task_questions(
    facts: sqlite3.Connection,
    tasks: Sequence[GroupTask],
    runs: Sequence[Run],
    metric: str | None,
    asked: Callable[[GroupTask], int],
) -> tuple[TaskQuestion, ...]:
    """The tasks that have any of these runs, in the group's order, scored by `metric`; `asked`: answers that count."""
    return tuple(
        TaskQuestion(
            task,
            examples.dataset(facts, task.dataset_id).scored_by(metric),
            own,
            asked(task),
            length_bins(facts, task.dataset_id),
        )
        for task in tasks
        if (own := [run for run in runs if run.dataset_id == task.dataset_id])
    )


def asked_samples(settings: Settings) -> Callable[[GroupTask], int]:
    """How many answers of each example the config asks for, by task; an entry of `tasks` may have its own number."""
    own = {
        entry.name or (entry.dataset.task if entry.dataset else None): entry.decoding.samples
        for entry in settings.tasks
        if entry.decoding is not None and "samples" in entry.decoding.model_fields_set
    }
    return lambda task: own.get(task.name, settings.decoding.samples)


def chosen_names(facts: sqlite3.Connection, group: str, generation: int, analysis: Analysis) -> tuple[str, ...]:
    """Names of the tasks that the verdict over several is about."""
    return tuple(task.name for task in chosen_tasks(group_tasks(facts, group, generation), analysis.tasks))


def unrun_names(tasks: Sequence[GroupTask], runs: Sequence[Run]) -> tuple[str, ...]:
    """Names of the tasks of a generation that none of its runs is about."""
    return tuple(task.name for task in tasks if all(run.dataset_id != task.dataset_id for run in runs))


def run_servers(
    facts: sqlite3.Connection, runs: Sequence[Run], server: ServerHistory, alpha: float
) -> dict[str, RunServer]:
    """What the facts say of each run's server."""
    return {run.run_id: run_server(facts, run, server.beside_canary, alpha) for run in runs}


def fingerprint_of(question: Question) -> str:
    """What the rows of an analysis depend on."""
    counts = [(task, run, question.counts[run.run_id]) for task in question.tasks for run in task.runs]
    return derived_rows.fingerprint(
        ANALYZER_VERSION,
        question.analysis.model_dump(mode="json", exclude={"prices", "serving", "metric"}),
        [
            (run.run_id, score_fingerprint(task.dataset.metric, count, None), count.scores)
            for task, run, count in counts
        ],
        [count.planned for *_, count in counts],
        [(asdict(task.task), task.dataset.version, task.samples) for task in question.tasks],
        question.unrun,
        # A canary, a look at the server or a drift since: analysed anew.
        [question.servers[run.run_id].as_json for run in question.runs],
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


def _refuse_few_answers(task: TaskQuestion, analysis: Analysis) -> None:
    size = Aggregate.of(analysis.aggregate).size
    if size > task.samples:
        raise ConfigError(
            f"{analysis.aggregate} needs {size} answers to each example, and {task.samples} of {task.task.name} count",
            where="analysis.aggregate",
            do=f"Ask for as many with decoding.samples={size}, or choose another aggregate.",
        )


def _refuse_incomplete(question: Question, *, partial: bool) -> None:
    counts = [(run, question.counts[run.run_id]) for run in question.runs]
    if question.unscored > 0 and (not partial or not any(count.scores for _, count in counts)):
        raise MissingPrerequisiteError(
            f"{question.unscored} finished requests have no score yet", do="Run `kvt score -c CONFIG` first."
        )
    if question.unrun and not partial:
        raise MissingPrerequisiteError(
            f"nothing of {', '.join(question.unrun)} was sent yet",
            do="Run `kvt sweep -c CONFIG` to finish, or pass --partial to go on with what is there.",
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

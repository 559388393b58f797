"""What is stored of a group with one task or several: each task's results, and what is said of the tasks together."""

import sqlite3
from dataclasses import dataclass

from analyzer.results.number_format import listed
from analyzer.results.results import Results, of_task, read_tasks
from analyzer.store.suite_tables import SuiteStat, SuiteVerdict
from analyzer.store.tables import columns
from kvt_async.contract.vocabulary import Unit

LEFT_OUT = " is left out: "  # in a note of a session, between the task and the reason
_OF_GROUP = "WHERE exp_group_id=? AND generation=?"


@dataclass(frozen=True)
class SuiteResults:
    """tasks: each task's own results, in the group's order; one at least.

    stats: the mean over tasks at each level, and the worst of them. verdicts: what the tests of a series allow to be
    said of the tasks together. Both are empty for one task, and before the first analysis.
    """

    tasks: list[Results]
    stats: list[SuiteStat]
    verdicts: list[SuiteVerdict]

    @property
    def is_suite(self) -> bool:
        """Whether there are several tasks; else everything is said by the only one's results."""
        return len(self.tasks) > 1

    @property
    def first(self) -> Results:
        """Of the first task. What belongs to the whole group (sessions, drifts, ...) is in any task's results."""
        return self.tasks[0]

    @property
    def series(self) -> list[str]:
        """Series below full cache that any task ran, in the order of the config; the first is the headline."""
        runs = sorted((run for task in self.tasks for run in task.runs), key=lambda run: run.level_idx)
        return list(dict.fromkeys(run.series for run in runs if run.is_level))

    @property
    def unit(self) -> str:
        """Unit of the budgets below full cache."""
        return next((task.unit for task in self.tasks if task.series), Unit.FRACTION)

    @property
    def left_out(self) -> dict[str, str]:
        """Tasks that were asked for and could not be made -> why, as the newest session says it."""
        newest = self.first.sessions[-1].notes if self.first.sessions else []
        parts = (note.partition(LEFT_OUT) for note in newest)
        return {task: why for task, mark, why in parts if mark}

    @property
    def partial(self) -> bool:
        return any(task.partial for task in self.tasks)

    @property
    def pending(self) -> int:
        return sum(task.pending for task in self.tasks)

    @property
    def requests(self) -> int:
        return sum(task.requests for task in self.tasks)

    @property
    def rescored(self) -> str:
        """Says that another metric than their own scores the tasks; empty where each is scored by its own."""
        if not (rescored := [task for task in self.tasks if task.rescored]):
            return ""
        own = {task.own_metric for task in self.tasks}
        if len(self.tasks) == 1:
            return self.first.rescored
        if len(own) == 1:
            return f"Scored by {rescored[0].metric}; the tasks' own metric is {own.pop()}."
        named = listed([f"{task.own_metric} ({task.task})" for task in rescored])
        return f"Scored by {rescored[0].metric}; the tasks' own metrics are {named}."

    @property
    def chosen(self) -> list[Results]:
        """The tasks that the verdict is over (analysis.tasks); all before the first analysis."""
        names = {row["task"] for verdict in self.verdicts[:1] for row in verdict.tasks}
        return [task for task in self.tasks if not names or task.task in names]

    def task(self, name: str) -> Results:
        """Of the task of this name. Raises MissingPrerequisiteError where the group has none."""
        return of_task(self.tasks, name)

    def verdict(self, series: str) -> SuiteVerdict | None:
        return next((v for v in self.verdicts if v.series == series), None)

    def levels(self, series: str) -> list[SuiteStat]:
        """The series' levels against full cache over all tasks, largest budget first."""
        rows = (row for row in self.stats if row.series == series and not row.repeat_idx)
        return sorted(rows, key=lambda row: -row.kv_budget)

    @property
    def controls(self) -> list[SuiteStat]:
        """Full cache against full cache, run again."""
        return [row for row in self.stats if row.repeat_idx]


def read_suite(conn: sqlite3.Connection, group: str, *, volumes: bool = False, telling: bool = True) -> SuiteResults:
    """Read every task of the newest generation of `group`, and the rows of all tasks together.

    `volumes` and `telling` as of read_tasks. Raises MissingPrerequisiteError where there is no such group.
    """
    tasks = read_tasks(conn, group, volumes=volumes, telling=telling)
    key = (group, tasks[0].generation)
    stats = f"SELECT {', '.join(columns(SuiteStat))} FROM suite_stats {_OF_GROUP} ORDER BY 1, 2 DESC, 3"
    verdicts = f"SELECT {', '.join(columns(SuiteVerdict))} FROM suite_summary {_OF_GROUP} ORDER BY 1"
    return SuiteResults(
        tasks,
        [SuiteStat(*row) for row in conn.execute(stats, key)],
        [SuiteVerdict(*row) for row in conn.execute(verdicts, key)],
    )

"""What the templates print of several tasks: the first screen, tables over the tasks, and a page of each task. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from analyzer.report import cost_tables, provenance, task_tables
from analyzer.report.definitions import suite_definitions
from analyzer.report.page import context, method_text, under_headings
from analyzer.report.suite_answers import suite_screen
from analyzer.results import verdict_sentence
from analyzer.results.number_format import loss_size
from analyzer.results.results import Results
from analyzer.results.series_names import series_name
from analyzer.results.suite_results import SuiteResults
from kvt_async.contract.settings import Settings

TASK_FILES = ("verdict_by_budget", "acc_by_budget")
"""Charts of a task that are written as files, since a picture takes long; the page of the report draws all of them."""


@dataclass(frozen=True)
class TaskSection:
    """One task of the page. anchor: before every id in it; plots: its folder below the report; specs: packed charts."""

    name: str
    anchor: str
    plots: str
    says: str
    page: Mapping[str, Any]
    specs: str = ""
    drawn: Sequence[str] = TASK_FILES


def folders(suite: SuiteResults) -> dict[str, str]:
    """Task -> the name of its folder in plots/: its own name, in letters that every file system takes."""
    names: dict[str, str] = {}
    for task in suite.tasks:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", task.task).strip("._") or "task"
        taken = {name.lower() for name in names.values()}
        names[task.task] = plain if plain.lower() not in taken else f"{plain}_{len(names)}"
    return names


def sections(
    suite: SuiteResults, settings: Settings, now: datetime, captions: Mapping[str, Sequence[Mapping[str, str]]]
) -> list[TaskSection]:
    """The page of each task. `captions`: of its charts, by task; none where none are drawn."""
    places = folders(suite)
    return [
        TaskSection(
            task.task,
            f"t{i}-",
            f"plots/{places[task.task]}",
            _says(task),
            context(task, settings, now, captions.get(task.task, ())),
        )
        for i, task in enumerate(suite.tasks)
    ]


def suite_context(
    suite: SuiteResults,
    settings: Settings,
    now: datetime,
    charts: Sequence[Mapping[str, str]],
    tasks: Sequence[TaskSection],
) -> dict[str, Any]:
    """Everything the templates print; `charts`: captions of the charts over the tasks."""
    first = suite.first
    screen = suite_screen(suite, settings)
    counts = [p for task in suite.tasks for p in task.progress.values()]
    page = tasks[0].page
    guard = loss_size(settings.analysis.guard, settings.analysis.margin_kind)
    return {
        "generated_at": page["generated_at"],
        "group": first.group,
        "model": page["model"],
        "dataset": f"{len(suite.tasks)} tasks: {', '.join(task.task for task in suite.tasks)}",
        "screen": screen,
        "answers": under_headings(screen),
        "charts": charts,
        "names": [(name, s) for s in suite.series if (name := series_name(s)) != s],
        "suite_verdicts": task_tables.suite_verdicts(suite),
        "task_verdicts": task_tables.task_verdicts(suite),
        "losses": task_tables.losses(suite),
        "accuracies": task_tables.accuracies(suite),
        "accounts": task_tables.accounts(suite),
        "datasets": task_tables.datasets(suite),
        "tasks": tasks,
        "volumes": cost_tables.volumes(first, settings),
        "contract": provenance.contract(first),
        "sessions": page["sessions"],
        "servers": page["servers"],
        "commands": page["commands"],
        "account": {
            "requests": suite.requests,
            "responses": sum(p.responses for p in counts),
            "failures": sum(p.failures for p in counts),
            "pending": suite.pending,
        },
        "definitions": [*suite_definitions(guard), *page["definitions"]],
        "failures": page["failures"],
        "method": method_text(next((v.method for v in suite.verdicts), "")),
    }


def _says(task: Results) -> str:
    v = task.verdict(task.series[0]) if task.series else None
    return verdict_sentence.in_few_words(v, task.unit) if v else "no verdict"

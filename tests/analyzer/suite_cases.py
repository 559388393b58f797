"""Several tasks as the report meets them: each task's database of report_rows, and rows over the tasks by hand."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from analyzer.results.results import Results, read_results
from analyzer.results.suite_results import SuiteResults
from analyzer.store.suite_tables import SuiteStat, SuiteVerdict
from tests.analyzer.report_blank import blank
from tests.analyzer.report_cases import EDGES, GROUP, Rows, Series, cliff
from tests.analyzer.report_rows import write

AWARE = "snapkv/aware"
TASKS = {"single": cliff(30), "multikey": cliff(60), "vt": lambda budget, tokens: 1.0}
METHOD = {
    "alpha": 0.05, "margin": 0.05, "margin_kind": "absolute", "guard": 0.15, "level": 0.025, "role": "confirmatory",
    "stored_tasks": 3, "told": 0.5, "first_open": 0.2, "n": 480, "shares_contexts": False,
}  # fmt: skip


def task_results(folder: Path, name: str, curve: Any, **changes: Any) -> Results:
    """One task of a suite: its rows are exploratory, and its name is its own."""
    rows = Rows(
        **{"series": (Series(AWARE, curve),), "budgets": (1.0, 0.5, 0.2), "edges": EDGES[:2], "n": 80, **changes}
    )
    with closing(write(folder / f"{name.replace('/', '_')}.sqlite", rows)) as conn:
        results = read_results(conn, GROUP, volumes=True)
    verdicts = [replace(v, role="exploratory") for v in results.verdicts]
    return replace(results, task=name, dataset_id=f"ruler__{name}", verdicts=verdicts)


def suite_of(folder: Path, tasks: dict[str, Any] | None = None, **changes: Any) -> SuiteResults:
    """Three tasks: safe on average to 0.5, and 'multikey' breaks first; `changes` of the verdict's row."""
    made = [task_results(folder, name, curve) for name, curve in (tasks or TASKS).items()]
    return SuiteResults(
        made, [stat(0.5, 0.01), stat(0.2, 0.3, broken=["multikey"]), stat(1.0, 0.0, 1)], [verdict(made, **changes)]
    )


def stat(budget: float, drop: float, repeat: int = 0, broken: list[str] | None = None) -> SuiteStat:
    row: SuiteStat = blank(
        SuiteStat, series="full" if repeat else AWARE, kv_budget=budget, repeat_idx=repeat, n_tasks=3, n=480,
        n_clusters=480, mean_full=0.99, mean_here=0.99 - drop, drop_mean=drop, drop_ci_low=drop - 0.02,
        drop_ci_high=drop + 0.02, worst_task="multikey", worst_task_bound=drop + 0.1, n_safe_tasks=2,
        broken_tasks=json.dumps(broken or []),
    )  # fmt: skip
    return row


def verdict(tasks: list[Results], **changes: Any) -> SuiteVerdict:
    asked = changes.pop("asked", {})
    own = [
        {"task": t.task, "dataset_id": t.dataset_id, "verdict": "transition", "n": 160, "n_contexts": 160,
         "n_needed": None, "bound": 0.06, "is_open": False}
        for t in tasks
    ]  # fmt: skip
    values: dict[str, Any] = {
        "series": AWARE, "n_tasks": len(tasks), "n_nothing_to_lose": 0, "n_cannot_tell": 0, "suite_safe": 0.5,
        "guard": 0.15, "worst_task": "multikey", "worst_task_bound": 0.11, "n_safe_tasks": 2, "safe_everywhere": None,
        "broken_somewhere": 0.2, "broken_tasks": json.dumps(["multikey"]), "mean_full": 0.99, "mean_safe_budget": 0.5,
        "mean_broken_budget": 0.2, "n_needed": None, "verdict": "transition", "verdict_text": "Safe on average.",
        "tasks_json": json.dumps(own), "evidence": "verified", "partial": 0, "method": json.dumps(METHOD | asked),
    }  # fmt: skip
    row: SuiteVerdict = blank(SuiteVerdict, **{**values, **changes})
    return row


def with_tasks(v: SuiteVerdict, **of_task: dict[str, Any]) -> SuiteVerdict:
    """The row with other values of single tasks in tasks_json."""
    tasks = [task | of_task.get(task["task"], {}) for task in v.tasks]
    return replace(v, tasks_json=json.dumps(tasks))

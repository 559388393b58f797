"""The derived tables of several tasks together, as tables.py has those of one: a frozen class each."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar

from kvt_async.contract.vocabulary import SeriesVerdict


@dataclass(frozen=True, slots=True)
class SuiteStat:
    """Several tasks together at one level against full cache: the mean over them, and the worst of them."""

    TABLE: ClassVar[str] = "suite_stats"
    KEY: ClassVar[tuple[str, ...]] = ("series", "kv_budget", "repeat_idx")

    series: str
    kv_budget: float
    repeat_idx: int
    n_tasks: int
    n: int
    n_clusters: int
    mean_full: float | None
    mean_here: float | None
    drop_mean: float | None
    drop_ci_low: float | None
    drop_ci_high: float | None
    p_safe: float | None
    p_guard: float | None
    p_everywhere: float | None
    p_loss: float | None
    p_collapse: float | None
    worst_task: str | None
    worst_task_bound: float | None
    n_safe_tasks: int | None
    broken_tasks: str

    @property
    def broken(self) -> list[str]:
        """Names of the tasks that are proven broken here and at every budget below."""
        return [str(name) for name in json.loads(self.broken_tasks)]


@dataclass(frozen=True, slots=True)
class SuiteVerdict:
    """What the tests of one series allow to be said of several tasks together."""

    TABLE: ClassVar[str] = "suite_summary"
    KEY: ClassVar[tuple[str, ...]] = ("series",)

    series: str
    n_tasks: int
    n_nothing_to_lose: int
    n_cannot_tell: int
    suite_safe: float | None
    guard: float
    worst_task: str | None
    worst_task_bound: float | None
    n_safe_tasks: int | None
    safe_everywhere: float | None
    broken_somewhere: float | None
    broken_tasks: str
    mean_full: float | None
    mean_safe_budget: float | None
    mean_broken_budget: float | None
    n_needed: int | None
    verdict: str
    verdict_text: str
    tasks_json: str
    evidence: str
    partial: int
    method: str

    @property
    def judges(self) -> bool:
        """Whether this is a verdict about budgets, rather than the reason why there is none."""
        return SeriesVerdict(self.verdict).judges

    @property
    def broken(self) -> list[str]:
        """Names of the tasks that are proven broken, at broken_somewhere."""
        return [str(name) for name in json.loads(self.broken_tasks)]

    @property
    def tasks(self) -> list[dict[str, Any]]:
        """Every task: {task, dataset_id, verdict, safe, broken, acc_full, n, n_contexts, n_needed, headroom, bound,
        lengths}; lengths: its own claims at each, [{label, safe, broken}], None where it claims none."""
        loaded: list[dict[str, Any]] = json.loads(self.tasks_json)
        return loaded

    @property
    def asked(self) -> dict[str, Any]:
        """What the analysis was asked for: alpha, margin, margin_kind, guard, level, look, stored_tasks, planned."""
        loaded: dict[str, Any] = json.loads(self.method)
        return loaded

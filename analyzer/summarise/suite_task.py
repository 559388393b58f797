"""One task of a verdict over several: what it says alone, which needs no other task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from analyzer.read.group_tasks import GroupTask
from analyzer.results.confidence import nothing_safe
from analyzer.results.length_bins import Bin
from analyzer.stats.suite import SuiteRule, TaskAtBudget, TaskScores, task_at_budget
from analyzer.stats.transition import BudgetTest
from analyzer.store.tables import Verdict
from analyzer.summarise.bin_stats import ALL_BINS
from analyzer.summarise.group import Group


@dataclass(frozen=True)
class SuiteTask:
    """One task of a verdict over several.

    verdicts: its own rows of transition_summary. p_headroom: p of "full cache has no more than the margin to lose" in
    it. contexts: what tells its examples' contexts apart, over all tasks. lengths: its length bins. at_budgets: by
    run_id, what it says alone at each of its budgets.
    """

    task: GroupTask
    group: Group
    verdicts: Sequence[Verdict]
    p_headroom: float
    contexts: pl.Series | None
    lengths: Sequence[Bin]
    at_budgets: Mapping[str, TaskAtBudget]

    def verdict(self, series: str) -> Verdict | None:
        return next((v for v in self.verdicts if v.series == series and v.bin_idx == ALL_BINS), None)

    def at_lengths(self, series: str) -> list[dict[str, Any]]:
        """Its own claims at every length that has pairs, short to long: {label, safe, broken}."""
        of_bin = {v.bin_idx: v for v in self.verdicts if v.series == series and v.n}
        return [
            {
                "label": b.label,
                "safe": v.safe_budget if v.judges and not nothing_safe(v) else None,
                "broken": v.broken if v.judges else None,
            }
            for b in self.lengths
            if (v := of_bin.get(b.bin_idx)) is not None
        ]


def at_budgets(
    name: str, group: Group, tests: Mapping[tuple[str, int], BudgetTest], p_headroom: float
) -> dict[str, TaskAtBudget]:
    """What a task says alone at each of its budgets and of each repeat of full cache, by run_id; `tests`: of a run in a
    bin. It needs no other task, so it is made while those are read."""
    if group.full is None:
        return {}
    rule = SuiteRule(group.margin, group.analysis.guard, group.analysis.alpha)
    levels = [run for runs in group.series.values() for run in runs]
    repeats = [run for run in group.runs if run.is_full and run.repeat_idx]
    made = {}
    for run in (*levels, *repeats):
        task = TaskScores(name, group.grid, group.full.run_id, {run.kv_budget: run.run_id}, p_headroom)
        made[run.run_id] = task_at_budget(task, run.kv_budget, rule, tests[run.run_id, ALL_BINS])
    return made

"""One verdict over several tasks: the mean over tasks, the worst of them, and what they allow to be said together.

Tasks weigh equally, so do the bins of a task and the examples of a bin: an example's share is 1 / (T B_t n_tb). The
unit is the context over all tasks that share it (Grid.cluster numbers contexts over the tasks). What is claimed:

- suite safe: from the top budget down, while the mean over tasks is proven to lose less than the margin *and* every
  task less than the guard. An intersection-union of T + 1 tests, each at the full level (Berger 1982), in a sequence;
- safe everywhere: the same, and every task proven at the margin itself;
- broken somewhere: Holm over the tasks' own sequences, bottom up, so that names and budgets hold together;
- beside them, bounds: no task loses more than U (the largest of the tasks' own bounds, not adjusted: the task that
  truly loses most has to be above its own), and how many tasks are safe at least (partial conjunction).

docs/STATISTICS.md has levels and power.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from analyzer.stats.loss_bound import LostShare, loss_bound, lost_share
from analyzer.stats.margin import Margin
from analyzer.stats.partial_conjunction import at_least
from analyzer.stats.transition import BudgetTest, Grid, against_full, claims, holm_claims, more_pairs, safety_units

ALL_BINS = -1
FULL = "full"
POWER = 0.8


@dataclass(frozen=True)
class TaskScores:
    """One task of a series: its scores, its full-cache run, and its run at each budget below.

    grid: as of a single task, but `cluster` numbers contexts over all tasks of the suite. runs: run_id by budget.
    p_headroom: of "there is no more than the margin to lose" (docs/STATISTICS.md, Nothing to lose); 0.0: not asked. A
    task is counted as safe only where that is rejected too. made: by run_id, what task_at_budget gave before.
    """

    name: str
    grid: Grid
    full: str
    runs: Mapping[float, str]
    p_headroom: float = 0.0
    made: "Mapping[str, TaskAtBudget]" = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteRule:
    """The plan: margin of the mean, guard of every task (of the margin's kind), alpha of intervals, level of claims.

    level: one-sided; alpha/2 times the look's share. None: alpha/2. p_headroom: as a task's, of the mean over tasks;
    where it is above the level, there is too little to lose for anything to be called safe.
    """

    margin: Margin = field(default_factory=lambda: Margin(0.05))
    guard: float = 0.15
    alpha: float = 0.05
    level: float | None = None
    p_headroom: float = 0.0

    @property
    def one_sided(self) -> float:
        return self.alpha / 2 if self.level is None else self.level

    @property
    def guard_margin(self) -> Margin:
        return Margin(self.guard, self.margin.kind)


@dataclass(frozen=True)
class TaskAtBudget:
    """One task at one budget. test: at the margin; p_guard: of "the guard or more is lost";
    upper: one-sided 1 - alpha/2 bound of its loss, in the margin's terms; p_safe: test.p_safe, or p_headroom where that
    is larger."""

    task: str
    test: BudgetTest
    p_guard: float
    upper: float
    p_safe: float


@dataclass(frozen=True)
class SuiteBudget:
    """The suite at one budget. test: of the mean over tasks; lost: the share lost, where the margin is relative.

    n_safe_tasks: at least so many lose less than the margin (a bound at this budget alone); broken_tasks: proven beyond
    the margin here and at every budget below.
    """

    budget: float
    mean_full: float
    mean_here: float
    test: BudgetTest
    lost: LostShare | None
    tasks: tuple[TaskAtBudget, ...]
    n_safe_tasks: int
    broken_tasks: tuple[str, ...]

    @property
    def worst(self) -> TaskAtBudget:
        """The task that may have lost most: the one with the highest bound."""
        return max(self.tasks, key=lambda task: (task.upper, task.test.drop))

    @property
    def worst_task_bound(self) -> float:
        """No task loses more than this: a one-sided 1 - alpha/2 bound, in the margin's terms."""
        return self.worst.upper

    @property
    def p_suite(self) -> float:
        """Of "the mean loses the margin or more, or some task the guard or more"."""
        return max(self.test.p_safe, *(task.p_guard for task in self.tasks))

    @property
    def p_everywhere(self) -> float:
        """Of "some task loses the margin or more"; never below p_suite, so that safe everywhere is suite safe too."""
        return max(self.p_suite, *(task.p_safe for task in self.tasks))


@dataclass(frozen=True)
class TaskNeed:
    """Examples that one task would need at the first budget not suite safe; None: no number can be given.

    is_open: its own guard isn't proven there.
    """

    task: str
    n: int
    n_needed: int | None
    is_open: bool


@dataclass(frozen=True)
class Suite:
    """Budgets from the highest down, and what is proven over them; None: nothing on that side.

    suite_safe, mean_safe, safe_everywhere: the smallest budget such that it holds there and at all above;
    broken_somewhere, mean_broken: the largest such that it holds there and at all below (of one task, for the first).
    """

    tasks: tuple[str, ...]
    n_contexts: int
    shares_contexts: bool
    budgets: tuple[SuiteBudget, ...]
    suite_safe: float | None
    mean_safe: float | None
    safe_everywhere: float | None
    broken_somewhere: float | None
    mean_loss: float | None
    mean_broken: float | None
    needs: tuple[TaskNeed, ...]

    def at(self, budget: float | None) -> SuiteBudget | None:
        return next((row for row in self.budgets if row.budget == budget), None)

    @property
    def first_open(self) -> SuiteBudget | None:
        """The highest budget that is not proven suite safe; None: all are."""
        return next((row for row in self.budgets if self.suite_safe is None or row.budget < self.suite_safe), None)

    @property
    def told(self) -> SuiteBudget | None:
        """Where the worst task's bound is told: at the suite-safe budget, else at the first that isn't."""
        return self.at(self.suite_safe) or self.first_open

    @property
    def broken_tasks(self) -> tuple[str, ...]:
        row = self.at(self.broken_somewhere)
        return row.broken_tasks if row else ()

    @property
    def n_needed(self) -> int | None:
        """Examples of all tasks together that would prove the first open budget suite safe; None: no number."""
        if not self.needs or any(need.n_needed is None for need in self.needs):
            return None
        return sum(need.n_needed or 0 for need in self.needs)


def suite(tasks: Sequence[TaskScores], rule: SuiteRule) -> Suite:
    """What several tasks say of one series, at the budgets that all of them have; at least one task.

    A task without any pair at a budget leaves the suite unproven there.
    """
    pool = Pool(tasks)
    tests = {task.name: _task_tests(task, pool.budgets, rule) for task in tasks}
    broken = holm_claims({name: [row.test for row in rows] for name, rows in tests.items()}, rule.one_sided)
    rows = []
    for i, budget in enumerate(pool.budgets):
        at = tuple(tests[task.name][i] for task in tasks)
        names = tuple(name for name, done in broken.items() if done.broken is not None and budget <= done.broken)
        rows.append(_at_budget(pool, budget, at, names, rule))
    mean = claims([row.test for row in rows], rule.one_sided)
    reached = [done.broken for done in broken.values() if done.broken is not None]
    suite_safe = _down_to([(row.budget, row.p_suite) for row in rows], rule.one_sided)
    return Suite(
        tasks=tuple(task.name for task in tasks),
        n_contexts=pool.n_contexts,
        shares_contexts=pool.shares_contexts,
        budgets=tuple(rows),
        suite_safe=suite_safe,
        mean_safe=mean.safe,
        safe_everywhere=_down_to([(row.budget, row.p_everywhere) for row in rows], rule.one_sided),
        broken_somewhere=max(reached, default=None),
        mean_loss=mean.loss,
        mean_broken=mean.broken,
        needs=_needs(tasks, rows, suite_safe, rule),
    )


@dataclass(frozen=True)
class Pool:
    """The examples of all tasks side by side, as one grid whose runs are FULL and the budgets' texts."""

    tasks: Sequence[TaskScores]

    @cached_property
    def budgets(self) -> list[float]:
        """Those that every task has, from the highest down."""
        return sorted(set.intersection(*(set(task.runs) for task in self.tasks)), reverse=True)

    @cached_property
    def grid(self) -> Grid:
        """bin_idx numbers the bins over all tasks; task numbers the tasks in their order."""
        names = {FULL: [task.full for task in self.tasks]} | {
            str(budget): [task.runs[budget] for task in self.tasks] for budget in self.budgets
        }
        grids = [task.grid for task in self.tasks]
        sizes = [int(grid.bin_idx.max(initial=-1)) + 1 for grid in grids]
        starts = np.cumsum([0, *sizes[:-1]])
        return Grid(
            score={
                name: np.concatenate([grid.score[run] for grid, run in zip(grids, runs, strict=True)])
                for name, runs in names.items()
            },
            bin_idx=np.concatenate([grid.bin_idx + start for grid, start in zip(grids, starts, strict=True)]),
            cluster=np.concatenate([grid.cluster for grid in grids]),
            failed={
                name: np.concatenate(
                    [
                        grid.failed.get(run, np.zeros(len(grid.bin_idx), dtype=bool))
                        for grid, run in zip(grids, runs, strict=True)
                    ]
                )
                for name, runs in names.items()
            },
            task=np.repeat(np.arange(len(grids)), [len(grid.bin_idx) for grid in grids]),
        )

    @cached_property
    def n_contexts(self) -> int:
        return len(np.unique(self.grid.cluster))

    @cached_property
    def shares_contexts(self) -> bool:
        """Whether a context belongs to several tasks, so that their tests depend on each other."""
        return sum(len(np.unique(task.grid.cluster)) for task in self.tasks) > self.n_contexts


def task_at_budget(task: TaskScores, budget: float, rule: SuiteRule, test: BudgetTest | None = None) -> TaskAtBudget:
    """One task at one of its budgets. `test`: at the rule's margin over all bins, where it was made before.

    Nothing of it hangs on other tasks: contexts may be numbered within the task.
    """
    runs = (task.grid, task.full, task.runs[budget])
    test = test or against_full(*runs, budget, ALL_BINS, margin=rule.margin, alpha=None)
    p_guard = max(units.p_drop_at_least(rule.guard) for units in safety_units(*runs, ALL_BINS, rule.guard_margin))
    upper = loss_bound(*runs, ALL_BINS, kind=rule.margin.kind, level=rule.alpha / 2)
    return TaskAtBudget(task.name, test, p_guard, upper, max(test.p_safe, task.p_headroom))


def _task_tests(task: TaskScores, budgets: Sequence[float], rule: SuiteRule) -> list[TaskAtBudget]:
    return [task.made.get(task.runs[budget]) or task_at_budget(task, budget, rule) for budget in budgets]


def _at_budget(
    pool: Pool, budget: float, at: tuple[TaskAtBudget, ...], broken: tuple[str, ...], rule: SuiteRule
) -> SuiteBudget:
    grid, name = pool.grid, str(budget)
    test = against_full(grid, FULL, name, budget, ALL_BINS, margin=rule.margin, alpha=rule.alpha)
    p_safe = max(test.p_safe, rule.p_headroom) if all(row.test.n for row in at) else 1.0
    paired = ~np.isnan(grid.score[FULL] - grid.score[name])
    return SuiteBudget(
        budget=budget,
        mean_full=grid.units(grid.score[FULL], paired).mean,
        mean_here=grid.units(grid.score[name], paired).mean,
        test=replace(test, p_safe=p_safe),
        lost=lost_share(grid, FULL, name, ALL_BINS, rule.alpha) if rule.margin.is_relative else None,
        tasks=at,
        n_safe_tasks=at_least([row.p_safe for row in at], rule.one_sided, independent=not pool.shares_contexts),
        broken_tasks=broken,
    )


def _down_to(sequence: Sequence[tuple[float, float]], level: float) -> float | None:
    """The last budget of the beginning of a sequence that is proven at the level."""
    last = None
    for budget, p in sequence:
        if p > level:
            break
        last = budget
    return last


def _needs(
    tasks: Sequence[TaskScores], rows: Sequence[SuiteBudget], suite_safe: float | None, rule: SuiteRule
) -> tuple[TaskNeed, ...]:
    """Of every task at the first budget not suite safe, were the drops seen true: the open tests together with a chance
    of POWER. What the mean needs is shared by the tasks as they share its examples now."""
    row = next((row for row in rows if suite_safe is None or row.budget < suite_safe), None)
    if row is None:
        return ()
    level, margin, guard = rule.one_sided, rule.margin.size, rule.guard
    is_open = [task.p_guard > level for task in row.tasks]
    power = POWER ** (1 / max(1, sum(is_open) + (row.test.p_safe > level)))
    growth: float | None = 1.0
    if row.test.p_safe > level:
        pairs = more_pairs(row.test, level, margin=margin, power=power) if row.test.judged_mean < margin else None
        growth = pairs / row.test.n if pairs else None
    needs = []
    for scores, task, opened in zip(tasks, row.tasks, is_open, strict=True):
        n = task.test.n
        own: int | None = n
        if opened:
            runs = (scores.grid, scores.full, scores.runs[row.budget])
            test = against_full(*runs, row.budget, ALL_BINS, margin=rule.guard_margin, alpha=None)
            own = more_pairs(test, level, margin=guard, power=power) if test.judged_mean < guard else None
        number = None if own is None or growth is None else max(own, math.ceil(n * growth - 1e-9))
        needs.append(TaskNeed(task.task, n, number, opened))
    return tuple(needs)

"""Before a run of several tasks: what they can prove together, and how many examples of each that needs.

Every test is drawn as for one task (stats/chances.py): the guard of each task, and the mean over all of them with the
contexts that they share. Several proofs gain and lose by the same flips, so the chance of all is at least the product
of their chances (positive association: Esary, Proschan and Walkup 1967); the product is what is told.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from analyzer.stage_answers import Json, StageAnswer
from analyzer.stats.chances import POWER, Chances
from analyzer.stats.guard_reach import OutOfReach, out_of_reach
from analyzer.stats.sample_layout import Layout
from analyzer.verbs.power import Flips, budgets_below, n_of
from kvt_async.contract.planned_task import PlannedTask
from kvt_async.contract.settings import Settings

Ints = npt.NDArray[np.int64]

_DRAWS = 400


@dataclass(frozen=True)
class TaskPlan:
    """Of one task: its examples and contexts, the loss below which nothing can be proven, the chance that its guard is
    proven, and the examples that the suite's two claims need of it; None: more than 10,000."""

    task: str
    n: int
    contexts: int
    flip_rate: float
    least_provable: float
    chance_guard: float
    n_suite_safe: int | None
    n_everywhere: int | None


@dataclass(frozen=True)
class SuitePlan(StageAnswer):
    """What several tasks can prove at the config's examples, at every budget of the first series, were nothing lost.

    chance_*: at least; n_contexts: over all tasks, those that they share counted once; samples: answers an example.
    """

    tasks: tuple[TaskPlan, ...]
    n_contexts: int
    budgets: int
    samples: int
    flips: Flips
    alpha: float
    margin: float
    guard: float
    is_relative: bool
    chance_mean: float
    chance_suite_safe: float
    chance_everywhere: float
    out_of_reach: tuple[OutOfReach, ...]

    @property
    def n_suite_safe(self) -> int | None:
        return _total([task.n_suite_safe for task in self.tasks])

    @property
    def n_everywhere(self) -> int | None:
        return _total([task.n_everywhere for task in self.tasks])

    def json(self) -> Json:
        return {
            "n_tasks": len(self.tasks),
            "n": sum(task.n for task in self.tasks),
            "contexts": self.n_contexts,
            "budgets": self.budgets,
            "samples": self.samples,
            "flip_rate": self.flips.rate,
            "flip_rate_source": self.flips.source or "assumed",
            "level": self.alpha,
            "margin": self.margin,
            "guard": self.guard,
            "margin_kind": "relative" if self.is_relative else "absolute",
            "chance_mean_safe": self.chance_mean,
            "chance_suite_safe": self.chance_suite_safe,
            "chance_safe_everywhere": self.chance_everywhere,
            "n_needed": self.n_suite_safe,
            "n_needed_everywhere": self.n_everywhere,
            "out_of_reach": [
                {"task": one.task, "contexts": one.contexts, "least": one.least, "contexts_needed": one.needed}
                for one in self.out_of_reach
            ],
            "tasks": [
                {
                    "task": task.task,
                    "n": task.n,
                    "contexts": task.contexts,
                    "flip_rate": task.flip_rate,
                    "least_provable_loss": task.least_provable,
                    "chance_guard": task.chance_guard,
                    "n_needed": task.n_suite_safe,
                    "n_needed_everywhere": task.n_everywhere,
                }
                for task in self.tasks
            ],
        }

    @property
    def lines(self) -> list[str]:
        n = sum(task.n for task in self.tasks)
        budgets = "the budget" if self.budgets == 1 else f"all {self.budgets} budgets"
        answers = f", {self.samples} answers an example" if self.samples > 1 else ""
        lines = [
            self._flips_line,
            f"  {len(self.tasks)} tasks, {n:,} examples in {self.n_contexts:,} contexts{answers}; were nothing lost, "
            f"{budgets} would be proven",
            f"    safe on average (less than {self.margin:g} lost), no task losing {self.guard:g} or more: "
            f"in about {self.chance_suite_safe:.0%} of experiments",
            f"    safe in every task (less than {self.margin:g} lost in each): in about {self.chance_everywhere:.0%}",
            f"  4 of 5 experiments need {_about(self.n_suite_safe)} examples in all for the first, "
            f"{_about(self.n_everywhere)} for the second:",
            *self._table,
        ]
        lines += [
            f"  {one.task} can't prove the guard of {self.guard:g} whatever it answers: its {one.contexts} contexts "
            f"leave a loss of {one.least:.2f} possible; {one.needed} of them ({one.examples:,} examples) would reach it"
            for one in self.out_of_reach
        ]
        if self.is_relative:
            lines.append("  The margin is a share of full cache's accuracy: these numbers hold where that is near 1.")
        return lines

    @property
    def exit_code(self) -> int:
        """3: a task can't reach the guard, so the suite can't be proven safe by this run."""
        return 3 if self.out_of_reach else 0

    @property
    def _table(self) -> list[str]:
        width = max(len(task.task) for task in self.tasks)
        head = f"    {'':<{width}}  examples  contexts  flips  on average  in every task"
        return [head] + [
            f"    {task.task:<{width}}  {task.n:>8,}  {task.contexts:>8,}  {task.flip_rate:>5.1%}  "
            f"{_number(task.n_suite_safe):>10}  {_number(task.n_everywhere):>13}"
            for task in self.tasks
        ]

    @property
    def _flips_line(self) -> str:
        flips = self.flips
        if not flips.n:
            return (
                f"If {flips.rate:.0%} of answers flip by noise (assumed; the A/A control of a first run measures it):"
            )
        return f"{flips.rate:.1%} of answers flipped by noise in the A/A control of {flips.source}. If that holds:"


def suite_plan(
    settings: Settings, tasks: Sequence[PlannedTask], flips: Flips, own: Mapping[str, Flips] | None = None
) -> SuitePlan:
    """Chances and sizes for the tasks of a config; `own`: flips by task, `flips`: where a task has none of its own."""
    analysis, samples = settings.analysis, tasks[0].settings.decoding.samples
    budgets, level = budgets_below(settings), analysis.alpha / 2
    guard, margin = (Chances(size, level, analysis.seed, _DRAWS, samples) for size in (analysis.guard, analysis.margin))
    layouts = {task.name: layout_of(task) for task in tasks}
    rate = {task.name: (own or {}).get(task.name, flips).rate for task in tasks}
    pool = _pool(tasks, layouts)
    mean_rate = float(np.mean(list(rate.values())))
    each = POWER ** (1 / (len(tasks) + 1))  # so that all tests of a claim hold with POWER, were they independent

    @cache
    def chance(is_guard: bool, shape: tuple[object, ...], flip_rate: float) -> float:
        return (guard if is_guard else margin).safe(by_shape[shape], flip_rate, budgets)

    @cache
    def needed(is_guard: bool, shape: tuple[object, ...], flip_rate: float) -> int | None:
        return (guard if is_guard else margin).needed(by_shape[shape], flip_rate, budgets, power=each)

    by_shape = {_shape(layout): layout for layout in (pool, *layouts.values())}
    mean = chance(False, _shape(pool), mean_rate)
    for_mean = needed(False, _shape(pool), mean_rate)
    plans = []
    for name, layout in layouts.items():
        shape = _shape(layout)
        for_guard = needed(True, shape, rate[name])
        share = None if for_mean is None else layout.rounded(math.ceil(for_mean * layout.examples / pool.examples))
        plans.append(
            TaskPlan(
                task=name,
                n=layout.examples,
                contexts=layout.contexts,
                flip_rate=rate[name],
                least_provable=layout.reach(level),
                chance_guard=chance(True, shape, rate[name]),
                n_suite_safe=None if for_guard is None or share is None else max(for_guard, share),
                n_everywhere=needed(False, shape, rate[name]),
            )
        )
    everywhere = math.prod(chance(False, _shape(layout), rate[name]) for name, layout in layouts.items())
    return SuitePlan(
        tasks=tuple(plans),
        n_contexts=pool.contexts,
        budgets=budgets,
        samples=samples,
        flips=flips,
        alpha=level,
        margin=analysis.margin,
        guard=analysis.guard,
        is_relative=analysis.margin_kind == "relative",
        chance_mean=mean,
        chance_suite_safe=mean * math.prod(task.chance_guard for task in plans),
        chance_everywhere=everywhere,
        out_of_reach=tuple(out_of_reach(layouts, analysis.guard, level)),
    )


def layout_of(task: PlannedTask) -> Layout:
    """How a task's examples lie in contexts and bins."""
    if not task.contexts:
        return Layout.even(*n_of(task.settings))
    contexts, bin_idx = zip(*task.contexts, strict=True)
    return Layout.of(_numbered(contexts), np.array(bin_idx))


def _pool(tasks: Sequence[PlannedTask], layouts: Mapping[str, Layout]) -> Layout:
    """The examples of all tasks as one mean over tasks; a context that several of them share is one."""
    contexts: list[str] = []
    bins: list[int] = []
    of_task: list[int] = []
    for t, task in enumerate(tasks):
        layout, first = layouts[task.name], max(bins, default=-1) + 1
        places = task.contexts or [
            (f"{task.name}:{i}", i * layout.bins // layout.examples) for i in range(layout.examples)
        ]
        contexts += [context for context, _ in places]
        bins += [first + bin_idx for _, bin_idx in places]
        of_task += [t] * len(places)
    return Layout.of(_numbered(contexts), np.array(bins), np.array(of_task))


def _numbered(contexts: Sequence[str]) -> Ints:
    return np.unique(np.array(contexts), return_inverse=True)[1]


def _shape(layout: Layout) -> tuple[object, ...]:
    """What makes two layouts the same: most tasks of a suite are alike, and are drawn once."""
    return (tuple(layout.weight.tolist()), tuple(layout.count.tolist()), layout.examples, layout.bins)


def _total(numbers: Sequence[int | None]) -> int | None:
    return None if any(number is None for number in numbers) else sum(number or 0 for number in numbers)


def _about(n: int | None) -> str:
    return f"about {n:,}" if n else "more than 10,000 of a task"


def _number(n: int | None) -> str:
    return f"{n:,}" if n else ">10,000"

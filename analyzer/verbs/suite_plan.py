"""Before a run of several tasks: what they can prove together, and how many examples of each that needs.

The chances and the sizes are those of stats/imagined_suite.py: a config's examples suffice exactly where the chance
that is told of them is 80% or more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analyzer.stage_answers import Json, StageAnswer
from analyzer.stats.chances import Chances
from analyzer.stats.guard_reach import OutOfReach, out_of_reach
from analyzer.stats.imagined_suite import ImaginedSuite, Sizes
from analyzer.stats.sample_layout import Layout
from analyzer.verbs.power import Flips, budgets_below, n_of
from kvt_async.contract.planned_task import PlannedTask
from kvt_async.contract.settings import Settings

Ints = npt.NDArray[np.int64]

_DRAWS = 2000  # of each test: an error of 0.3% in one of 11 guards is one of 3% in their product


@dataclass(frozen=True)
class TaskPlan:
    """Of one task: its examples and contexts, the loss below which nothing can be proven, the chance that its guard is
    proven, and the examples that the suite's two claims need of it, were all tasks to grow alike; None: more than
    10,000 of a task."""

    task: str
    n: int
    contexts: int
    flip_rate: float
    least_provable: float
    chance_guard: float
    n_suite_safe: int | None
    n_everywhere: int | None


@dataclass(frozen=True)
class UpperBound:
    """The share of flips that the control rules out to be exceeded at 95%, and the examples of all tasks that the two
    claims need, were every task to flip at least so often; None: more than 10,000 of a task."""

    flip_rate: float
    n_suite_safe: int | None
    n_everywhere: int | None


@dataclass(frozen=True)
class SuitePlan(StageAnswer):
    """What several tasks can prove at the config's examples, at every budget of the first series, were nothing lost.

    chance_*: at least; n_contexts: over all tasks, those that they share counted once; samples: answers an example;
    at_upper_bound: None where flips are assumed.
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
    at_upper_bound: UpperBound | None = None

    @property
    def n_suite_safe(self) -> int | None:
        return _total({t.task: t.n_suite_safe for t in self.tasks if t.n_suite_safe})

    @property
    def n_everywhere(self) -> int | None:
        return _total({t.task: t.n_everywhere for t in self.tasks if t.n_everywhere})

    def json(self) -> Json:
        answer: Json = {
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
        if (bound := self.at_upper_bound) is not None:
            answer |= {
                "flip_rate_high": bound.flip_rate,
                "n_needed_at_high": bound.n_suite_safe,
                "n_needed_everywhere_at_high": bound.n_everywhere,
            }
        return answer

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
            f"{_about(self.n_everywhere)} for the second, in tasks that grow alike:",
            *self._table,
        ]
        if (bound := self.at_upper_bound) is not None:
            lines.append(
                f"  Were {bound.flip_rate:.1%} of answers to flip in every task that flipped fewer: "
                f"{_about(bound.n_suite_safe)} for the first, {_about(bound.n_everywhere)} for the second"
            )
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
        what = "answers" if flips.samples == 1 else f"means of {flips.samples} answers"
        return (
            f"{flips.flips} of {flips.n} {what} flipped by noise in the A/A control of {flips.source} "
            f"({flips.rate:.1%} of answers; 95% sure: at most {flips.upper_bound:.1%}). If {flips.rate:.1%} holds:"
        )


def suite_plan(
    settings: Settings, tasks: Sequence[PlannedTask], flips: Flips, own: Mapping[str, Flips] | None = None
) -> SuitePlan:
    """Chances and sizes for the tasks of a config; `own`: flips by task, `flips`: where a task has none of its own."""
    analysis, samples = settings.analysis, tasks[0].settings.decoding.samples
    layouts = {task.name: layout_of(task) for task in tasks}
    rates = {task.name: (own or {}).get(task.name, flips).rate for task in tasks}
    experiment = ImaginedSuite(
        layouts,
        _pool(tasks, layouts),
        budgets=budgets_below(settings),
        guard=Chances(analysis.guard, analysis.alpha / 2, analysis.seed, _DRAWS, samples),
        margin=Chances(analysis.margin, analysis.alpha / 2, analysis.seed, _DRAWS, samples),
    )
    now = experiment.sizes(1.0)
    safe, everywhere = experiment.needed(experiment.suite_safe, rates), experiment.needed(experiment.everywhere, rates)
    at_upper_bound = None
    if flips.n:
        upper = {task: max(rate, flips.upper_bound) for task, rate in rates.items()}
        at_upper_bound = UpperBound(
            flips.upper_bound,
            _total(experiment.needed(experiment.suite_safe, upper)),
            _total(experiment.needed(experiment.everywhere, upper)),
        )
    level = analysis.alpha / 2
    return SuitePlan(
        tasks=tuple(
            TaskPlan(
                task=name,
                n=layout.examples,
                contexts=layout.contexts,
                flip_rate=rates[name],
                least_provable=layout.reach(level),
                chance_guard=experiment.guard_of(name, layout.examples, rates[name]),
                n_suite_safe=safe[name] if safe else None,
                n_everywhere=everywhere[name] if everywhere else None,
            )
            for name, layout in layouts.items()
        ),
        n_contexts=experiment.pool.contexts,
        budgets=experiment.budgets,
        samples=samples,
        flips=flips,
        alpha=level,
        margin=analysis.margin,
        guard=analysis.guard,
        is_relative=analysis.margin_kind == "relative",
        chance_mean=experiment.mean(now, rates),
        chance_suite_safe=experiment.suite_safe(now, rates),
        chance_everywhere=experiment.everywhere(now, rates),
        out_of_reach=tuple(out_of_reach(layouts, analysis.guard, level)),
        at_upper_bound=at_upper_bound,
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


def _total(sizes: Sizes | None) -> int | None:
    return sum(sizes.values()) if sizes else None


def _about(n: int | None) -> str:
    return f"about {n:,}" if n else "more than 10,000 of a task"


def _number(n: int | None) -> str:
    return f"{n:,}" if n else ">10,000"

"""Suites with a known truth: several tasks, several answers an example; and what a verdict over them got wrong."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from simulated import ALPHA, MARGIN, Floats, Ints

from analyzer.stats import suite as product
from analyzer.stats.margin import Margin
from analyzer.stats.suite import Suite, SuiteRule, TaskAtBudget, TaskScores, suite
from analyzer.stats.transition import Grid

GUARD = 0.15
RULE = SuiteRule(Margin(MARGIN), GUARD, ALPHA)


@dataclass(frozen=True)
class SuiteTruth:
    """How suites are made: sizes[t] examples of task t; drop[b][t] its true drop at the b-th budget below full cache.

    base: what full cache scores, of all tasks or of each. flips: chance that an answer is drawn anew, in every run. A
    context loses all or nothing, at all of its questions and answers. bins: how a task's examples lie in bins, as parts
    of them; uneven: all that is lost is lost in the last bin. shared: example i of every task asks of one context i.
    questions: of a context within a task; k: answers an example, `own`: each is lost by itself.
    """

    sizes: tuple[int, ...]
    drop: tuple[tuple[float, ...], ...]
    base: float | tuple[float, ...] = 0.8
    flips: float = 0.0
    bins: tuple[int, ...] = (1,)
    uneven: bool = False
    shared: bool = False
    questions: int = 1
    k: int = 1
    own: bool = False

    def base_of(self, task: int) -> float:
        return self.base[task] if isinstance(self.base, tuple) else self.base

    def mean(self, budget: int) -> float:
        return float(np.mean(self.drop[budget]))

    @property
    def budgets(self) -> list[float]:
        return [round(1 - (i + 1) / (len(self.drop) + 1), 6) for i in range(len(self.drop))]

    def many(self, rng: np.random.Generator, experiments: int, rule: SuiteRule = RULE) -> Iterator[Suite]:
        """Experiments, each with its verdict."""
        with _equal_tests_made_once():
            for _ in range(experiments):
                yield suite(simulate_suite(self, rng), rule)


def simulate_suite(truth: SuiteTruth, rng: np.random.Generator) -> list[TaskScores]:
    """One experiment: every task with runs `full` and `b0`, `b1`, ... from the highest budget down."""
    contexts, tasks, first = -(-max(truth.sizes) // truth.questions), [], 0
    common = rng.random((2, contexts))
    for t, n in enumerate(truth.sizes):
        own = common if truth.shared else rng.random((2, -(-n // truth.questions)))
        of_context = np.arange(n) // truth.questions
        score = answers_of(truth, t, own[:, of_context], rng)
        grid = Grid({name: each.mean(axis=1) for name, each in score.items()}, _bins(truth, n), first + of_context)
        names = {budget: f"b{b}" for b, budget in enumerate(truth.budgets)}
        tasks.append(TaskScores(f"t{t}", grid, "full", names))
        first += 0 if truth.shared else own.shape[1]
    return tasks


def answers_of(truth: SuiteTruth, task: int, luck: Floats, rng: np.random.Generator) -> dict[str, Floats]:
    """Scores of every answer of one task, by run: [n, k]. luck [2, n]: what makes a question hard, and what is lost."""
    n, base = truth.sizes[task], truth.base_of(task)
    in_bin, shape = _bins(truth, n), (n, truth.k)
    hard = (luck[0] < base).astype(float)[:, None]

    def run() -> Floats:
        return np.where(rng.random(shape) < truth.flips, rng.random(shape) < base, hard).astype(float)

    score = {"full": run()}
    for b, drops in enumerate(truth.drop):
        share = np.full(n, drops[task] / base)
        if truth.uneven:
            share = np.where(in_bin == in_bin.max(), drops[task] / base * (in_bin.max() + 1), 0.0)
        lost = rng.random(shape) < share[:, None] if truth.own else (luck[1] < share)[:, None]
        score[f"b{b}"] = np.where(lost, 0.0, run())
    return score


def _bins(truth: SuiteTruth, n: int) -> Ints:
    edges = np.cumsum(truth.bins) / sum(truth.bins) * n
    return np.searchsorted(edges, np.arange(n) + 0.5)


@contextmanager
def _equal_tests_made_once() -> Iterator[None]:
    """While it lasts, tasks that differ in the order of their examples alone are tested once: twenty times quicker.

    An absolute margin, one bin and a context for each example: then their differences are all that the tests see.
    """
    made: dict[object, TaskAtBudget] = {}
    own = product._task_tests

    def tests(task: TaskScores, budgets: Sequence[float], rule: SuiteRule) -> list[TaskAtBudget]:
        grid, n = task.grid, len(task.grid.bin_idx)
        if rule.margin.is_relative or len(np.unique(grid.cluster)) < n or np.ptp(grid.bin_idx):
            return own(task, budgets, rule)
        rows = []
        for budget in budgets:
            values, counts = np.unique(grid.score[task.full] - grid.score[task.runs[budget]], return_counts=True)
            key = (rule, budget, tuple(values), tuple(counts))
            if key not in made:
                made[key] = own(task, [budget], rule)[0]
            rows.append(replace(made[key], task=task.name))
        return rows

    product._task_tests = tests
    try:
        yield
    finally:
        product._task_tests = own


@dataclass(frozen=True)
class Wrongs:
    """What a verdict said falsely, by name; only what can be false under the truth is in it."""

    truth: SuiteTruth

    def of(self, found: Suite) -> dict[str, bool]:
        truth, budgets = self.truth, self.truth.budgets
        mean = {b: truth.mean(i) for i, b in enumerate(budgets)}
        drops = {b: truth.drop[i] for i, b in enumerate(budgets)}
        wrong: dict[str, bool] = {}

        def down(name: str, said: float | None, false: dict[float, bool]) -> None:
            if any(false.values()):
                wrong[name] = said is not None and any(f for b, f in false.items() if b >= said)

        near = 1e-9
        down(
            "suite safe",
            found.suite_safe,
            {b: mean[b] >= MARGIN - near or max(drops[b]) >= GUARD - near for b in budgets},
        )
        down("mean safe", found.mean_safe, {b: mean[b] >= MARGIN - near for b in budgets})
        down("safe everywhere", found.safe_everywhere, {b: max(drops[b]) >= MARGIN - near for b in budgets})
        if any(mean[b] <= MARGIN + near for b in budgets):
            said = found.mean_broken
            wrong["mean broken"] = said is not None and any(mean[b] <= MARGIN + near for b in budgets if b <= said)
        fine = {(b, f"t{t}") for b in budgets for t, drop in enumerate(drops[b]) if drop <= MARGIN + near}
        if fine:
            wrong["task broken"] = any((row.budget, name) in fine for row in found.budgets for name in row.broken_tasks)
        if not any(mean.values()):
            wrong["mean loss"] = found.mean_loss is not None
        row = found.told
        assert row is not None
        safe = sum(drop < MARGIN - near for drop in drops[row.budget])
        if safe < len(truth.sizes):
            wrong["too many safe"] = row.n_safe_tasks > safe
        wrong["bound too low"] = row.worst_task_bound < max(drops[row.budget]) - near
        return wrong


def one_loses(sizes: tuple[int, ...], drop: float, **asked: object) -> SuiteTruth:
    """Of the tasks the first (the smallest) loses `drop`, the others nothing, at both of two budgets."""
    return replace(SuiteTruth(sizes, (tuple(drop * (t == 0) for t in range(len(sizes))),) * 2), **asked)  # type: ignore[arg-type]


def all_lose(sizes: tuple[int, ...], drop: float, **asked: object) -> SuiteTruth:
    """Every task loses as much, at both of two budgets."""
    return replace(SuiteTruth(sizes, ((drop,) * len(sizes),) * 2), **asked)  # type: ignore[arg-type]

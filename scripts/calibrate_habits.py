"""What the usual habits would have said of the same simulated experiments: the reasons for docs/STATISTICS.md.

    python scripts/calibrate_habits.py [--experiments 2000]

The step rule on point means, the percentile bootstrap as a test of safety, and its coverage of one mean; over several
tasks the worst of them by bootstrap, contexts that tasks share, answers as pairs, tasks chosen by the baseline. Seeded.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from simulated import ALPHA, MARGIN, Truth, answers, simulate
from simulated_suites import RULE, SuiteTruth, all_lose, answers_of, one_loses, simulate_suite

from analyzer.stats.bootstrap import Columns, percentile_interval, resample_means
from analyzer.stats.suite import suite
from analyzer.stats.transition import Grid, against_full, step_drop

RESAMPLES = 1000


def step_found(truth: Truth, rng: np.random.Generator) -> bool:
    """Whether some budget's mean falls by 0.1 against the one above (bins are of equal size)."""
    means = [float(score.mean()) for score in simulate(truth, rng).score.values()]
    return step_drop([(1 - i / 100, mean) for i, mean in enumerate(means)], 0.1) is not None


def bootstrap_safe(truth: Truth, rng: np.random.Generator) -> bool:
    """Whether the upper end of the drop's percentile interval lies below the margin."""
    grid = simulate(truth, rng)
    drop = grid.score["full"] - grid.score["b0"]
    means = resample_means(Columns(drop[:, None], np.arange(len(drop))), RESAMPLES, int(rng.integers(2**31)), 0)
    return percentile_interval(means[:, 0], 0.05)[1] < MARGIN


def bootstrap_covers(truth: Truth, rng: np.random.Generator) -> bool:
    score = answers(truth, rng, truth.n)
    means = resample_means(Columns(score[:, None], np.arange(truth.n)), RESAMPLES, int(rng.integers(2**31)), 0)
    low, high = percentile_interval(means[:, 0], 0.05)
    return low - 1e-9 <= truth.base <= high + 1e-9


def bootstrap_safe_everywhere(truth: SuiteTruth, rng: np.random.Generator) -> bool:
    """Whether 97.5% of resamples put the worst task's mean drop below the margin."""
    drops = [task.grid.score["full"] - task.grid.score["b0"] for task in simulate_suite(truth, rng)]
    means = [drop[rng.integers(0, len(drop), (RESAMPLES, len(drop)))].mean(axis=1) for drop in drops]
    return float(np.quantile(np.max(means, axis=0), 1 - ALPHA / 2)) < MARGIN


def contexts_apart(truth: SuiteTruth, rng: np.random.Generator) -> bool:
    """Whether the mean over tasks is called safe where each task's contexts are taken as its own."""
    tasks = simulate_suite(truth, rng)
    for t, task in enumerate(tasks):
        task.grid.cluster[:] += 10_000 * t
    return suite(tasks, RULE).mean_safe is not None


def contexts_together(truth: SuiteTruth, rng: np.random.Generator) -> bool:
    return suite(simulate_suite(truth, rng), RULE).mean_safe is not None


def answers_as_pairs(truth: SuiteTruth, rng: np.random.Generator) -> bool:
    """Whether a budget is called safe where each answer is taken for an example."""
    score = answers_of(truth, 0, rng.random((2, truth.sizes[0])), rng)
    grid = Grid({run: each.ravel() for run, each in score.items()}, *np.zeros((2, score["full"].size), dtype=np.int64))
    grid.cluster[:] = np.arange(len(grid.cluster))
    return against_full(grid, "full", "b0", 0.5, -1, margin=MARGIN, alpha=None).p_safe <= ALPHA / 2


def loss_of_chosen(truth: SuiteTruth, rng: np.random.Generator) -> bool:
    """Whether a loss is called proven over the tasks that the baseline itself scored 0.35 or more in; none is there."""
    tasks = [task for task in simulate_suite(truth, rng) if task.grid.score["full"].mean() >= 0.35]
    return bool(tasks) and suite(tasks, RULE).mean_loss is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--experiments", type=int, default=2000)
    n = parser.parse_args().experiments
    even = tuple(0.05 / 0.6 * (i + 1) for i in range(6))
    at_margin = (MARGIN / 0.6,)
    cells: list[tuple[str, Callable[[Any, np.random.Generator], bool], Any]] = [
        *(
            (f"step rule, no loss, n=25, {1 + budgets} budgets, flips {flips:.0%}: a transition", step_found,
             Truth(25, (0.0,) * budgets, flips=flips))
            for budgets in (2, 8) for flips in (0.1, 0.3)
        ),
        ("step rule, 0.05 lost a step to half, n=250: found", step_found, Truth(250, even, flips=0.1)),
        ("bootstrap, margin lost, n=25, no flips: safe", bootstrap_safe, Truth(25, at_margin)),
        ("bootstrap, margin lost, n=25, flips 10%: safe", bootstrap_safe, Truth(25, at_margin, flips=0.1)),
        *(
            (f"bootstrap, graded, n={size}, mean={mean:g}: covered", bootstrap_covers,
             Truth(size, (), "graded", base=mean, bins=1))
            for size, mean in ((5, 0.2), (5, 0.5), (20, 0.2), (20, 0.5), (50, 0.05), (50, 0.5))
        ),
        *(
            (f"worst of 13 x {size} by bootstrap, one loses the margin: safe", bootstrap_safe_everywhere,
             one_loses((size,) * 13, MARGIN))
            for size in (40, 150)
        ),
        *(
            (f"13 x {size}, shared contexts, the margin lost: safe, {how}", found,
             all_lose((size,) * 13, MARGIN, shared=True))
            for size in (40, 100) for how, found in (("apart", contexts_apart), ("together", contexts_together))
        ),
        *(
            (f"100 examples, {k} answers as pairs, the margin lost: safe", answers_as_pairs,
             SuiteTruth((100,), ((MARGIN,),), flips=0.1, k=k))
            for k in (1, 4, 16)
        ),
        *(
            (f"20 x {size} of accuracy 0.3, chosen where full has 0.35: loss", loss_of_chosen,
             SuiteTruth((size,) * 20, ((0.0,) * 20,), base=0.3, flips=0.5))
            for size in (40, 80)
        ),
    ]  # fmt: skip
    for name, found, truth in cells:
        rng = np.random.default_rng(1337)
        print(f"  {name:<62} {sum(found(truth, rng) for _ in range(n)) / n:.3f}", flush=True)


if __name__ == "__main__":
    main()

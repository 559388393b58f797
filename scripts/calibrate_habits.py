"""What the usual habits would have said of the same simulated experiments: the reasons for docs/STATISTICS.md.

    python scripts/calibrate_habits.py [--experiments 2000]

The step rule on point means, the percentile bootstrap as a test of safety, and its coverage of one mean. Seeded.
"""

import argparse

import numpy as np
from simulated import MARGIN, Truth, answers, simulate

from analyzer.stats.bootstrap import Columns, percentile_interval, resample_means
from analyzer.stats.transition import step_drop

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--experiments", type=int, default=2000)
    n = parser.parse_args().experiments
    even = tuple(0.05 / 0.6 * (i + 1) for i in range(6))
    at_margin = (MARGIN / 0.6,)
    for name, found, truth in (
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
    ):  # fmt: skip
        rng = np.random.default_rng(1337)
        print(f"  {name:<62} {sum(found(truth, rng) for _ in range(n)) / n:.3f}", flush=True)


if __name__ == "__main__":
    main()

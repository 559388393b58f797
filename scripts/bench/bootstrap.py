"""The joint bootstrap beside scipy's: 9 budgets x 8 bins x 100 examples x 10,000 resamples, timed in one run.

    python scripts/bench/bootstrap.py [--repeats 5] [--per-bin 100] [--bins 8] [--budgets 9] [--resamples 10000]

scipy gets all budgets and bins as one [72, n] matrix in one paired call, the fastest it offers, which draws one
resample for all bins; ours draws one for each bin, and goes through the function that `kvt analyze` calls. Both make
72 percentile intervals; ours makes the means over all bins besides. Taken in turn; best = the least disturbed.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats

from analyzer.stats.bootstrap import percentile_interval
from analyzer.stats.transition import Grid
from analyzer.summarise.analyze import resample

Floats = npt.NDArray[np.float64]


def ours(grid: Grid, bins: int, resamples: int) -> list[tuple[float, float]]:
    replicates = resample(grid, range(bins), resamples, 1337)
    return [percentile_interval(replicates[b][:, i], 0.05) for b in range(bins) for i in range(len(grid.score))]


def scipys(score: Floats, resamples: int) -> object:
    """score [rows, n]: rows are resampled together, as in one paired experiment."""
    made = stats.bootstrap((score,), np.mean, n_resamples=resamples, method="percentile", axis=-1, rng=1337)
    return made.confidence_interval


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("repeats", 5), ("per-bin", 100), ("bins", 8), ("budgets", 9), ("resamples", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    n = asked.bins * asked.per_bin
    rng = np.random.default_rng(7)
    score = (rng.random((asked.budgets, n)) < 0.7).astype(np.float64)
    grid = Grid({f"b{i}": row for i, row in enumerate(score)}, np.arange(n) // asked.per_bin, np.arange(n))
    joint = score.reshape(asked.budgets * asked.bins, asked.per_bin)
    rows: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(grid, asked.bins, asked.resamples),
        "scipy, one joint call": lambda: scipys(joint, asked.resamples),
        "scipy, a call per cell": lambda: [scipys(row[None], asked.resamples) for row in joint],
    }
    for work in rows.values():  # warm-up
        work()
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(asked.repeats):
        for name, work in rows.items():
            taken[name].append(seconds(work))
    for name, found in taken.items():
        ratio = statistics.median(a / b for a, b in zip(found, taken["ours"], strict=True))
        best, least = min(found) / min(taken["ours"]), min(found)
        print(f"{name:<24} median {statistics.median(found):.3f} s {ratio:5.1f} x   best {least:.3f} s {best:5.1f} x")


if __name__ == "__main__":
    main()

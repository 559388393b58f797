"""How often the interval of a latency (analyzer/bench/figures/pooled.py) holds the true figure, under known truths.

    python scripts/bench/pooled_intervals.py --runs 2000

Truths: independent requests; a queue (latencies of one run drift: AR(1), correlation 0.9 from request to request);
runs that differ (a factor of exp(N(0, 0.1)) a run); both. The true figure is that of all requests of all runs there
could be, in closed form. Prints Markdown: coverage, share of runs with an interval, median width.
"""

import argparse
from statistics import NormalDist

import numpy as np

from analyzer.bench.figures.pooled import estimate
from analyzer.bench.figures.quantiles import LEVELS

SIGMA = 0.5  # of log latency
TRUTHS = {"independent": (0.0, 0.0), "a queue": (0.9, 0.0), "runs differ": (0.0, 0.1), "both": (0.9, 0.1)}


def a_run(rng: np.random.Generator, n: int, rho: float, between: float) -> np.ndarray:
    """[n] latencies in seconds, median 1."""
    noise = rng.standard_normal(n)
    if rho:
        for i in range(1, n):
            noise[i] = rho * noise[i - 1] + (1 - rho**2) ** 0.5 * noise[i]
    return np.exp(SIGMA * noise + between * rng.standard_normal())


def true(stat: str, between: float) -> float:
    spread = (SIGMA**2 + between**2) ** 0.5
    return float(np.exp(spread**2 / 2 if stat == "mean" else spread * NormalDist().inv_cdf(LEVELS[stat])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    print(
        "| truth | repeats x requests | figure | covered | has an interval | median width |\n|---|---|---|---|---|---|"
    )
    for truth, (rho, between) in TRUTHS.items():
        for repeats, n in ((1, 100), (1, 1000), (3, 100), (3, 500), (5, 500)):
            rng = np.random.default_rng([asked.seed, repeats, n, int(rho * 10), int(between * 100)])
            drawn = [[a_run(rng, n, rho, between) for _ in range(repeats)] for _ in range(asked.runs)]
            for stat in ("mean", "p50", "p99"):
                found = [estimate(stat, runs, 0.05) for runs in drawn]
                have = [e for e in found if e.low < e.high]
                if not have:
                    print(f"| {truth} | {repeats} x {n} | {stat} | - | 0% | - |")
                    continue
                held = np.mean([e.low <= true(stat, between) <= e.high for e in have])
                width = np.median([(e.high - e.low) / e.value for e in have])
                print(
                    f"| {truth} | {repeats} x {n} | {stat} | {held:.1%} | {len(have) / len(found):.0%} | {width:.0%} |"
                )


if __name__ == "__main__":
    main()

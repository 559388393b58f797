"""Is a server called behind where it is not, when the arrivals of an open loop come at a rate that changes?

    python scripts/bench/varying_rates.py [--runs 2000]

Traces have days, bursts and ends. Servers as in throughput.py, all of which keep up with the mean rate: `free`, with
noise, with stalls, and `fifo`, `shared` at half of what they can do, which a burst of four times the rate overtakes for
as long as it lasts. A cell fails when the exact one-sided 99.9% bound excludes 2.5% of runs called behind.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from _servers import LATENCY, Server, open_runs
from throughput import may_be

from kvt_async.contract.formulas.open_loop_throughput import KEPT_UP, LEVEL, open_loop

RATE, N = 20.0, 2000
SERVERS = {
    "free": Server(),
    "free, noise 0.2": Server(noise=0.2),
    "stalls": Server(stalls_per_latency=1, stall=0.2),
    "fifo, half": Server("fifo", 80),
    "shared, half": Server("shared", 80),
}


def intensity(kind: str, t: np.ndarray, total: float) -> np.ndarray:
    """The rate over time, any unit."""
    return {
        "constant": np.ones_like(t),
        "days": 1 + 0.8 * np.sin(2 * np.pi * t / (40 * LATENCY)),
        "bursts": np.where(t % (40 * LATENCY) < 5 * LATENCY, 4.0, 0.57),
        "rising": 0.4 + 1.2 * t / total,
        "begins in a burst": np.where(t < 8 * LATENCY, 4.0, 0.8),
        "ends in a burst": np.where(t > total - 8 * LATENCY, 4.0, 0.8),
    }[kind]


KINDS = ("constant", "days", "bursts", "rising", "begins in a burst", "ends in a burst")


class Varying:
    """A source of chance whose unit gaps are those of a Poisson process of a changing rate."""

    def __init__(self, rng: np.random.Generator, kind: str) -> None:
        self._rng, self._kind = rng, kind

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rng, name)

    def standard_exponential(self, shape: tuple[int, int]) -> np.ndarray:
        total = N / RATE
        t = np.linspace(0, total, 20_001)
        rate = intensity(self._kind, t, total)
        passed = np.concatenate(([0.0], np.cumsum((rate[1:] + rate[:-1]) / 2)))
        passed *= total / passed[-1]
        unit = np.cumsum(self._rng.standard_exponential(shape), axis=1) / RATE
        beyond = np.maximum(unit - total, 0)
        return np.diff((np.interp(unit, passed, t) + beyond) * RATE, axis=1, prepend=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print("| server | arrivals | told | share kept up with, mean | called behind | |\n|---|---|---|---|---|---|")
    for name, server in SERVERS.items():
        for kind in KINDS:
            told, behind, kept = 0, 0, 0.0
            for block in range(arguments.runs // 50):
                rng: Any = Varying(np.random.default_rng([arguments.seed, block]), kind)
                for lives in open_runs(server, RATE, N, 0, "uniform", 50, rng):
                    found = open_loop(lives)
                    if found.reason is None:
                        told, kept = told + 1, kept + found.kept_up.value
                        behind += found.kept_up.bound(LEVEL) < KEPT_UP
            fine = may_be(arguments.runs - behind, arguments.runs, 0.975)
            share = f"{kept / told:.3f}" if told else "-"
            cells = (name, kind, f"{told / arguments.runs:.0%}", share, f"{behind / arguments.runs:.2%}")
            print(f"| {' | '.join(cells)} | {'' if fine else 'FAILS'} |", flush=True)


if __name__ == "__main__":
    main()

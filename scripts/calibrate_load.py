"""Losses under load against planted truths: how often a load is called lossy, or safe, that isn't, and how often a
planted loss is found.

    OMP_NUM_THREADS=1 python scripts/calibrate_load.py                       # all tables, about 10 minutes
    python scripts/calibrate_load.py --tables errors --experiments 200       # a quick look

Seeded: the same command prints the same figures. Bar: 2.5% of experiments, judged by its one-sided 99.9% bound.

An experiment: n examples of base accuracy 0.9, asked once unloaded and `asked` times at each of five loads (1, 2, 4, 8,
16). From a load on the server answers wrongly, with a chance that rises with the load. In either arm a share of the
answers is drawn anew (sampling, batch effects), and a share of the requests fails, whatever the load; then the ladder
ends at the first load of which more than a tenth failed.
"""

import argparse
import sys
from dataclasses import dataclass
from functools import lru_cache
from math import comb, log

import numpy as np
import numpy.typing as npt

from analyzer.stats.load_losses import LoadTests, LoadVerdict, verdicts
from analyzer.stats.paired_tests import Units

LEVEL, MARGIN, SEED = 0.025, 0.05, 2026
LOADS = (1, 2, 4, 8, 16)
LOST = (LoadVerdict.BEYOND, LoadVerdict.LOSS, LoadVerdict.SMALL_LOSS)
SAFE = (LoadVerdict.SAFE, LoadVerdict.SMALL_LOSS)
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Server:
    """loss[load]: chance that an answer which would be right is wrong there; noise: share drawn anew, in either arm."""

    loss: tuple[float, ...]
    noise: float
    failing: float = 0.0
    base: float = 0.9
    stops: bool = False  # the ladder ends at the first load of which more than a tenth failed

    def arm(self, able: Floats, asked: int, loss: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Mean scores [n] of `asked` answers each, and the share of them that failed."""
        shape = (len(able), asked)
        drawn = rng.random(shape) < self.noise
        right = np.where(drawn, rng.random(shape) < self.base, able[:, None] > 0)
        failed = rng.random(shape) < self.failing
        right = right & ~failed & (rng.random(shape) >= loss)
        return right.mean(axis=1), failed.mean(axis=1)


@lru_cache(400_000)
def p_values(counts: tuple[tuple[float, int], ...]) -> LoadTests:
    """Of distinct differences and how often each occurs."""
    units = Units(np.repeat([d for d, _ in counts], [c for _, c in counts]), np.ones(sum(c for _, c in counts)))
    return LoadTests(units.p_drop_at_least(MARGIN), units.p_drop_at_most(0.0), units.p_drop_at_most(MARGIN))


def experiment(server: Server, n: int, asked: int, rng: np.random.Generator) -> list[LoadVerdict]:
    """Verdicts of the loads that were sent."""
    able = (rng.random(n) < server.base).astype(np.float64)
    unloaded, failed_unloaded = server.arm(able, 1, 0.0, rng)
    tests = []
    for loss in server.loss:
        loaded, failed = server.arm(able, asked, loss, rng)
        difference, count = np.unique(np.round(unloaded - loaded, 9), return_counts=True)
        test = p_values(tuple(zip(difference.tolist(), count.tolist(), strict=True)))
        if failed_unloaded.any():  # what failed unloaded and is answered under load hides a loss
            kept = failed_unloaded == 0
            values, counts = np.unique(np.round((unloaded - loaded)[kept], 9), return_counts=True)
            other = p_values(tuple(zip(values.tolist(), counts.tolist(), strict=True)))
            test = LoadTests(max(test.p_safe, other.p_safe), test.p_loss, test.p_beyond)
        tests.append(test)
        if server.stops and failed.mean() > 0.1:
            break
    return verdicts(tests, LEVEL, planned=len(LOADS), can_lose=True)


def bound(experiments: int, share: float = LEVEL) -> float:
    """Most false claims, as a share, that a true rate of `share` gives in 99.9% of sets of so many experiments."""
    below, k = 0.0, -1
    while below < 0.999:
        k += 1
        below += float(np.exp(_log_binomial(experiments, k, share)))
    return k / experiments


def _log_binomial(n: int, k: int, p: float) -> float:
    return log(comb(n, k)) + k * log(p) + (n - k) * log(1 - p)


def curve(first_lossy: int, most: float) -> tuple[float, ...]:
    """Nothing below the load, then rising to `most` at the highest."""
    above = [load for load in LOADS if load >= first_lossy]
    return tuple(0.0 if load < first_lossy else most * (above.index(load) + 1) / len(above) for load in LOADS)


def errors(experiments: int, ns: tuple[int, ...]) -> float:
    """False losses below the planted load, 'beyond' and 'safe' where the margin is lost; the worst share."""
    print("| examples, asked | noise, failing | planted | false loss | false beyond | false safe |")
    print("|---|---|---|---|---|---|")
    worst, limit = 0.0, bound(experiments)
    for n in ns:
        for asked in (1, 3):
            for noise, failing in ((0.0, 0.0), (0.1, 0.0), (0.3, 0.0), (0.1, 0.05)):
                for first, most in ((99, 0.0), (8, 0.4), (2, 0.4)):
                    counts = np.zeros(3)
                    rng = np.random.default_rng([SEED, n, asked, int(noise * 100), int(failing * 100), first])
                    at_margin = Server((MARGIN / 0.9 / (1 - failing),) * len(LOADS), noise, failing)
                    planted = Server(curve(first, most), noise, failing, stops=failing > 0)
                    for _ in range(experiments):
                        said = experiment(planted, n, asked, rng)
                        counts[0] += any(v in LOST for v, loss in zip(said, planted.loss, strict=False) if loss == 0)
                        if first == 99:
                            edge = experiment(at_margin, n, asked, rng)
                            counts[1] += LoadVerdict.BEYOND in edge
                            counts[2] += any(v in SAFE for v in edge)
                    shares = counts / experiments
                    worst = max(worst, float(shares.max()))
                    of_edge = [f"{share:.2%}" for share in shares[1:]] if first == 99 else ["", ""]
                    where = "nowhere" if first == 99 else f"from {first} on"
                    over = " OVER" if shares.max() > limit else ""
                    print(
                        f"| {n}, {asked} | {noise:.0%}, {failing:.0%} | {where} | {shares[0]:.2%}{over} | "
                        f"{' | '.join(of_edge)} |",
                        flush=True,
                    )
    print(f"\nworst {worst:.2%}, bound of {experiments:,} experiments at 2.5%: {limit:.2%}")
    return worst


def power(experiments: int, ns: tuple[int, ...]) -> None:
    """How often a planted loss is found at its load, at exactly its loads, and how often harmless loads are safe."""
    print("| examples, asked | noise | lost from 8 on | found at 16 | found at 8 | exactly there | 1 to 4 all safe |")
    print("|---|---|---|---|---|---|---|")
    for n in ns:
        for asked in (1, 3):
            for noise in (0.0, 0.1):
                for most in (0.1, 0.2, 0.4):
                    rng = np.random.default_rng([SEED, 1, n, asked, int(noise * 100), int(most * 100)])
                    planted = Server(curve(8, most), noise)
                    counts = np.zeros(4)
                    for _ in range(experiments):
                        said = experiment(planted, n, asked, rng)
                        lost = [verdict in LOST for verdict in said]
                        counts += [lost[4], lost[3], lost == [False, False, False, True, True],
                                   all(verdict in SAFE for verdict in said[:3])]  # fmt: skip
                    shown = " | ".join(f"{share:.0%}" for share in counts / experiments)
                    print(f"| {n}, {asked} | {noise:.0%} | {most / 2:g}, {most:g} | {shown} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default="errors,power")
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--examples", default="25,80,250")
    args = parser.parse_args()
    ns = tuple(int(text) for text in args.examples.split(","))
    worst = 0.0
    if "errors" in args.tables:
        worst = errors(args.experiments, ns)
    if "power" in args.tables:
        power(args.experiments, ns)
    return int(worst > bound(args.experiments))


if __name__ == "__main__":
    sys.exit(main())

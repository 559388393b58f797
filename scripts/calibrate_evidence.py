"""Two claims of the first screen under known truths: 'safe at every length', and a canary that is overruled.

    python scripts/calibrate_evidence.py           # a quarter of a minute

Seeded: the same command prints the same figures. Both claims have a bar of 2.5%.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from analyzer.read.drift import sign_p
from analyzer.stats.paired_tests import Units

MARGIN, LEVEL, SEED = 0.05, 0.025, 7
BUDGETS = (0.8, 0.5)
Ints = npt.NDArray[np.int64]


@cache
def p_safe(n: int, worse: int, better: int) -> float:
    """The product's test of "loses less than the margin", of `n` pairs of equal weight."""
    drop = np.concatenate([np.ones(worse), -np.ones(better), np.zeros(n - worse - better)])
    return Units.of(drop, np.arange(n), np.zeros(n, dtype=np.int64)).p_drop_at_least(MARGIN)


def safe_budget(drops: list[Ints]) -> float:
    """The smallest budget proven safe from the top down; 1: none. `drops` of one bin or of all, a row per budget."""
    safe = 1.0
    for budget, drop in zip(BUDGETS, drops, strict=True):
        if p_safe(len(drop), int((drop > 0).sum()), int((drop < 0).sum())) > LEVEL:
            break
        safe = budget
    return safe


def every_length(n: int, at_margin: int, flips: float, rng: np.random.Generator, *, bins: int = 5) -> tuple[bool, bool]:
    """(said, false) of one experiment: `at_margin` of its bins lose exactly the margin at the lowest budget."""
    drops = []
    for b in range(bins):
        losses = (flips / 2, flips / 2 + (MARGIN if b < at_margin else 0.0))
        drawn = [(rng.random(n), loss) for loss in losses]
        drops.append([np.where(u < loss, 1, np.where(u < loss + flips / 2, -1, 0)) for u, loss in drawn])
    mean = safe_budget([np.concatenate([one[i] for one in drops]) for i in range(len(BUDGETS))])
    said = mean < 1 and all(safe_budget(one) <= mean for one in drops)
    return said, said and at_margin > 0 and mean <= BUDGETS[-1]


def overruled(n: int, share: float, experiments: int, rng: np.random.Generator) -> float:
    """How often a canary is overruled by noise: answers change alike in both arms, hard examples in both."""
    chance = np.where(rng.random((experiments, n)) < 0.5, min(1.0, 1.8 * share), 0.2 * share)
    here, again = rng.random((experiments, n)) < chance, rng.random((experiments, n)) < chance
    more, less = (here & ~again).sum(axis=1), (again & ~here).sum(axis=1)
    p = {pair: sign_p(*pair) for pair in {(int(a), int(b)) for a, b in zip(more, less, strict=True)}}
    return float(np.mean([p[int(a), int(b)] <= LEVEL for a, b in zip(more, less, strict=True)]))


def main() -> None:
    rng = np.random.default_rng(SEED)
    print("| n per bin | bins at the margin | flips | said | false |\n|---:|---:|---:|---:|---:|")
    for n in (80, 150, 400):
        for at_margin in (0, 1, 5):
            for flips in (0.0, 0.05):
                found = np.array([every_length(n, at_margin, flips, rng) for _ in range(2000)])
                said, false = found.mean(axis=0)
                print(f"| {n} | {at_margin} of 5 | {flips:g} | {said:.0%} | {false:.2%} |", flush=True)
    print("\n| answers | changed in either arm | overruled by noise |\n|---:|---:|---:|")
    for n in (20, 100, 400):
        for share in (0.02, 0.1, 0.5):
            print(f"| {n} | {share:.0%} | {overruled(n, share, 20_000, rng):.2%} |", flush=True)


if __name__ == "__main__":
    main()

"""Calibration of what enters the tests: unequal bins, contexts that lie in several, failures, pending requests.

Tables of scripts/calibrate.py; each cell here once was outside of its bar.
"""

from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
from simulated import ALPHA, MARGIN, Flips, Floats, Ints, Row, covered, error

from analyzer.stats.transition import Grid, against_full
from analyzer.summarise.bin_stats import accuracy_interval, bin_weights
from analyzer.summarise.guessing_floor import Floors, headroom, partners


def _safe(score: dict[str, Floats], bin_idx: Ints, cluster: Ints, failed: dict[str, np.ndarray] | None = None) -> bool:
    grid = Grid(score, bin_idx, cluster, failed or {})
    return against_full(grid, "full", "b0", 0.5, -1, margin=MARGIN, alpha=None).p_safe <= ALPHA / 2


def straddling(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """False safe where contexts of 8 questions lie across the edge of a short bin that holds a tenth of them."""
    edge = NormalDist().inv_cdf(0.1) * (1 + 0.3**2) ** 0.5
    for contexts in (300, 1000, 3000):
        rng, n = np.random.default_rng([seed, contexts]), max(50, experiments // (contexts // 100))
        cluster, hits = np.repeat(np.arange(contexts), 8), 0
        for _ in range(n):
            length = rng.normal(0, 1, contexts)[cluster] + rng.normal(0, 0.3, len(cluster))
            bin_idx = (length > edge).astype(int)
            run = Flips(rng, np.full(len(cluster), 0.6), 0.05)
            lost = rng.random(len(cluster)) < np.array([2 * MARGIN / 0.6, 0.0])[bin_idx]  # all in the short bin
            hits += _safe({"full": run.draw(), "b0": np.where(lost, 0.0, run.draw())}, bin_idx, cluster)
        yield error(f"{contexts} contexts of 8, all lost in the short bin", "false safe", hits / n, n)


UNEQUAL = {
    "5/50/50/50/50 at .5/.02": ((5, 50, 50, 50, 50), (0.5, 0.02, 0.02, 0.02, 0.02)),
    "2/5/20/80/200 at .9": ((2, 5, 20, 80, 200), (0.9,) * 5),
    "2/5/20/80/200 at .5": ((2, 5, 20, 80, 200), (0.5,) * 5),
    "5/5/5/5/5 at .98": ((5,) * 5, (0.98,) * 5),
    "3/97 at .95": ((3, 97), (0.95, 0.95)),
    "10/10/10/10/200 at .98": ((10, 10, 10, 10, 200), (0.98,) * 5),
    "50/50/50/50/50 at .6": ((50,) * 5, (0.6,) * 5),
}


def unequal(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """95% intervals of the mean over bins of unequal size."""
    for kind in ("binary", "graded"):
        for name, (size, chances) in UNEQUAL.items():
            rng, hit = np.random.default_rng([seed, *size]), 0
            bin_idx = np.repeat(np.arange(len(size)), size)
            weight, chance, truth = bin_weights(bin_idx), np.array(chances)[bin_idx], float(np.mean(chances))
            for _ in range(experiments):
                score = (rng.random(len(chance)) < chance).astype(float)
                if kind == "graded":
                    partly = rng.beta(4 * chance, 4 * (1 - chance))
                    score = np.where(rng.random(len(chance)) < 0.3, partly, score)
                low, high, _ = accuracy_interval(score, weight, np.arange(len(score)), ALPHA, bin_idx)
                hit += low is not None and high is not None and low - 1e-9 <= truth <= high + 1e-9
            yield covered(f"{kind} {name}", hit / experiments, experiments, 0.92)


def heavy(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """95% intervals of a mean where one context in ten has 30 questions, answered alike (correlation .9)."""
    for contexts in (30, 100):
        for mean in (0.5, 0.9):
            rng, hit = np.random.default_rng([seed, contexts]), 0
            n = max(100, experiments // 4)
            for _ in range(n):
                size = np.where(rng.random(contexts) < 0.1, 30, 1)
                cluster = np.repeat(np.arange(contexts), size)
                chance = rng.beta(mean / 9, (1 - mean) / 9, contexts)[cluster]
                score = (rng.random(len(cluster)) < chance).astype(float)
                low, high, _ = accuracy_interval(score, np.full(len(score), 1 / len(score)), cluster, ALPHA)
                hit += low is not None and high is not None and low <= mean <= high
            yield covered(f"{contexts} contexts, mean {mean:g}", hit / n, n, 0.92)


def failures(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """False safe where answers lose 0.08 and full cache, not the budget, fails some requests."""
    for n in (100, 250, 1000):
        for share in (0.02, 0.05, 0.1):
            rng, hits = np.random.default_rng([seed, n]), 0
            for _ in range(experiments):
                run, gone = Flips(rng, np.full(n, 0.9), 0.02), rng.random(n) < share
                score = {
                    "full": np.where(gone, 0.0, run.draw()),
                    "b0": np.where(rng.random(n) < 0.08 / 0.9, 0.0, run.draw()),
                }
                hits += _safe(score, np.arange(n) * 5 // n, np.arange(n), {"full": gone})
            yield error(f"n={n}, {share:.0%} fail at full cache", "false safe", hits / experiments, experiments)


def pending(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """False safe at a drop of the margin where 30% of the lost answers, and none else, are still pending."""
    for n in (100, 250, 1000):
        rng, hits = np.random.default_rng([seed, n]), 0
        for _ in range(experiments):
            run, lost = Flips(rng, np.full(n, 0.9), 0.0), rng.random(n) < MARGIN / 0.9
            here = np.where(lost, 0.0, run.draw())
            here[lost & (rng.random(n) < 0.3)] = np.nan
            hits += _safe({"full": run.draw(), "b0": here}, np.arange(n) * 5 // n, np.arange(n))
        yield error(f"n={n}", "false safe", hits / experiments, experiments)


def floor(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """At a floor, and where the headroom is the margin: false safe of a budget that changes 5% of answers; and how
    often `nothing to lose` is said, also where full cache stands 0.23 or 0.3 above its floor."""
    popular = (0.7, 0.1, 0.1, 0.1)
    cells = {
        "4 choices, guessing": ((0.25,) * 4, 0.0),
        "4 choices, one popular, guessing": (popular, 0.0),
        "50 answers, guessing": ((0.02,) * 50, 0.0),
        "4 choices, headroom 0.05": ((0.25,) * 4, MARGIN / 0.75),
        "50 answers, headroom 0.05": ((0.02,) * 50, MARGIN / 0.98),
        "4 choices, headroom 0.23": ((0.25,) * 4, 0.3),
        "50 answers, headroom 0.3": ((0.02,) * 50, 0.306),
    }
    for n in (25, 100, 400):
        for name, (law, skill) in cells.items():
            rng, safe, nothing = np.random.default_rng([seed, n, len(law)]), 0, 0
            bin_idx, cluster = np.arange(n) * 5 // n, rng.permutation(n)
            partner, total = partners(bin_idx, cluster), max(40, experiments // 2)
            for _ in range(total):
                gold, guess, other = (rng.choice(len(law), n, p=law) for _ in range(3))
                full = np.where(rng.random(n) < skill, gold, guess)
                here = np.where(rng.random(n) < 0.05, other, full)
                grid = Grid(
                    {"full": (full == gold).astype(float), "b0": (here == gold).astype(float)}, bin_idx, cluster
                )
                below = Floors((full == gold[partner]).astype(float), np.full(n, np.nan))
                room = headroom(grid, "full", below, -1, margin=MARGIN, alpha=ALPHA)
                if room is None:
                    continue
                nothing += room.doubtful
                if room.shown(ALPHA / 2):
                    safe += _safe(grid.score, bin_idx, cluster)
            if skill < 0.1:
                yield error(f"n={n}, {name}", "false safe", safe / total, total)
            yield f"n={n}, {name}", "nothing to lose", nothing / total, ""


TABLES = (straddling, unequal, heavy, failures, pending, floor)

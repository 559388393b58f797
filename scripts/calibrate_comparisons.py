"""Series against series: how often is a difference claimed that isn't there? Tables of scripts/calibrate.py."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from simulated import ALPHA, Flips, Row, error

from analyzer.stats.holm import holm_by_family
from analyzer.stats.transition import Grid, pair

BASE, LOST = 0.8, (0.0, 0.1, 0.3, 0.6)  # of full cache's answers, at each budget


def false_differences(experiments: int, seed: int, sizes: Sequence[int]) -> Iterator[Row]:
    """Any difference claimed between series of one truth, over all budgets: of the first series, and of the others."""
    for n in [size for size in sizes if 15 <= size <= 80]:
        for flips in (0.3, 1.0):
            for n_worse in (0, 1):  # series that are truly worse: their differences are real, and not counted
                rng = np.random.default_rng([seed, n, n_worse])
                found = [_claimed(rng, n, flips, n_series=4, n_worse=n_worse) for _ in range(experiments)]
                where = f"n={n} flips={flips:g}, 4 series, {n_worse} worse"
                for who, is_first in (("first", True), ("others", False)):
                    rate = sum(any(of == is_first for of in claimed) for claimed in found) / experiments
                    yield error(where, f"false, {who}", rate, experiments, bar=ALPHA)


def _claimed(rng: np.random.Generator, n: int, flips: float, *, n_series: int, n_worse: int) -> list[bool]:
    """The false claims of one experiment: whether each is about the first series."""
    score = {}
    for budget, lost in enumerate(LOST):
        same = Flips(rng, np.full(n, BASE * (1 - lost)), flips)
        worse = Flips(rng, np.full(n, BASE * (1 - lost) / 2), flips)
        for series in range(n_series):
            score[f"{series} {budget}"] = (worse if series >= n_series - n_worse else same).draw()
    grid = Grid(score, np.zeros(n, dtype=np.int64), np.arange(n))
    places = [(a, b, budget) for a, b in combinations(range(n_series), 2) for budget in range(len(LOST))]
    adjusted = holm_by_family([_p(grid, *place) for place in places], [a == 0 for a, *_ in places])
    return [a == 0 for (a, b, _), p in zip(places, adjusted, strict=True) if p < ALPHA and b < n_series - n_worse]


def _p(grid: Grid, a: int, b: int, budget: int) -> float:
    units, _ = pair(grid, f"{a} {budget}", f"{b} {budget}", -1)
    return min(1.0, 2 * min(units.p_drop_at_most(0.0), units.p_drop_at_least(0.0)))


TABLES = (false_differences,)

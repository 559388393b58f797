"""Do answers grow? The mean length here over that at full cache, with an interval that holds for rare long answers too.

Lengths have long tails, so neither a bootstrap nor the delta method on the log scale keeps its level (one answer in
fifty that repeats itself until it is cut decides the mean). What is tested instead, for each ratio r, is whether the
mean of here - r x full can be 0 (Fieller 1954): Student's t over contexts, with the largest difference that was seen
counted once more, and never less than a context whose answers are twice as long as the mean. All r that aren't rejected
form the interval. scripts/calibrate_outcomes.py measures it.
"""

from dataclasses import dataclass
from math import erfc, exp, log, log1p, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FEWEST_CONTEXTS = 5  # equally weighted ones: with fewer the spread is itself a guess
_WIDEST = log(1000.0)  # an interval that reaches farther than this factor says nothing


@dataclass(frozen=True)
class LengthRatio:
    """Mean lengths, their ratio, its interval, and the p value of "the ratio is 1"; None: not known."""

    full: float
    here: float
    ratio: float | None
    low: float | None
    high: float | None
    p: float | None


def length_ratio(full: Floats, here: Floats, cluster: Ints, weight: Floats, alpha: float) -> LengthRatio:
    """Of lengths full [n] and here [n] of the same examples; cluster [n] numbers contexts, weight [n] sums to 1.

    There is no interval and no p value with fewer than FEWEST_CONTEXTS contexts or a mean of 0. An end is None, too,
    where the interval is open on that side.
    """
    parts = [np.bincount(cluster, weights=weight * each) for each in (np.ones(len(full)), full, here)]
    test = _RatioTest(*(part[parts[0] > 0].astype(np.float64) for part in parts))
    mean_full, mean_here = test.mean_full, test.mean_here
    if not mean_full > 0:
        return LengthRatio(mean_full, mean_here, None, None, None, None)
    ratio = mean_here / mean_full
    if not mean_here > 0 or test.contexts < FEWEST_CONTEXTS:
        return LengthRatio(mean_full, mean_here, ratio, None, None, None)
    low, high = (test.bound(ratio, alpha, side) for side in (-1.0, 1.0))
    return LengthRatio(mean_full, mean_here, ratio, low, high, test.p(1.0))


class _RatioTest:
    """Tests of single ratios over contexts: share of each [k], its part of the mean length at full cache and here."""

    def __init__(self, share: Floats, full: Floats, here: Floats) -> None:
        self.full, self.here = full, here
        self.mean_full, self.mean_here = float(full.sum()), float(here.sum())
        self.contexts = 1 / float(np.sum(share**2))  # equally weighted ones that they are worth (Kish 1965)
        own_full, own_here = full - share * self.mean_full, here - share * self.mean_here
        self.squares = float(own_here @ own_here), float(own_here @ own_full), float(own_full @ own_full)
        self.least = float(share.max()) * self.mean_here
        self.outer_full, self.outer_here = _outermost(full, here)

    def z(self, ratio: float) -> float:
        """The statistic of "here - ratio x full is 0 on average", as a standard normal value."""
        k = len(self.full)
        largest = max(self.least, float(np.max(np.abs(self.outer_here - ratio * self.outer_full))))
        of_here, of_both, of_full = self.squares
        square = max(0.0, of_here - 2 * ratio * of_both + ratio**2 * of_full) + largest**2
        return normal_of_t((self.mean_here - ratio * self.mean_full) / sqrt(square * k / (k - 1)), self.contexts - 1)

    def p(self, ratio: float) -> float:
        """Two-sided."""
        return erfc(abs(self.z(ratio)) / sqrt(2))

    def bound(self, ratio: float, alpha: float, side: float) -> float | None:
        """Where the interval ends below (side -1) or above `ratio`; None: it does not."""
        target = NormalDist().inv_cdf(1 - alpha / 2)
        inside, outside = 0.0, side * _WIDEST
        if abs(self.z(ratio * exp(outside))) <= target:
            return None
        while abs(outside - inside) > 1e-9:
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if abs(self.z(ratio * exp(middle))) <= target else (inside, middle)
        return ratio * exp(inside)


def _outermost(full: Floats, here: Floats) -> tuple[Floats, Floats]:
    """The pairs among which the largest |here - ratio x full| is found, whatever the ratio above 0: those that no other
    pair exceeds in one and falls short of in the other."""
    order = np.lexsort((-here, full))
    rising, beside = full[order], here[order]
    most = np.concatenate([[-np.inf], np.maximum.accumulate(beside)[:-1]])
    least = np.concatenate([np.minimum.accumulate(beside[::-1])[::-1][1:], [np.inf]])
    outer = (beside > most) | (beside < least)
    return rising[outer], beside[outer]


def normal_of_t(t: float, freedom: float) -> float:
    """The standard normal value that is as rare as Student's t, to 0.02 from 4 degrees on (Wallace 1959)."""
    size = (8 * freedom + 1) / (8 * freedom + 3) * sqrt(freedom * log1p(t * t / freedom))
    return size if t > 0 else -size

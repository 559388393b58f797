"""Tests and bounds for a mean of paired differences that hold in small samples: the ground under every verdict.

The claim "on average the score drops by less than m" is tested by asking how much the data could hide. One imagined
observation is added at the worst value that a score allows, then every observation (it included) gets a random
weight, exponential and independent: a Bayesian bootstrap with a worst case in the bag. The share of weightings under
which the claim fails is the p value (Gaffke 2005; Learned-Miller and Thomas 2020). For pairs of 0/1 scores it equals
the exact McNemar test at m = 0, and for losses alone the exact binomial (Clopper-Pearson) test: n pairs without a loss
give (1 - m) ** n, so about 72 of them prove m = 0.05 at 2.5%. For other bounded scores its validity is conjectured,
not proven; scripts/calibrate.py measures it. It needs no random draws: a weighted sum of exponentials has a known
characteristic function, inverted here on fixed nodes (Imhof 1961), so the same data give the same digits everywhere.

Clusters (examples that share a context) enter as one unit, the weighted mean of their differences; bins weigh equally.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

METHOD = "one worst-case pseudo-observation, exponential weights, exact inversion"
_TOO_MANY = 512  # distinct unit values beyond which they are split between the points of a grid
_GRID = 257
_FEW = 8
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Units:
    """Independent units (clusters) of one comparison.

    drop: [k] mean paired difference of each unit, in [-1, 1]; weight: [k] mean 1, how much each counts for the
    equal-weight mean of the bins. A context whose questions lie in several bins is one unit: its examples count as much
    as their own bins make them, within its drop and for its weight.
    """

    drop: Floats
    weight: Floats
    lowest: float = -1.0  # the least that a drop can be

    @classmethod
    def of(cls, drop: Floats, cluster: Ints, bin_idx: Ints, task: Ints | None = None) -> "Units":
        """Units of per-example differences [n]; `cluster` numbers each example's context, `bin_idx` its bin.

        `task` [n], where given, numbers its task: tasks weigh equally, and the bins within one. A bin belongs to one.
        """
        if not len(drop):
            return cls(np.empty(0), np.empty(0))
        return cls.weighted(drop, cluster, equal_shares(bin_idx, task))

    @classmethod
    def weighted(cls, drop: Floats, cluster: Ints, weight: Floats) -> "Units":
        """The same where each example's share of the mean is given: weight [n], which sums to 1."""
        share = np.bincount(cluster, weights=weight).astype(np.float64)
        unit = np.flatnonzero(share)
        mean = np.bincount(cluster, weights=weight * drop)[unit] / share[unit]
        return cls(mean, share[unit] * len(unit))

    @cached_property
    def mean(self) -> float:
        return float(np.average(self.drop, weights=self.weight)) if len(self.drop) else float("nan")

    @property
    def kish(self) -> float:
        """How many equally weighted units the weights are worth (Kish 1965): k where all are equal."""
        return float(len(self.drop) / np.mean(self.weight**2)) if len(self.drop) else 0.0

    def hidden(self, m: float, worth: Floats | float = 1.0) -> float:
        """-log of p_drop_at_least(m), were no unit to have lost or gained anything: what the sizes alone could prove.

        It grows with the number of units; more of the same kind multiply it. `worth` [k]: each unit's mean at full
        cache, where the margin is relative to it.
        """
        if not len(self.drop):
            return 0.0
        return float(np.sum(np.log1p(m / (1 - m) * worth * self.weight / self.weight.max())))

    @cached_property
    def grouped(self) -> tuple[Floats, Floats, Floats]:
        """Distinct (drop, weight) pairs and how often each occurs: [g], [g], [g]."""
        drop, weight = np.round(self.drop, 12), np.round(self.weight, 12)
        if np.ptp(weight) == 0:
            distinct, count = np.unique(drop, return_counts=True)
            return distinct, np.full(len(distinct), weight[0]), count.astype(np.float64)
        both, count = np.unique(drop + 1j * weight, return_counts=True)  # complex numbers sort as pairs do
        return both.real, both.imag, count.astype(np.float64)

    def p_drop_at_least(self, m: float) -> float:
        """p value of "the mean drop is m or more": small = proven smaller than m. 1.0 without units."""
        return self._p(m, sign=1.0)

    def p_drop_at_most(self, m: float) -> float:
        """p value of "the mean drop is m or less": small = proven larger than m. 1.0 without units."""
        return self._p(m, sign=-1.0)

    def interval(self, alpha: float) -> tuple[float, float]:
        """Two-sided confidence interval of the mean drop: all m that neither one-sided test at alpha/2 rejects."""
        if not len(self.drop):
            return float("nan"), float("nan")
        target = _NORMAL.inv_cdf(alpha / 2)
        step, worst = self._first_guess(target)
        near = self.mean - 0.8 * step
        below = [-1.0, max(-1.0, self.mean - 1.5 * step - 2 * worst), near if near > -1 else (self.mean - 1) / 2]
        return _root(lambda m: _probit(self.p_drop_at_most(m)) - target, below), self.upper(alpha / 2)

    def upper(self, level: float) -> float:
        """One-sided confidence bound: the least m that "the mean drop is m or more" is rejected at `level`."""
        if not len(self.drop):
            return float("nan")
        target = _NORMAL.inv_cdf(level)
        step, worst = self._first_guess(target)
        near = self.mean + 0.8 * step
        above = [1.0, min(1.0, self.mean + 1.5 * step + 2 * worst), near if near < 1 else (self.mean + 1) / 2]
        return _root(lambda m: _probit(self.p_drop_at_least(m)) - target, above)

    def _first_guess(self, target: float) -> tuple[float, float]:
        """How far a bound lies from the mean; on the normal scale p is nearly a straight line in m: few steps more."""
        step = -target * self._spread / len(self.drop) ** 0.5 + 1e-3
        return step, 2 * float(self.weight.max()) / len(self.drop)

    @cached_property
    def _spread(self) -> float:
        return float(np.std(self.drop * self.weight))

    @cached_property
    def _few(self) -> tuple[list[tuple[float, float]], tuple[float, ...]] | None:
        """(drop, weight) of `grouped` and how often they occur, where they are few: then numpy takes longer to start
        than to compute. None: there are more."""
        drop, weight, count = self.grouped
        return (
            (list(zip(drop.tolist(), weight.tolist(), strict=True)), tuple(count.tolist()))
            if len(drop) <= _FEW
            else None
        )

    @cached_property
    def _largest(self) -> float:
        return float(self.grouped[1].max())

    def _p(self, m: float, *, sign: float) -> float:
        """sign +1: the null hypothesis is drop >= m; -1: drop <= m."""
        if not len(self.drop):
            return 1.0
        worst = self._largest * (1.0 - m if sign > 0 else m - self.lowest)
        if self._few is not None:  # 0/1 scores: the same handful of counts comes back in many bins and budgets
            pairs, counts = self._few
            return _of_few((*(sign * weight * (drop - m) for drop, weight in pairs), worst), (*counts, 1.0))
        drop, weight, count = self.grouped
        units = sign * weight * (drop - m)
        if len(units) > _TOO_MANY:
            units, count = _on_grid(units, count)
        return weighted_exponentials_positive(np.append(units, worst), np.append(count, 1.0))


def equal_shares(bin_idx: Ints, task: Ints | None = None) -> Floats:
    """Shares [n], which sum to 1, of a mean where tasks, the bins of a task and the examples of a bin weigh equally."""
    in_bin = np.bincount(bin_idx)  # small whole numbers: counting beats sorting
    if task is None:
        return np.asarray(1.0 / (np.count_nonzero(in_bin) * in_bin[bin_idx]))
    task_of_bin = np.zeros(len(in_bin), dtype=np.int64)
    task_of_bin[bin_idx] = task
    bins = np.bincount(task_of_bin[in_bin > 0])
    return np.asarray(1.0 / (np.count_nonzero(bins) * bins[task] * in_bin[bin_idx]))


def _on_grid(value: Floats, count: Floats) -> tuple[Floats, Floats]:
    """Split each value between its two neighbours on a grid so that its mean stays: spreads a little, never narrows."""
    grid = np.linspace(value.min(), value.max(), _GRID)
    at = np.clip(np.searchsorted(grid, value, side="right") - 1, 0, _GRID - 2)
    share = (value - grid[at]) / (grid[at + 1] - grid[at])
    split = np.bincount(at, count * (1 - share), _GRID) + np.bincount(at + 1, count * share, _GRID)
    return grid, np.asarray(split, dtype=np.float64)


@lru_cache(maxsize=50_000)
def _of_few(value: tuple[float, ...], count: tuple[float, ...]) -> float:
    return weighted_exponentials_positive(np.array(value), np.array(count))


def weighted_exponentials_positive(value: Floats, count: Floats) -> float:
    """P(sum of count_j exponentials, each times value_j, >= 0), to about 1e-9."""
    if not np.any(value > 0):
        return 1.0 if not np.any(value < 0) else 0.0
    if not np.any(value < 0):
        return 1.0
    scale = float(np.sqrt(np.sum(count * value**2)))
    lam = value / scale
    mean = float(np.sum(count * lam))
    if abs(mean) > 40:  # forty standard deviations: nothing left to compute
        return 1.0 if mean > 0 else 0.0
    node, weight, edge = _nodes()
    decay = 0.5 * (count @ np.log1p(np.square(np.outer(lam, edge))))
    last = int(np.searchsorted(decay, 40.0)) + 1  # beyond it the integrand is below 1e-17
    node, weight = node[: last * _PER_PANEL], weight[: last * _PER_PANEL]
    lam_t = np.outer(lam, node)
    angle = count @ np.arctan(lam_t)
    log_size = 0.5 * (count @ np.log1p(np.square(lam_t)))
    integral = float(np.sum(weight * np.sin(angle) * np.exp(-log_size) / node))
    return min(1.0, max(0.0, 0.5 + integral / np.pi))


def each_positive(value: Floats, counts: Ints) -> Floats:
    """`weighted_exponentials_positive` of one value [g] and many counts [n, g]: [n], each to about 1e-9.

    What the values alone decide is computed once for all counts whose sums spread about alike (within a factor of 2).
    """
    counts = counts.astype(np.float64)
    mean, scale = counts @ value, np.sqrt(counts @ value**2)
    positive = np.where(mean > 0, 1.0, 0.0)  # of those that lie forty standard deviations away
    above, below = (counts @ (side * value > 0) > 0 for side in (1, -1))
    positive[~below], positive[~above & below] = 1.0, 0.0
    open_ones = np.flatnonzero(above & below & (np.abs(mean) <= 40 * scale))
    octave = np.floor(np.log2(scale[open_ones]))
    for one in np.unique(octave):
        rows = open_ones[octave == one]
        positive[rows] = _inverted(value / scale[rows].max(), counts[rows])
    return positive


def _inverted(lam: Floats, counts: Floats) -> Floats:
    """P(sum >= 0) [n] of counts [n, g] of exponentials times lam [g], whose sums have spreads from 1/2 to 1."""
    node, weight, edge = _nodes()
    decay = 0.5 * (counts @ np.log1p(np.square(np.outer(lam, edge)))).min(axis=0)
    last = (int(np.searchsorted(decay, 40.0)) + 1) * _PER_PANEL
    lam_t = np.outer(lam, node[:last])
    angle, log_size = counts @ np.arctan(lam_t), 0.5 * (counts @ np.log1p(np.square(lam_t)))
    integral = (np.sin(angle) * np.exp(-log_size)) @ (weight[:last] / node[:last])
    return np.asarray(np.clip(0.5 + integral / np.pi, 0.0, 1.0))


_PER_PANEL = 12


@lru_cache(maxsize=1)
def _nodes() -> tuple[Floats, Floats, Floats]:
    """Gauss-Legendre nodes and weights on panels of (0, 1e7): narrow at first, then growing; and the panels' ends."""
    edge = np.concatenate([np.linspace(0, 10, 41), 10 * 1.5 ** np.arange(1, 36)])
    x, w = np.polynomial.legendre.leggauss(_PER_PANEL)
    half, middle = np.diff(edge) / 2, (edge[1:] + edge[:-1]) / 2
    return (middle[:, None] + half[:, None] * x).ravel(), (half[:, None] * w).ravel(), edge[1:]


def _probit(p: float) -> float:
    return _NORMAL.inv_cdf(min(1 - 1e-12, max(1e-12, p)))


def _root(f: Callable[[float], float], points: list[float]) -> float:
    """Where the monotone f changes sign, to 1e-7 (Illinois), between the outermost point and two guesses nearer.

    f < 0 at the outermost point; where it isn't (nothing is rejected), that point.
    """
    outer, middle, inner = points
    f_outer, f_inner = f(middle), f(inner)
    low, f_low, high, f_high = middle, f_outer, inner, f_inner
    if f_low > 0:  # the guess lies too near
        low, f_low = outer, f(outer)
        if f_low >= 0:
            return outer
    while f_high < 0:  # or too far
        low, f_low = high, f_high
        high = high + (high - outer) * 0.25
        if abs(high) >= 1:
            return float(np.clip(high, -1, 1))
        f_high = f(high)
    for _ in range(60):
        middle = high - f_high * (high - low) / (f_high - f_low)
        f_middle = f(middle)
        if f_middle * f_high < 0:
            low, f_low = high, f_high
        else:
            f_low /= 2
        high, f_high = middle, f_middle
        if abs(high - low) < 1e-7 or abs(f_high) < 1e-7:
            break
    return high

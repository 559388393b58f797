"""One figure of a latency per load: its repeats' requests pooled, with an interval that knows that they are not
independent.

Three repeats or more: the logarithms of the repeats' own figures have Student's interval, and the pooled figure gets
its width. Fewer: a percentile's interval is read off the order statistics (exact binomial) as if there were fewer
requests than there are; what they are worth shows in how much the share below the percentile differs between G
stretches of time, four to ten of a run, of 20 requests at least. If the G shares deviate by s, the share is known to
t(G - 1) s / sqrt(G), and n independent requests would know it to z sqrt(q (1 - q) / n): the n that makes both equal is
taken, and never more than there are. A mean has Student's interval of its stretches, on a logarithmic scale.

No interval reaches below 0. There is none where all values are one, and none for a percentile of which even
independent requests of that number could not tell both ends (p99: 368). Coverage: scripts/bench/pooled_intervals.py.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from analyzer.bench.figures.distributions import binomial_quantile, t_quantile
from analyzer.bench.figures.quantiles import LEVELS, Floats, summarise
from analyzer.bench.figures.spread import FEWEST_REPEATS, OVER_REPEATS, WITHIN, Estimate

STRETCHES = 10
FEWEST_IN_STRETCH, FEWEST_STRETCHES = 20, 4


def estimate(stat: str, repeats: Sequence[Floats], alpha: float, *, independent: bool = True) -> Estimate:
    """`stat` (mean | p50 | ... | max) of all repeats' values together; each array in the order of the schedule, without
    NaN. `independent` False (gaps of replies): no interval within a run, where one reply gives many values."""
    pooled = np.concatenate([np.empty(0), *repeats])
    value = summarise(pooled).stat(stat)
    over = len(repeats) >= FEWEST_REPEATS
    method = OVER_REPEATS if over else WITHIN
    none = Estimate(value, math.nan, math.nan, method)
    if stat == "max" or not value > 0 or not (over or independent):  # no sample says how bad the worst may be
        return none
    if stat in LEVELS and not _can_tell(len(pooled), LEVELS[stat], alpha):
        return none
    groups = [values for values in (repeats if over else _stretches(repeats)) if len(values)]
    if not over and len(groups) < FEWEST_STRETCHES:
        return none
    if over or stat == "mean":
        low, high = _about(value, [summarise(values).stat(stat) for values in groups], alpha)
    else:
        low, high = _quantile(pooled, groups, value, LEVELS[stat], alpha)
    return Estimate(value, low, high, method) if low < high else none


def _can_tell(n: int, q: float, alpha: float) -> bool:
    """Whether order statistics of n independent values hold their q-quantile from both sides."""
    return binomial_quantile(alpha / 2, n, q) >= 1 and binomial_quantile(1 - alpha / 2, n, q) < n


def _stretches(repeats: Sequence[Floats]) -> list[Floats]:
    stretches: list[Floats] = []
    for values in repeats:
        n = max(1, min(STRETCHES, len(values) // FEWEST_IN_STRETCH))
        stretches += np.array_split(values, n)
    return stretches


def _about(value: float, figures: Sequence[float], alpha: float) -> tuple[float, float]:
    """`value` with the width of Student's interval of the logarithms of its groups' own figures."""
    if len(figures) < 2 or min(figures) <= 0:
        return math.nan, math.nan
    half = t_quantile(1 - alpha / 2, len(figures) - 1) * np.log(figures).std(ddof=1) / math.sqrt(len(figures))
    return value * math.exp(-half), value * math.exp(half)


def _quantile(pooled: Floats, groups: Sequence[Floats], value: float, q: float, alpha: float) -> tuple[float, float]:
    n, n_worth = len(pooled), worth(groups, value, q, alpha)
    ordered = np.sort(pooled)
    low = binomial_quantile(alpha / 2, n_worth, q)  # of 1..n_worth; at most alpha/2 below it
    high = binomial_quantile(1 - alpha / 2, n_worth, q) + 1
    below = float(ordered[max(low * n // n_worth, 1) - 1]) if low >= 1 else math.nan
    above = float(ordered[-(-high * n // n_worth) - 1]) if high <= n_worth else math.nan
    return below, above


def worth(groups: Sequence[Floats], value: float, q: float, alpha: float) -> int:
    """How many independent requests these are worth for the share of them below `value`; at most as many as there
    are."""
    n = sum(len(values) for values in groups)
    if len(groups) < 2:
        return n
    shares = np.array([(values <= value).mean() for values in groups])
    half = t_quantile(1 - alpha / 2, len(groups) - 1) * shares.std(ddof=1) / math.sqrt(len(groups))
    if half == 0:
        return n
    z = NormalDist().inv_cdf(1 - alpha / 2)
    return int(np.clip(q * (1 - q) * (z / half) ** 2, 1, n))

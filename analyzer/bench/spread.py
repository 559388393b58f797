"""How sure: confidence intervals of a stage's figures, within one run and over repeats.

With three repeats or more, the repeats themselves are the sample (Student's t): only they know how runs differ. With
one or two, time inside the run is the sample: rates from batch means, percentiles from the order statistics of
requests. Those intervals say nothing about another run on another day, and are labelled `within run`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analyzer.bench.distributions import binomial_quantile, t_quantile

Floats = npt.NDArray[np.float64]
FEWEST_REPEATS = 3
OVER_REPEATS, WITHIN = "over repeats", "within run"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval; NaN bounds where nothing can be said."""

    value: float
    low: float
    high: float
    method: str  # over repeats | within run


def over_repeats(values: Sequence[float], alpha: float) -> Estimate:
    """Mean of the repeats, Student's t interval."""
    low, high = t_interval(np.asarray(values, dtype=np.float64), alpha)
    return Estimate(float(np.mean(values)), low, high, OVER_REPEATS)


def t_interval(values: Floats, alpha: float) -> tuple[float, float]:
    """Two-sided interval of the mean; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    half = t_quantile(1 - alpha / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def quantile_interval(values: Floats, q: float, alpha: float) -> tuple[float, float]:
    """Order statistics that hold the true quantile with 1 - alpha, whatever the distribution (+inf allowed).

    Exact binomial; a side for which there are too few values is NaN. Source: Conover, Practical Nonparametric
    Statistics, 3.2. Requests of one run aren't quite independent, which makes it somewhat too narrow under load.
    """
    n = len(values)
    if n == 0:
        return math.nan, math.nan
    ordered = np.sort(values)
    low = binomial_quantile(alpha / 2, n, q)  # of 1..n; at most alpha/2 below it
    high = binomial_quantile(1 - alpha / 2, n, q) + 1
    below = float(ordered[low - 1]) if low >= 1 else math.nan
    above = float(ordered[high - 1]) if high <= n else math.nan
    return below, above

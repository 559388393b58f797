"""How sure: confidence intervals of a stage's figures, within one run and over repeats.

With three repeats or more, the repeats themselves are the sample (Student's t on logarithms): only they know how runs
differ. With one or two, time inside the run is the sample: rates as formulas/throughput.py has them, times as pooled.py
does. Those intervals say nothing about another run on another day, and are labelled `within run`. An interval of a rate
never reaches below 0 and never has width 0: nothing is known better than to RESOLUTION.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analyzer.bench.figures.distributions import t_quantile
from kvt_async.contract.formulas.throughput import RESOLUTION, UNKNOWN, Rate

Floats = npt.NDArray[np.float64]
FEWEST_REPEATS = 3
OVER_REPEATS, WITHIN = "over repeats", "within run"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval; NaN where nothing can be said. `reason`: why a rate can't be told, `n_needed`: with
    about how many requests it could be."""

    value: float
    low: float
    high: float
    method: str  # over repeats | within run
    reason: str | None = None
    n_needed: int | None = None


def rate_over_repeats(rates: Sequence[Rate]) -> Rate:
    """One rate of several repeats; NaN where the rate of one of them can't be told. The others are then those in which
    more requests happened to fall due, or whose load was steadier, so their mean would be too high.

    Three or more that are above 0: their geometric mean, with the spread of the repeats; else their mean, with the
    errors that they have within the run.
    """
    if not rates or any(math.isnan(rate.value) for rate in rates):
        return UNKNOWN
    seconds = sum(rate.seconds for rate in rates)
    if len(rates) >= FEWEST_REPEATS and all(rate.value > 0 for rate in rates):
        logs = np.log([rate.value for rate in rates])
        error = max(float(logs.std(ddof=1)) / math.sqrt(len(rates)), RESOLUTION / 2)
        return Rate(float(np.exp(logs.mean())), error, len(rates) - 1, seconds)
    total = sum(rate.value for rate in rates)
    if total <= 0:
        return Rate(0.0, rates[0].se, rates[0].df, seconds)
    error = math.hypot(*(rate.value / total * rate.se for rate in rates))
    return Rate(total / len(rates), error, sum(rate.df for rate in rates), seconds)


def t_interval(values: Floats, alpha: float) -> tuple[float, float]:
    """Two-sided interval of the mean; NaN for fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    half = t_quantile(1 - alpha / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)

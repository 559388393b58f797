"""Mean, percentiles and maximum of a metric, with and without those who never finished."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kvt_async.contract.formulas.quantile import quantile

Floats = npt.NDArray[np.float64]
LEVELS = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics of `n` values; NaN where there are none. `censored`: the percentiles with failures counted as +inf
    beside the values (n + n_failed)."""

    n: int
    n_failed: int
    mean: float
    quantiles: dict[str, float]
    maximum: float
    censored: dict[str, float]

    def stat(self, name: str, *, with_failures: bool = False) -> float:
        """The statistic of that name: mean | p50 | p90 | p95 | p99 | max. With failures, mean and max are +inf as soon
        as there is one."""
        if name in LEVELS:
            return (self.censored if with_failures else self.quantiles)[name]
        value = self.mean if name == "mean" else self.maximum
        return math.inf if with_failures and self.n_failed else value


def summarise(values: Floats, n_failed: int = 0, weights: Floats | None = None) -> Summary:
    """Summarise values. Percentiles interpolate linearly between order statistics (numpy's default); weighted ones
    don't interpolate."""
    values = np.asarray(values, dtype=np.float64)
    keep = ~np.isnan(values)
    values, weights = values[keep], None if weights is None else weights[keep]
    if len(values) == 0:
        never = math.inf if n_failed else math.nan
        return Summary(0, n_failed, math.nan, dict.fromkeys(LEVELS, math.nan), math.nan, dict.fromkeys(LEVELS, never))
    mean = float(np.average(values, weights=weights))
    if weights is None:
        ordered = np.sort(values)
        plain = {name: quantile(ordered, q) for name, q in LEVELS.items()}
        with_failed = np.concatenate((ordered, np.full(n_failed, math.inf)))
        censored = {name: quantile(with_failed, q) for name, q in LEVELS.items()}
    else:
        plain = censored = _weighted(values, weights)
    return Summary(len(values), n_failed, mean, plain, float(values.max()), censored)


def _weighted(values: Floats, weights: Floats) -> dict[str, float]:
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    at = {name: min(int(np.searchsorted(reached, q)), len(values) - 1) for name, q in LEVELS.items()}
    return {name: float(values[order][place]) for name, place in at.items()}

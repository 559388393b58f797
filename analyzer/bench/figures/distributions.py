"""Binomial and Student's t, exact and without a library: two tails and two quantiles is all that a bench needs.

Equal to scipy.stats on tests/analyzer/bench/test_figures.py.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from kvt_async.contract.formulas.student import bisect, t_cdf, t_quantile

__all__ = ["binomial_cdf", "binomial_quantile", "binomial_sf", "clopper_pearson", "t_cdf", "t_quantile"]
Floats = npt.NDArray[np.float64]


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) of n trials."""
    if k < 0:
        return 0.0
    if k >= n:
        return 1.0
    return float(min(1.0, np.exp(_log_masses(n, p)[: k + 1]).sum()))


def binomial_sf(k: int, n: int, p: float) -> float:
    """P(X > k), summed from its own end, so that small tails keep their digits."""
    if k < 0:
        return 1.0
    if k >= n:
        return 0.0
    return float(min(1.0, np.exp(_log_masses(n, p)[k + 1 :]).sum()))


def binomial_quantile(level: float, n: int, p: float) -> int:
    """The smallest k with P(X <= k) >= level."""
    return min(int(np.searchsorted(np.cumsum(np.exp(_log_masses(n, p))), level)), n)


def clopper_pearson(hits: int, n: int, alpha: float) -> tuple[float, float]:
    """Exact two-sided interval of a share; (0, 1) for n = 0."""
    low = bisect(lambda p: binomial_sf(hits - 1, n, p) - alpha / 2, 0.0, 1.0) if hits else 0.0
    high = bisect(lambda p: alpha / 2 - binomial_cdf(hits, n, p), 0.0, 1.0) if hits < n else 1.0
    return low, high


@cache
def _log_factorials(n: int) -> Floats:
    """log(0!), ..., log(n!)."""
    return np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))


def _log_masses(n: int, p: float) -> Floats:
    """log P(X = k) for k = 0..n; p may be 0 or 1."""
    k = np.arange(n + 1)
    size = 1 << max(n, 1).bit_length()  # few sizes, so that few tables are kept
    log_factorial = _log_factorials(size)
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = np.where(k > 0, k * np.log(p) if p > 0 else -np.inf, 0.0)
        miss = np.where(k < n, (n - k) * np.log1p(-p) if p < 1 else -np.inf, 0.0)
    result: Floats = log_factorial[n] - log_factorial[k] - log_factorial[n - k] + hit + miss
    return result

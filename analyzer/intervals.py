"""Confidence intervals of one mean: Wilson's score interval, also for weighted bins, clusters and bounded scores."""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def wilson(mean: float, n: float, alpha: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion `mean` seen in `n` (effective) observations; NaN at n = 0."""
    if not n > 0 or math.isnan(mean):
        return float("nan"), float("nan")
    z = NormalDist().inv_cdf(1 - alpha / 2)
    middle = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(0.0, mean * (1 - mean)) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def effective_n(value: Floats, weight: Floats, cluster: npt.NDArray[np.int64]) -> float:
    """Number of independent 0/1 observations whose mean would vary as much as the weighted mean of value [n].

    weight [n] sums to 1. Scores between 0 and 1 vary less than 0/1 ones (more), shared contexts make them vary
    together (fewer). Where nothing varied (all equal), the number of equally weighted clusters is taken.
    """
    _, unit = np.unique(cluster, return_inverse=True)
    weight_of = np.bincount(unit, weights=weight)
    kish = float(1 / np.sum(weight_of**2))
    mean = float(np.sum(weight * value))
    if kish < 2 or not 1e-12 < mean < 1 - 1e-12:
        return kish
    residual = np.bincount(unit, weights=weight * (value - mean))
    variance = float(np.sum(residual**2)) * kish / (kish - 1)
    if variance <= 1e-15:
        return kish
    return mean * (1 - mean) / variance

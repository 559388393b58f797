"""Student's t without a library: bounds of a rate need it on both sides, and the runner loads no scipy."""

import math
from collections.abc import Callable
from functools import cache
from statistics import NormalDist


@cache
def t_quantile(level: float, df: int) -> float:
    """Quantile of Student's t for whole degrees of freedom, level in (0.5, 1)."""
    if df > 1000:
        return NormalDist().inv_cdf(level)
    return bisect(lambda t: t_cdf(t, df) - level, 0.0, 1e6)


def t_cdf(t: float, df: int) -> float:
    """Distribution function of Student's t for whole degrees of freedom, as a finite sum.

    Source: Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(df))
    cosine = math.cos(angle)
    term = cosine if df % 2 else 1.0
    total = term if df > 1 else 0.0
    for j in range(3 if df % 2 else 2, df - 1, 2):
        term *= cosine * cosine * (j - 1) / j
        total += term
    within = 2 / math.pi * (angle + math.sin(angle) * total) if df % 2 else math.sin(angle) * total
    return 0.5 + within / 2


def bisect(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function crosses zero, to the last digit."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2

"""Percentiles as every part of kvt reads them: one definition, so that one name has one number."""

import math
from collections.abc import Sequence
from typing import Any


def quantile(ordered: Sequence[float] | Any, q: float) -> float:
    """The quantile of sorted values, +inf among them allowed: linear between order statistics, as numpy's default. NaN
    where there are none.

    Interpolation with +inf is +inf. `ordered` may be an array.
    """
    if len(ordered) == 0:
        return math.nan
    rank = q * (len(ordered) - 1)
    low = math.floor(rank)
    below, above = float(ordered[low]), float(ordered[min(low + 1, len(ordered) - 1)])
    share = rank - low
    if share == 0 or below == above:
        return below
    return min(below + share * (above - below), above)

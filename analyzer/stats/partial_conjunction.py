"""How many of several hypotheses are false at least: the partial conjunction test (Benjamini and Heller 2008)."""

import math
from collections.abc import Sequence


def at_least(p_values: Sequence[float], level: float, *, independent: bool) -> int:
    """How many of the claims behind `p_values` hold at least, proven at one-sided `level`: a 1 - level lower bound.

    "At least u of T hold" is tested for u = 1, 2, ... at the level until one isn't proven, on the T - u + 1 largest p
    values, of which all belong to claims that do not hold where at most u - 1 do: `independent` ones by Fisher's sum
    of logarithms, any others by their least times their number.
    """
    falling = sorted(p_values, reverse=True)
    count = 0
    for u in range(1, len(falling) + 1):
        largest = falling[: len(falling) - u + 1]
        if (_fisher(largest) if independent else min(1.0, largest[-1] * len(largest))) > level:
            break
        count = u
    return count


def _fisher(p_values: Sequence[float]) -> float:
    """P(chi-squared with 2k degrees of freedom > -2 sum log p): e^-s sum_{j<k} s^j / j! at s = -sum log p."""
    s = -sum(math.log(max(p, 1e-300)) for p in p_values)
    if s == 0:
        return 1.0
    return min(1.0, sum(math.exp(-s + j * math.log(s) - math.lgamma(j + 1)) for j in range(len(p_values))))

"""Lengths in tokens, drawn one by one from (seed, repeat, place): adding requests never changes earlier ones."""

import math

import numpy as np

from kvt_async.contract.lengths import Lengths

_TRIES = 1000  # draws outside of [low, high] are drawn again, so that the bounds don't collect them


def draw(lengths: Lengths, key: tuple[int, ...]) -> int:
    """One length; `key` alone decides which."""
    if lengths.kind == "fixed":
        return lengths.value
    rng = np.random.default_rng([value % 2**32 for value in key])
    if lengths.kind == "uniform":
        return int(rng.integers(lengths.low, lengths.high, endpoint=True))
    if lengths.kind == "list":
        assert lengths.values is not None
        weights = np.asarray(lengths.weights or [1.0] * len(lengths.values))
        return int(lengths.values[int(rng.choice(len(lengths.values), p=weights / weights.sum()))])
    length = lengths.value
    for _ in range(_TRIES):
        length = round(_normal(lengths, rng) if lengths.kind == "normal" else _lognormal(lengths, rng))
        if lengths.low <= length <= lengths.high:
            return int(length)
    return min(max(int(length), lengths.low), lengths.high)


def mean(lengths: Lengths) -> float:
    """The mean of the distribution, its bounds aside: for estimates of load."""
    if lengths.kind == "uniform":
        return (lengths.low + lengths.high) / 2
    if lengths.values is not None:
        return float(np.average(lengths.values, weights=lengths.weights))
    return float(lengths.value)


def _normal(lengths: Lengths, rng: np.random.Generator) -> float:
    return float(rng.normal(lengths.value, lengths.std))


def _lognormal(lengths: Lengths, rng: np.random.Generator) -> float:
    """Mean and standard deviation are those of the lengths, not of their logarithm."""
    spread = math.log1p((lengths.std / lengths.value) ** 2)
    return float(rng.lognormal(math.log(lengths.value) - spread / 2, math.sqrt(spread)))

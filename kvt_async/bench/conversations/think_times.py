"""Seconds that users think, drawn one by one from a key: adding conversations never changes earlier ones."""

import math

import numpy as np

from kvt_async.contract.conversation_settings import ThinkTimes

_TRIES = 1000  # draws outside of [low, high] are drawn again, so that the bounds don't collect them


def draw_ns(times: ThinkTimes, key: tuple[int, ...]) -> int:
    """One think time in nanoseconds; `key` alone decides which."""
    return round(_seconds(times, key) * 1e9)


def mean_s(times: ThinkTimes) -> float:
    """The mean of the distribution, its bounds aside but for uniform."""
    if times.kind == "uniform":
        return (times.low + times.high) / 2
    if times.values is not None:
        return float(np.average(times.values, weights=times.weights))
    return times.value


def _seconds(times: ThinkTimes, key: tuple[int, ...]) -> float:
    if times.kind == "fixed":
        return times.value
    rng = np.random.default_rng([value % 2**32 for value in key])
    if times.kind == "uniform":
        return float(rng.uniform(times.low, times.high))
    if times.values is not None:
        weights = np.asarray(times.weights or [1.0] * len(times.values))
        return float(times.values[int(rng.choice(len(times.values), p=weights / weights.sum()))])
    seconds = times.value
    for _ in range(_TRIES):
        seconds = _exponential(times, rng) if times.kind == "exponential" else _lognormal(times, rng)
        if times.low <= seconds <= times.high:
            return seconds
    return min(max(seconds, times.low), times.high)


def _exponential(times: ThinkTimes, rng: np.random.Generator) -> float:
    return float(rng.exponential(times.value))


def _lognormal(times: ThinkTimes, rng: np.random.Generator) -> float:
    """Mean and standard deviation are those of the times, not of their logarithm."""
    spread = math.log1p((times.std / times.value) ** 2)
    return float(rng.lognormal(math.log(times.value) - spread / 2, math.sqrt(spread)))

"""Samples of a metrics page as they are stored: by name, label sets of one name joined."""

import math
import re
from collections.abc import Mapping
from typing import Any

Metrics = Mapping[str, Any]
"""{name: number | {count, sum, buckets: {le: cumulative count}}}; a name may have labels behind it that are kept apart,
and `_total`, which pages write behind a counter or not."""

_LARGEST = re.compile(r"(_perc|_usage|usage_ratio|_ratio|_rate|_length|_utilization)$")


def without_nan(metrics: Metrics) -> dict[str, Any]:
    """What is a number: NaN and infinity, which a page may hold (and which are null once stored), are left out, and so
    is a histogram with one of them among its counts."""

    def is_number(value: Any) -> bool:
        if isinstance(value, Mapping):
            return all(is_number(part) for part in value.values())
        return isinstance(value, int | float) and math.isfinite(value)

    return {name: value for name, value in metrics.items() if is_number(value)}


def keys_of(metrics: Metrics, name: str) -> list[str]:
    """Under which keys a page has this name: with and without `_total`, and each of its labels' samples."""
    bare, brace, labels = name.partition("{")
    if brace:
        return [key for key in (name, f"{bare}_total{{{labels}") if key in metrics]
    if plain := [key for key in (bare, f"{bare}_total") if key in metrics]:
        return plain[:1]
    return [key for key in metrics if "{" in key and key.partition("{")[0].removesuffix("_total") == bare]


def value_of(metrics: Metrics, name: str) -> float | None:
    """The number under this name, its labels' samples added; None: the page has none."""
    keys = keys_of(metrics, name)
    return sum(float(metrics[key]) for key in keys) if keys else None


def grown(before: Metrics, after: Metrics, name: str) -> float | None:
    """By how much a counter grew, over all its labels; from 0 where it was reset. None: the page has no such one."""
    keys = keys_of(after, name)
    if not keys:
        return None
    return sum(since(before.get(key), after[key]) for key in keys)


def since(before: Any, after: Any) -> float:
    """By how much one sample of a counter grew; from 0 where it was reset, or was not there."""
    was, now = float(before or 0.0), float(after)
    return now - was if now >= was else now


def joined(name: str, one: float, other: float) -> float:
    """Two samples of one name put together: shares by the largest, all others by their sum."""
    return max(one, other) if _LARGEST.search(name.partition("{")[0]) else one + other

"""How many sender processes an invocation has, and which part of its bounds each of them gets."""

import math
import os
from collections.abc import Mapping

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.settings import Limits, Settings


def shares(total: float, n: int) -> list[float]:
    """`total` in `n` parts that differ by at most 1, by largest remainder: whole units first come, first served, and
    what is left of one to the next part. Their sum is `total`."""
    whole, rest = divmod(total, n)
    return [whole + min(1, max(0, rest - i)) for i in range(n)]


def whole_shares(total: int, n: int) -> list[int]:
    """`shares` of a number of things that can't be divided."""
    return [int(part) for part in shares(total, n)]


def sender_count(settings: Settings, bounds: Mapping[str, float | None]) -> int:
    """How many processes send: limits.processes; `auto`: as many as there are cores to use, and as `bounds` can be
    divided into. `bounds`: config key -> what all of them may do together; None: unbounded.

    Raises ConfigError where a process would get less than 1 of a bound.
    """
    processes = settings.limits.processes
    given = {key: bound for key, bound in bounds.items() if bound is not None}
    if processes == "auto":
        return max(1, min([usable_cores(), *(math.floor(bound) for bound in given.values())]))
    for key, bound in given.items():
        if bound < processes and processes > 1:  # one process may well have less than one a minute
            raise ConfigError(
                f"{key} is {bound:g}: of {processes} processes each would get less than 1",
                where="limits.processes",
                do=f"Set it to at most {max(1, math.floor(bound))}, or {key} to at least {processes}.",
            )
    return processes


def sender_count_of_limits(settings: Settings) -> int:
    """How many processes send a sweep: `sender_count` by its limits."""
    limits = settings.limits
    bounds = {name: getattr(limits, name) for name in ("concurrency", "requests_per_minute", "tokens_per_minute")}
    return sender_count(settings, {f"limits.{name}": bound for name, bound in bounds.items()})


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares_of_limits(limits: Limits, n: int) -> list[Limits]:
    """What each of `n` processes has to keep so that together they keep `limits`."""
    parts = []
    for i in range(n):
        bounds: dict[str, float | int | None] = {"processes": 1, "concurrency": whole_shares(limits.concurrency, n)[i]}
        for name in ("requests_per_minute", "tokens_per_minute"):
            bound: float | None = getattr(limits, name)
            bounds[name] = None if bound is None else shares(bound, n)[i]
        parts.append(limits.model_copy(update=bounds))
    return parts

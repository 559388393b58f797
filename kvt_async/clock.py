"""Times of day for people. Durations come from the monotonic clock, never from these."""

from functools import lru_cache
from time import gmtime, strftime, time

_now: tuple[int, str] = (-1, "")


def utc_now() -> str:
    """UTC, ISO 8601, milliseconds: sorts as text. Formats a millisecond once: it is asked for twice a request."""
    global _now  # noqa: PLW0603  # a cache of one string
    ms = int(time() * 1000)
    if _now[0] != ms:
        seconds, rest = divmod(ms, 1000)
        _now = (ms, f"{_second(seconds)}.{rest:03}Z")
    return _now[1]


@lru_cache(2)
def _second(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))

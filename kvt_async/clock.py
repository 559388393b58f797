"""Times of day for people. Durations come from the monotonic clock, never from these."""

import time

_MS = tuple(f".{ms:03}Z" for ms in range(1000))
_second: tuple[int, str] = (-1, "")


def utc_now() -> str:
    """UTC, ISO 8601, milliseconds: sorts as text. Formats a second once: it is asked for several times a request."""
    global _second  # noqa: PLW0603  # a cache of one string
    now = time.time()
    whole = int(now)
    if _second[0] != whole:
        _second = (whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)))
    return _second[1] + _MS[int((now - whole) * 1000)]

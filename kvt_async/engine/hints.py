"""What a reply's headers say about trying again."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_S = 7 * 24 * 3600  # a wait beyond a week is a broken header, not an answer
_RESETS = re.compile(r"^(?:x-ratelimit-reset(?:-(requests|tokens))?|anthropic-ratelimit-([a-z-]+)-reset)$")
_DURATION = re.compile(r"^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?$")


@dataclass(frozen=True, slots=True)
class Hints:
    """`retry_after_s`: asked for, binding. `reset_s`: when a rate-limit window opens again, a hint. None: not said."""

    retry_after_s: float | None = None
    reset_s: float | None = None
    should_retry: bool | None = None


def read_hints(headers: Mapping[str, str], now: datetime | None = None) -> Hints:
    """Headers with names in lower case. What makes no sense (negative, infinite, unparsable) is not heard."""
    if not any(name in headers for name in ("retry-after", "retry-after-ms", "x-should-retry")) and not any(
        "ratelimit" in name for name in headers
    ):
        return Hints()
    now = now or datetime.now(UTC)
    return Hints(_retry_after(headers, now), _reset(headers, now), _boolean(headers.get("x-should-retry")))


def parse_duration(text: str) -> float | None:
    """Seconds of `6m0s`, `500ms`, `1h2m`, `1.5`; None for anything else."""
    text = text.strip().lower()
    if (plain := _number(text)) is not None:
        return plain
    match = _DURATION.match(text) if text else None
    if match is None or not any(match.groups()):
        return None
    days, hours, minutes, seconds, ms = (float(g or 0) for g in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds + ms / 1000


def _retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    ms = _number(headers.get("retry-after-ms", ""))
    if ms is not None and (wait := _sane(ms / 1000)) is not None:
        return wait
    text = headers.get("retry-after", "").strip()
    if (seconds := _number(text)) is not None:
        return _sane(seconds)
    at = _date(text)
    if at is None:
        return None
    here = _date(headers.get("date", "")) or now  # by the server's own clock, if it shows it
    return _sane(max(0.0, (at - here).total_seconds()))


def _reset(headers: Mapping[str, str], now: datetime) -> float | None:
    waits = []
    for name, value in headers.items():
        match = _RESETS.match(name)
        if match is None:
            continue
        remaining = _number(headers.get(name.replace("reset", "remaining"), ""))
        if remaining is not None and remaining > 0:
            continue  # this window is not what we ran into
        wait = parse_duration(value)
        if wait is None and (at := _iso(value)) is not None:
            wait = (at - now).total_seconds()
        elif wait is not None and wait > 1e9:
            wait -= now.timestamp()  # an epoch instead of a duration
        if wait is not None and wait > 0 and _sane(wait) is not None:
            waits.append(wait)
    return max(waits, default=None)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _sane(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= LONGEST_S else None


def _date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _iso(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _boolean(text: str | None) -> bool | None:
    return {"true": True, "false": False}.get(text.strip().lower()) if text else None

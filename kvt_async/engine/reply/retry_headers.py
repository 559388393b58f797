"""What a reply says about trying again: in its headers, and in the body of an error."""

import math
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

LONGEST_S = 7 * 24 * 3600  # a wait beyond a week is a broken header, not an answer
EPOCH_S = 1e9  # a number of seconds beyond that is an instant (since 1970), not a duration
MOST_NODES = 500  # of an error's body that are looked at
_MS_NAMES = ("retry-after-ms", "x-retry-after-ms", "x-ms-retry-after-ms")
_NAMES = ("retry-after", "x-retry-after", "retry-after-seconds", "x-retry-after-seconds", "x-ratelimit-retry-after")
_RESETS = re.compile(r"^(?:(?:x-)?rate-?limit-reset(?:-(?:requests|tokens|after))?|anthropic-ratelimit-[a-z-]+-reset)$")
_WAITS = re.compile(
    r"^(?:(?:retry|wait|resets?|backoff)(?:after|delay|in|time|at)?|retryat|nextretry(?:at|in)?)(?:s|sec|secs|seconds)?$"
)  # names in a body, letters alone
_MS_WAITS = re.compile(r"^(?:retry|wait|resets?|backoff)(?:after|delay|in)?(?:ms|msec|millis|milliseconds)$")
_SENTENCE = re.compile(
    r"(?:try again|retry|wait)\D{0,20}?((?:\d+(?:\.\d+)?\s?(?:[dhms]|ms|[a-z]{3,12})(?![a-z])(?:,? and |, | )?)+)", re.I
)
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s?([a-z]+)", re.I)
_AMOUNTS = re.compile(r"(?:in )?((?:\d+(?:\.\d+)?\s?[a-z]+(?:,? and |, | )?)+)")
_ISO_DURATION = re.compile(r"p(?:(\d+)d)?(?:t(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?)?")
_WINDOW = re.compile(r"(?:^|[;,\s])(?:t|reset)\s*=\s*(\d+)")  # of IETF's RateLimit header, both of its drafts
_SPENT = re.compile(r"(?:^|[;,\s])(?:r|remaining)\s*=\s*0(?:$|[;,\s])")
_UNITS = {
    "ms": 0.001,
    "mil": 0.001,
    "s": 1,
    "sec": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "hou": 3600,
    "d": 86400,
    "day": 86400,
}


@dataclass(frozen=True, slots=True)
class Hints:
    """`retry_after_s`: asked for, binding. `reset_s`: when a rate-limit window opens again, a hint. None: not said."""

    retry_after_s: float | None = None
    reset_s: float | None = None
    should_retry: bool | None = None


def read_hints(headers: Mapping[str, str], now: datetime | None = None, *, body: Any = None) -> Hints:
    """Headers with names in lower case; `body`: of an error, parsed, asked where the headers name no wait. What makes
    no sense (negative, infinite, unparsable) is not heard."""
    if body is None and not any("retry" in name or "limit" in name for name in headers):
        return Hints()
    now = now or datetime.now(UTC)
    wait, reset = _retry_after(headers, now), _reset(headers, now)
    if body is not None:
        wait = _wait_of_body(body, now) if wait is None else wait
        reset = _reset(_headers_of_body(body), now) if reset is None else reset
    return Hints(wait, reset, _boolean(headers.get("x-should-retry")))


def parse_duration(text: str) -> float | None:
    """Seconds of `6m0s`, `500ms`, `1h 2m`, `2 seconds`, `PT2.5S`, `1.5`; None for anything else."""
    text = text.strip().strip('"').lower()
    if (plain := _number(text)) is not None:
        return plain
    if (match := _ISO_DURATION.fullmatch(text)) and any(match.groups()):
        days, hours, minutes, seconds = (float(group or 0) for group in match.groups())
        return _finite(days * 86400 + hours * 3600 + minutes * 60 + seconds)
    match = _AMOUNTS.fullmatch(text)
    return None if match is None else _sum_of(match[1])


def _sum_of(amounts: str) -> float | None:
    """Seconds of numbers, each with its unit; None where a unit isn't known."""
    total = 0.0
    for number, unit in _AMOUNT.findall(amounts):
        seconds = _UNITS.get(unit.lower(), _UNITS.get(unit.lower()[:3]))
        if seconds is None:
            return None
        total += float(number) * seconds
    return _finite(total)


def _retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    for name in _MS_NAMES:
        ms = _number(headers.get(name, ""))
        if ms is not None and (wait := _sane(ms / 1000)) is not None:
            return wait
    text = next((headers[name].strip() for name in _NAMES if name in headers), "")
    if (seconds := parse_duration(text)) is not None:
        return _sane(_until(seconds, now))
    at = _instant(text)
    if at is None:
        return None
    server_now = _date(headers.get("date", "")) or now  # by the server's own clock, if it shows it
    return _sane(max(0.0, (at - server_now).total_seconds()))


def _reset(headers: Mapping[str, str], now: datetime) -> float | None:
    waits = []
    window = headers.get("ratelimit", "").lower()
    if _SPENT.search(window) and (spent := _WINDOW.search(window)) and (wait := _sane(float(spent[1]))):
        waits.append(wait)
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
        elif wait is not None:
            wait = _until(wait, now)
        if wait is not None and wait > 0 and _sane(wait) is not None:
            waits.append(wait)
    return max(waits, default=None)


def _until(seconds: float, now: datetime) -> float:
    """A duration as it is; of an instant, in seconds or finer since 1970, the time until then."""
    if seconds < EPOCH_S:
        return seconds
    while seconds >= 100 * EPOCH_S:
        seconds /= 1000  # milliseconds, microseconds, nanoseconds
    return seconds - now.timestamp()


def _wait_of_body(body: Any, now: datetime) -> float | None:
    """The first wait that a field names, at whatever depth ({"retryDelay": "2s"}), else one in a sentence ("Please try
    again in 6m0s")."""
    wait_s: float | None = None
    for name, value in _fields(body):
        plain = re.sub(r"[^a-z]", "", name.lower())
        if _MS_WAITS.match(plain) and (ms := _seconds(value)) is not None:
            return _sane(ms / 1000)
        if _WAITS.match(plain) and (wait := _seconds(value)) is not None:
            return _sane(_until(wait, now))
        if _WAITS.match(plain) and isinstance(value, str) and (at := _instant(value[:100])) is not None:
            return _sane(max(0.0, (at - now).total_seconds()))
        if wait_s is None and isinstance(value, str) and (sentence := _SENTENCE.search(value[:2000])):
            wait_s = _sum_of(sentence[1])
    return None if wait_s is None else _sane(wait_s)


def _headers_of_body(body: Any) -> dict[str, str]:
    """Headers of another server that a gateway passes on inside of its error."""
    found: dict[str, str] = {}
    for name, value in _fields(body):
        if name == "headers" and isinstance(value, dict):
            found |= {str(key).lower(): str(inner) for key, inner in value.items()}
    return found


def _fields(body: Any) -> Iterator[tuple[str, Any]]:
    """(name, value) of all objects in a body, outermost first; a bare text has no name."""
    waiting, seen = deque([("", body)]), 0
    while waiting and (seen := seen + 1) <= MOST_NODES:
        name, value = waiting.popleft()
        yield name, value
        if isinstance(value, dict):
            waiting.extend((str(key), inner) for key, inner in value.items())
        elif isinstance(value, list):
            waiting.extend((name, inner) for inner in value)


def _seconds(value: Any) -> float | None:
    """Of a number, a duration, or protobuf's {seconds, nanos}."""
    if isinstance(value, dict):
        value = value.get("seconds")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    return parse_duration(value) if isinstance(value, str) else _finite(value)


def _number(text: str) -> float | None:
    try:
        return _finite(float(text))
    except ValueError:
        return None


def _finite(value: float) -> float | None:
    """The value as a float; None: infinite, or an integer beyond any float. No clock can be set by it."""
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _sane(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= LONGEST_S else None


def _date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _instant(text: str) -> datetime | None:
    return _date(text) or _iso(text)


def _iso(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _boolean(text: str | None) -> bool | None:
    return {"true": True, "false": False}.get(text.strip().lower()) if text else None

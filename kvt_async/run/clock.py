"""Times of day for people. Durations come from the monotonic clock, never from these."""

from datetime import UTC, datetime


def utc_now() -> str:
    """UTC, ISO 8601, milliseconds: sorts as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""What the parent of a bench and its sender processes tell each other: see bench/window_senders.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kvt_async.bench.sending_window import Tally
from kvt_async.bench.stage import Left, Stage
from kvt_async.records import Json
from kvt_async.store.columns import Row


@dataclass(frozen=True, slots=True)
class WindowPlace:
    """A request of a window by its number; `offset_ns`: when it is due from the window's start, None in closed loop."""

    seq: int
    measured: bool
    offset_ns: int | None
    attempts_before: int
    stored: bool  # the group has its rows already
    lost: bool = False  # a turn of a conversation behind one that has failed: it is never sent


@dataclass(frozen=True, slots=True)
class StreamedPart:
    """Which part of a window a sender reads from the trace by itself: every place `nth`, `nth + of`, ..."""

    nth: int
    of: int
    left: Left | None  # of the stage


@dataclass(frozen=True, slots=True)
class WindowOrder:
    """A sender's part of a window. It answers with `Planned`, waits for `Go`, and ends with `Ended`."""

    stage: Stage
    places: Sequence[WindowPlace]
    shown: Json | None  # what the server says of its budget
    concurrency: int | None  # its part; None: open loop
    max_in_flight: int | None  # its part; None: no cap
    duration_s: float | None  # a closed loop by duration goes on for so long ...
    more: range  # ... with the places, or conversations, of these numbers
    replies: Mapping[int, Sequence[str]] = field(default_factory=dict)  # the server's own that are stored, of
    # conversations that go on with them
    streamed: StreamedPart | None = None  # then `places` and `more` are empty


@dataclass(frozen=True, slots=True)
class Planned:
    """The rows of its requests that the group doesn't have yet."""

    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Go:
    """The instant from which offsets count: CLOCK_MONOTONIC, which all processes of a machine share."""

    start_ns: int


@dataclass(frozen=True, slots=True)
class News:
    """How far a sender is with its part of a window."""

    tally: Tally
    done: int
    failed: int
    output_tokens: int
    errors: dict[str, int]
    ttft_ms: Sequence[float]  # of replies since the last news, the newest
    client: Json  # Health.row() so far


@dataclass(frozen=True, slots=True)
class Ended:
    """Everything of its part is over and on disk."""

    news: News
    drained_ns: int

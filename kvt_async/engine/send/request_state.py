"""Where one request stands on its way through the Sender."""

import time
from collections.abc import Awaitable, Callable

from msgspec import Struct, field

from kvt_async.records import Attempt, Request

Record = Callable[[Request, Attempt], Awaitable[None]]
Again = Callable[[], Awaitable[None]]


class Sending(Struct, gc=False):
    """Its tries so far, and what is due next."""

    request: Request
    record: Record
    again: Again | None
    scheduled_ns: int | None  # when its next try is due; the first: when the producer made it
    intended_ns: int | None
    attempt_idx: int
    n_tries: int = 0  # an immediate second send over a fresh connection belongs to the same try
    began_s: float = 0.0  # when the try that was answered began, monotonic
    waited_s: float = 0.0  # in all pauses between its tries
    failing_since: float | None = None  # since when its tries fail at connection level, monotonic seconds
    cancelled: list[Attempt] = field(default_factory=list)

    def next_attempt(self, due_s: float) -> None:
        self.attempt_idx += 1
        self.waited_s += due_s
        self.scheduled_ns = time.perf_counter_ns() + int(due_s * 1e9)
        self.intended_ns = None

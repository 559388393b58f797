"""A server that is gone must end the run, not the requests.

Connection-level failures (refused, reset, no name, no handshake) say nothing about a request. While they last and no
request has succeeded since they began, none is given up; when they have lasted for the whole retry schedule and as many
tries, the breaker trips: the run stops and every open request stays pending.
"""

import asyncio

from kvt_async.contract.settings import Retry
from kvt_async.engine.policy import schedule_s

MARGIN = 1.5  # of the longest retry schedule: an outage shorter than that is survived
LONGEST_NAP_S = 2.0  # between two looks at a server that seems gone


class Breaker:
    """`now` arguments are seconds of one monotonic clock."""

    def __init__(self, retry: Retry) -> None:
        self.tripped = asyncio.Event()
        self.reason = ""
        self.last_success_at: float | None = None
        self._outage_s = min(MARGIN * schedule_s(retry), retry.max_elapsed_s)
        self._needed = retry.max_attempts
        self._failing_since: float | None = None
        self._failures = 0

    def answered(self) -> None:
        """A status line came, whatever it said: the server is there."""
        self._failing_since, self._failures = None, 0

    def succeeded(self, now: float) -> None:
        self.last_success_at = now

    def failed(self, began_at: float, now: float, reason: str, *, final: bool = False) -> None:
        """A connection-level failure of an attempt that began at `began_at`. `final`: trying again can't help."""
        self._failures += 1
        if self._failing_since is None:
            self._failing_since = began_at
        lasted = now - self._failing_since
        if (lasted >= self._outage_s and self._failures >= self._needed) or (final and self.last_success_at is None):
            self.reason = reason
            self.tripped.set()

    def may_give_up(self, failing_since: float) -> bool:
        """Whether a request whose tries have failed at connection level since then failed while others succeeded."""
        return self.last_success_at is not None and self.last_success_at > failing_since

"""A server that is gone must end the run, not the requests.

Connection-level failures (refused, reset, no name, no handshake) say nothing about a request. While they last and no
request has been sent and answered since, none is given up; when they have lasted for the whole retry schedule and as
many tries, the breaker trips: the run stops and every open request stays pending. So does a server that refuses every
request for what is no request's fault (reply/refusals.py).
"""

import asyncio

from kvt_async.contract.settings import Retry
from kvt_async.contract.vocabulary import EndReason
from kvt_async.engine.send.policy import schedule_s

MARGIN = 1.5  # of the longest retry schedule: an outage shorter than that is survived
LONGEST_NAP_S = 2.0  # between two looks at a server that seems gone


class Breaker:
    """`now` arguments are seconds of one monotonic clock."""

    def __init__(
        self,
        retry: Retry,
        *,
        outage_s: float | None = None,
        needed: int | None = None,
        failures_are_outcomes: bool = False,
    ) -> None:
        """It trips after `needed` failures over `outage_s`; None: as many and as long as the retry schedule lasts.

        `failures_are_outcomes`: a request may always be given up for its own failures, whatever others meet.
        """
        self.tripped = asyncio.Event()
        self.reason = ""
        self.ending = EndReason.SERVER  # why the session ends once it has tripped: SERVER, REFUSED or LOCAL
        self.last_success_began: float | None = None
        self.outage_s = min(MARGIN * schedule_s(retry), retry.max_elapsed_s) if outage_s is None else outage_s
        self._needed = retry.max_attempts if needed is None else needed
        self._failures_are_outcomes = failures_are_outcomes
        self._failing_since: float | None = None
        self._failures = 0
        self._failing: set[str] = set()  # requests, since the server last answered

    def answered(self) -> None:
        """A status line came, whatever it said: the server is there."""
        self._failing_since, self._failures = None, 0
        self._failing.clear()

    def succeeded(self, began_at: float) -> None:
        """An attempt that began then was answered. A reply that was already under way proves nothing about later."""
        if self.last_success_began is None or began_at > self.last_success_began:
            self.last_success_began = began_at
        if self._failures:
            self.answered()

    def failed(self, request_id: str, began_at: float, now: float, reason: str, *, final: bool = False) -> None:
        """A connection-level failure of an attempt that began at `began_at`. `final`: trying again can't help."""
        self._failures += 1
        self._failing.add(request_id)
        if self._failing_since is None:
            self._failing_since = began_at
        lasted = now - self._failing_since
        if (lasted >= self.outage_s and self._failures >= self._needed) or (final and self.last_success_began is None):
            self.reason = reason
            self.tripped.set()

    def may_give_up(self, first_failed_at: float) -> bool:
        """Whether a request failed on its own account: the server took and answered another one after its first try
        that failed (which began at `first_failed_at`), and no other request fails with it now."""
        if self._failures_are_outcomes:
            return True
        answered_since = self.last_success_began is not None and self.last_success_began > first_failed_at
        return answered_since and len(self._failing) <= 1

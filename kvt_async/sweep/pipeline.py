"""Producer -> workers -> store, bounded at every step: one task group, two bounded queues, no loose tasks.

    requests --> RequestQueue --> worker with a place --> send --> store --> commit: the place is free
                                                           |  ^
                      another try: the place is given back '--' and taken again

The first queue is `request_queue.py`, the second the store's own group of rows that wait for their commit; how many
requests may be between the two is what `places.py` counts.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Protocol

from kvt_async.clock import utc_now
from kvt_async.engine.send.request_state import Again, Record
from kvt_async.records import Attempt, Outcome, Request
from kvt_async.session.progress import Watcher
from kvt_async.session.servers import first_error
from kvt_async.store.columns import rows_of_attempt, rows_of_outcome, unstorable
from kvt_async.store.writer import Writer
from kvt_async.sweep.places import Places
from kvt_async.sweep.request_queue import RequestQueue

WORKERS_PER_PLACE = 4  # a worker whose request waits between two tries has no place


class Send(Protocol):
    """Send a request to its end; await `again` before each try but the first, hand every attempt but the last to
    `record`.

    Failures are outcomes, not exceptions.
    """

    async def __call__(self, request: Request, record: Record, *, again: Again, scheduled_ns: int) -> Outcome: ...


class Follower(Protocol):
    """Makes requests that follow the end of others. Told on the event loop; must return at once."""

    def ended(self, outcome: Outcome) -> None: ...
    def paused(self, request: Request) -> None: ...
    def resumed(self, request: Request) -> None: ...


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What producer, workers and commits share."""

    send: Send
    store: Writer
    queue: RequestQueue
    places: Places
    watcher: Watcher
    stop: asyncio.Event
    session_id: str
    follower: Follower | None = None


async def send_all(requests: AsyncIterator[Request], pipe: Pipeline, *, workers: int) -> None:
    """Send every request and save every outcome; return when all are saved.

    Memory is bounded by the queues. Setting `pipe.stop` ends production: what is in flight finishes and is saved. A bug
    anywhere cancels everything; a request without a saved outcome was not done: the next run sends it.
    """
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_produce(requests, pipe), name="produce")
            for n in range(workers):
                group.create_task(_work(pipe), name=f"work-{n}")
    except BaseExceptionGroup as errors:
        raise first_error(errors) from errors
    await pipe.store.flush()


async def _produce(requests: AsyncIterator[Request], pipe: Pipeline) -> None:
    async for request in requests:
        if pipe.stop.is_set():
            break
        await pipe.queue.put(request, perf_counter_ns())
    pipe.queue.end()


async def _work(pipe: Pipeline) -> None:
    queue, places = pipe.queue, pipe.places
    while queue.has_some or await queue.wait():
        if not places.take_at_once():
            pipe.store.hurry()
            await places.take()
        item = queue.get()
        if item is None or pipe.stop.is_set():  # what was queued and not started stays pending
            places.leave()
        else:
            await _Sending(item[0], pipe).run(item[1])


class _Sending:
    """One request on its way, and whether it has a place."""

    __slots__ = ("has_place", "outcome", "pipe", "request")

    def __init__(self, request: Request, pipe: Pipeline) -> None:
        self.request, self.pipe, self.has_place = request, pipe, True
        self.outcome: Outcome

    async def run(self, scheduled_ns: int) -> None:
        pipe, request = self.pipe, self.request
        try:
            self.outcome = outcome = await pipe.send(request, self.record, again=self.again, scheduled_ns=scheduled_ns)
        except BaseException:
            self.leave()
            raise
        if outcome.last is None:
            self.leave()  # its last try never began: there is no row whose commit would free the place
        else:
            pipe.watcher.attempted(request, outcome.last)
        rows = rows_of_outcome(outcome, pipe.session_id, utc_now())
        if rows and not pipe.store.offer(rows, self.committed):
            await pipe.store.submit(rows, self.committed)
        if pipe.follower is not None:
            if rows:
                pipe.store.hurry()  # what follows waits for the commit
            else:
                pipe.follower.ended(outcome)

    async def again(self) -> None:
        """Take a place before another try."""
        if not self.pipe.places.take_at_once():
            self.pipe.store.hurry()
            await self.pipe.places.take(again=True)
        self.has_place = True
        if self.pipe.follower is not None:
            self.pipe.follower.resumed(self.request)

    async def record(self, request: Request, attempt: Attempt) -> None:
        """Save an attempt that was not the last, and give the place back."""
        self.pipe.watcher.attempted(request, attempt)
        rows = rows_of_attempt(request, attempt, self.pipe.session_id, utc_now())
        await self.pipe.store.save(rows, gather=True)
        self.leave()
        if self.pipe.follower is not None:
            self.pipe.follower.paused(request)

    def committed(self, saved: bool) -> None:
        if saved and self.pipe.store.refused:
            error = self.pipe.store.refused.pop(self.request.request_id, None)
            if error is not None and self._replaced(error):
                return
            saved = error is None
        self.leave()
        if saved:
            self.pipe.watcher.saved(self.outcome)
        if self.pipe.follower is not None:
            self.pipe.follower.ended(self.outcome)

    def _replaced(self, error: Exception) -> bool:
        """Whether a failure is on its way to the disk in place of rows that could not be inserted."""
        pipe, failure = self.pipe, unstorable(self.outcome, error)
        if failure is None:
            return False
        self.outcome = failure
        return pipe.store.offer(rows_of_outcome(failure, pipe.session_id, utc_now()), self.committed, at_once=True)

    def leave(self) -> None:
        if self.has_place:
            self.has_place = False
            self.pipe.places.leave()

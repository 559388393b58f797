"""Producer -> workers -> store, bounded at every step: one task group, two bounded queues, no loose tasks.

The second queue is the store's own group of rows waiting for their commit. Between them stands the gate: a request may
be sent while fewer than `concurrency` are sent and not yet on disk, so a kill costs at most that many second sends.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Protocol

from kvt_async.contract.errors import KvtError
from kvt_async.engine.slots import Slots
from kvt_async.records import Attempt, Outcome, Request
from kvt_async.store.rows import rows_of_attempt, rows_of_outcome
from kvt_async.store.writer import Writer

WORKERS_PER_SLOT = 4  # a worker whose request waits between two tries holds no slot
AHEAD_BYTES = 12 * 1024 * 1024  # of bodies that wait for their first turn
Record = Callable[[Request, Attempt], Awaitable[None]]
Admit = Callable[[], Awaitable[None]]


class Send(Protocol):
    """Send a request to its end; await `admit` before each try, hand every attempt but the last to `record`.

    Failures are outcomes, not exceptions.
    """

    async def __call__(self, request: Request, record: Record, *, admit: Admit, scheduled_ns: int) -> Outcome: ...


class Watcher(Protocol):
    """Told what happened, on the event loop; must return at once."""

    def attempted(self, request: Request, attempt: Attempt) -> None: ...
    def saved(self, outcome: Outcome) -> None: ...


class Gate:
    """Counts requests that are sent and not yet saved; at most `size`."""

    def __init__(self, size: int, store: Writer) -> None:
        self._slots, self._store = Slots(size), store
        store.urgent = lambda: self._slots.waiting > 0

    async def enter(self) -> None:
        """Wait until one more may be sent; whoever asked first goes first."""
        if self._slots.held >= self._slots.limit:
            self._store.hurry()
        await self._slots.acquire()

    def leave(self) -> None:
        self._slots.release()


class Ahead:
    """Counts the bytes of bodies that were made and have not had their first turn; one may always wait."""

    def __init__(self, limit: int = AHEAD_BYTES) -> None:
        self.limit, self.bytes = limit, 0
        self._room = asyncio.Event()

    async def enter(self, size: int) -> None:
        """Wait until a body of `size` has room."""
        while self.bytes and self.bytes + size > self.limit:
            self._room.clear()
            await self._room.wait()
        self.bytes += size

    def leave(self, size: int) -> None:
        self.bytes -= size
        self._room.set()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What the steps share."""

    send: Send
    store: Writer
    gate: Gate
    watcher: Watcher
    stop: asyncio.Event
    session_id: str
    now: Callable[[], str]
    ahead: Ahead = field(default_factory=Ahead)


Scheduled = tuple[Request, int]  # and when the producer made it, monotonic ns


async def send_all(requests: AsyncIterator[Request], pipe: Pipeline, *, concurrency: int) -> None:
    """Send every request and save every outcome; return when all are saved.

    Memory is bounded by the queues. Setting `pipe.stop` ends production: what is in flight finishes and is saved. A bug
    anywhere cancels everything; a request without a saved outcome was not done: the next run sends it.
    """
    workers = concurrency * WORKERS_PER_SLOT
    todo: asyncio.Queue[Scheduled | None] = asyncio.Queue(maxsize=workers)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_produce(requests, todo, pipe, workers), name="produce")
            for n in range(workers):
                group.create_task(_work(todo, pipe), name=f"work-{n}")
    except BaseExceptionGroup as errors:
        raise first_error(errors) from errors
    await pipe.store.flush()


async def _produce(
    requests: AsyncIterator[Request], todo: asyncio.Queue[Scheduled | None], pipe: Pipeline, workers: int
) -> None:
    async for request in requests:
        if pipe.stop.is_set():
            break
        await pipe.ahead.enter(len(request.body))
        await todo.put((request, perf_counter_ns()))
    for _ in range(workers):
        await todo.put(None)


async def _work(todo: asyncio.Queue[Scheduled | None], pipe: Pipeline) -> None:
    while (item := await todo.get()) is not None:  # None: the producer has nothing more for us
        if pipe.stop.is_set():  # it was queued and not started: it stays pending
            pipe.ahead.leave(len(item[0].body))
        else:
            await _Sending(item[0], pipe).run(item[1])


class _Sending:
    """One request on its way; knows whether it is inside the gate, and whether it still waits for its first turn."""

    __slots__ = ("ahead", "inside", "pipe", "request")

    def __init__(self, request: Request, pipe: Pipeline) -> None:
        self.request, self.pipe, self.inside, self.ahead = request, pipe, False, True

    async def run(self, scheduled_ns: int) -> None:
        pipe, request = self.pipe, self.request
        try:
            outcome = await pipe.send(request, self.record, admit=self.admit, scheduled_ns=scheduled_ns)
        except BaseException:
            self.leave()
            raise
        finally:
            self.turned()
        if outcome.last is None:
            self.leave()  # nothing was sent in its last turn
        else:
            pipe.watcher.attempted(request, outcome.last)
        if rows := rows_of_outcome(outcome, pipe.session_id, pipe.now()):
            saved = await pipe.store.submit(rows)
            saved.add_done_callback(lambda future: self.committed(future, outcome))

    async def admit(self) -> None:
        """Before each try: wait until so few are sent and unsaved that one more may be."""
        await self.pipe.gate.enter()
        self.inside = True
        self.turned()

    async def record(self, request: Request, attempt: Attempt) -> None:
        """An attempt that was not the last."""
        self.pipe.watcher.attempted(request, attempt)
        await self.pipe.store.save(rows_of_attempt(request, attempt, self.pipe.session_id, self.pipe.now()))
        self.leave()

    def committed(self, future: "asyncio.Future[None]", outcome: Outcome) -> None:
        self.leave()
        if not future.cancelled() and future.exception() is None:
            self.pipe.watcher.saved(outcome)

    def turned(self) -> None:
        """Its first turn has come, or will not."""
        if self.ahead:
            self.ahead = False
            self.pipe.ahead.leave(len(self.request.body))

    def leave(self) -> None:
        if self.inside:
            self.inside = False
            self.pipe.gate.leave()


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error a user should see: one of ours if there is one, else the first."""
    flat: list[BaseException] = []
    stack: list[BaseException] = [errors]
    while stack:
        error = stack.pop(0)
        if isinstance(error, BaseExceptionGroup):
            stack = [*error.exceptions, *stack]
        else:
            flat.append(error)
    return next((e for e in flat if isinstance(e, KvtError)), flat[0])

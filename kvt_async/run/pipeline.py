"""Producer -> workers -> store, bounded at every step: one task group, two bounded queues, no loose tasks.

The second queue is the store's own group of rows waiting for their commit. Between them stands the gate: a request may
be sent while fewer than `concurrency` are sent and not yet on disk, so a kill costs at most that many second sends.
"""

import asyncio
from collections import deque
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

    def enter_at_once(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        return self._slots.take_free()

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

    def enter_at_once(self, size: int) -> bool:
        """Whether a body of `size` has room; then it is counted."""
        if self.bytes and self.bytes + size > self.limit:
            return False
        self.bytes += size
        return True

    async def enter(self, size: int) -> None:
        """Wait until a body of `size` has room."""
        while not self.enter_at_once(size):
            self._room.clear()
            await self._room.wait()

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


class Todo:
    """A bounded line from one producer to the workers.

    A producer that waits for room is woken when half of the line is gone: a turn of the loop for every request would
    cost a good part of sending it.
    """

    def __init__(self, size: int) -> None:
        self._size, self._items = size, deque[Scheduled]()
        self._room: asyncio.Future[None] | None = None
        self._takers: deque[asyncio.Future[None]] = deque()
        self._ended = False

    async def put(self, item: Scheduled) -> None:
        if len(self._items) >= self._size:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        self._items.append(item)
        self._wake(1)

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._wake(len(self._takers))

    async def get(self) -> Scheduled | None:
        """The next; None: there are no more."""
        while not self._items:
            if self._ended:
                return None
            taker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._takers.append(taker)
            await taker
        item = self._items.popleft()
        if self._room is not None and len(self._items) <= self._size // 2:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None
        return item

    def _wake(self, n: int) -> None:
        while n and self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                n -= 1


async def send_all(requests: AsyncIterator[Request], pipe: Pipeline, *, concurrency: int) -> None:
    """Send every request and save every outcome; return when all are saved.

    Memory is bounded by the queues. Setting `pipe.stop` ends production: what is in flight finishes and is saved. A bug
    anywhere cancels everything; a request without a saved outcome was not done: the next run sends it.
    """
    workers = concurrency * WORKERS_PER_SLOT
    todo = Todo(workers)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_produce(requests, todo, pipe), name="produce")
            for n in range(workers):
                group.create_task(_work(todo, pipe), name=f"work-{n}")
    except BaseExceptionGroup as errors:
        raise first_error(errors) from errors
    await pipe.store.flush()


async def _produce(requests: AsyncIterator[Request], todo: Todo, pipe: Pipeline) -> None:
    async for request in requests:
        if pipe.stop.is_set():
            break
        size = len(request.body)
        if not pipe.ahead.enter_at_once(size):
            await pipe.ahead.enter(size)
        await todo.put((request, perf_counter_ns()))
    todo.end()


async def _work(todo: Todo, pipe: Pipeline) -> None:
    while (item := await todo.get()) is not None:
        if pipe.stop.is_set():  # it was queued and not started: it stays pending
            pipe.ahead.leave(len(item[0].body))
        else:
            await _Sending(item[0], pipe).run(item[1])


class _Sending:
    """One request on its way; knows whether it is inside the gate, and whether it still waits for its first turn."""

    __slots__ = ("ahead", "inside", "outcome", "pipe", "request")

    def __init__(self, request: Request, pipe: Pipeline) -> None:
        self.request, self.pipe, self.inside, self.ahead = request, pipe, False, True
        self.outcome: Outcome

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
            self.outcome = outcome
            await pipe.store.submit(rows, self.committed)

    async def admit(self) -> None:
        """Before each try: wait until so few are sent and unsaved that one more may be."""
        gate = self.pipe.gate
        if not gate.enter_at_once():
            await gate.enter()
        self.inside = True
        self.turned()

    async def record(self, request: Request, attempt: Attempt) -> None:
        """An attempt that was not the last."""
        self.pipe.watcher.attempted(request, attempt)
        await self.pipe.store.save(rows_of_attempt(request, attempt, self.pipe.session_id, self.pipe.now()))
        self.leave()

    def committed(self, saved: bool) -> None:
        self.leave()
        if saved:
            self.pipe.watcher.saved(self.outcome)

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

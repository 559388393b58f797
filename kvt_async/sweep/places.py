"""The line of requests between their producer and the workers, and the places for those that are under way.

A request leaves the line together with a place, and keeps it until its outcome is on disk: a kill costs at most as many
second sends as there are places. Bodies that wait are bounded by number and by bytes.
"""

import asyncio
from collections import deque

from kvt_async.records import Request
from kvt_async.store.writer import Writer

AHEAD_BYTES = 12 * 1024 * 1024
Scheduled = tuple[Request, int]  # and when the producer made it, monotonic ns


class Line:
    """One producer, any number of workers; `places` are free or taken."""

    def __init__(self, places: int, length: int, store: Writer, *, ahead_bytes: int = AHEAD_BYTES) -> None:
        """`length`: requests that may wait; `ahead_bytes`: of their bodies, but one may always wait."""
        self._free, self._length, self._ahead_bytes, self._store = places, length, ahead_bytes, store
        self._items: deque[Scheduled] = deque()
        self._bytes = 0
        self._ended = False
        self._room: asyncio.Future[None] | None = None  # of a producer that waits
        self._size = 0  # of the body it waits with
        self._idle: list[asyncio.Future[Scheduled | None]] = []  # workers; who came last is warmest
        self._again: deque[asyncio.Future[None]] = deque()  # requests that wait for a place for another try
        store.urgent, store.batch = self._wanted, max(1, places // 2)  # while one half is saved the other is under way

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    async def put(self, request: Request, scheduled_ns: int) -> None:
        """Wait for room, and take a place at the end. There is room again when half of the line is gone: a turn of the
        loop for every request would cost a good part of sending it."""
        size = len(request.body)
        if len(self._items) >= self._length or self._bytes + size > self._ahead_bytes:
            while not self._has_room(size):
                self._room, self._size = asyncio.get_running_loop().create_future(), size
                await self._room
        self._items.append((request, scheduled_ns))
        self._bytes += size
        if self._free and self._idle:
            self._hand_out()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._hand_out()

    async def take(self) -> Scheduled | None:
        """The next request, with a place; None, without one: there are no more."""
        if self._items and self._free and not self._again:
            self._free -= 1
            return self._next()
        if self._ended and not self._items:
            return None
        waiter: asyncio.Future[Scheduled | None] = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        if self._items:
            self._store.hurry()
        return await waiter

    async def again(self) -> None:
        """A place for another try of a request that gave its own back; before any request that was never sent."""
        if self._free and not self._again:
            self._free -= 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._again.append(waiter)
        self._store.hurry()
        await waiter

    def leave(self) -> None:
        """Give a place back."""
        self._free += 1
        self._hand_out()

    def _wanted(self) -> bool:
        """Whether anybody waits for a commit."""
        return not self._free and bool(self._items or self._again)

    def _hand_out(self) -> None:
        while self._free and self._again:
            again = self._again.popleft()
            if not again.done():
                self._free -= 1
                again.set_result(None)
        while self._free and self._items and self._idle:
            idle = self._idle.pop()
            if not idle.done():
                self._free -= 1
                idle.set_result(self._next())
        if self._ended and not self._items:
            while self._idle:
                idle = self._idle.pop()
                if not idle.done():
                    idle.set_result(None)

    def _next(self) -> Scheduled:
        item = self._items.popleft()
        self._bytes -= len(item[0].body)
        if self._room is not None and self._has_room(self._size):
            if not self._room.done():
                self._room.set_result(None)
            self._room = None
        return item

    def _has_room(self, size: int) -> bool:
        half_gone = len(self._items) <= self._length // 2 and self._bytes + size <= self._ahead_bytes
        return half_gone or not self._items

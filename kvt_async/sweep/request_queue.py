"""Requests between the producer that makes them and the workers that send them, bounded by number and by bytes.

    producer -- put() --> | `length` requests, `ahead_bytes` of bodies | -- get() --> a worker that has a place
                    ^                                                        |
                    '---------- goes on when half of it is gone -------------'

Long prompts are what memory goes to, so bodies are counted too. A producer that met a full queue goes on when half of
it is gone: a turn of the event loop for every request would cost a good part of sending it.
"""

import asyncio
from collections import deque

from kvt_async.records import Request

AHEAD_BYTES = 12 * 1024 * 1024
Scheduled = tuple[Request, int]  # and when the producer made it, monotonic ns


class RequestQueue:
    """One producer, any number of workers, which wait for a request before they take a place, and get it after."""

    def __init__(self, length: int, *, ahead_bytes: int = AHEAD_BYTES) -> None:
        """`length`: requests that may wait; `ahead_bytes`: of their bodies, but one may always wait."""
        self._length, self._ahead_bytes = length, ahead_bytes
        self._items: deque[Scheduled] = deque()
        self._bytes = 0
        self._ended = False
        self._room: asyncio.Future[None] | None = None  # the producer waits on it
        self._size = 0  # of the body that it waits with
        self._idle: list[asyncio.Future[None]] = []  # workers

    @property
    def has_some(self) -> bool:
        return bool(self._items)

    async def put(self, request: Request, scheduled_ns: int) -> None:
        """Wait for room, and stand at the end."""
        size = len(request.body)
        if len(self._items) >= self._length or self._bytes + size > self._ahead_bytes:
            while not self._has_room(size):
                self._room, self._size = asyncio.get_running_loop().create_future(), size
                await self._room
        self._items.append((request, scheduled_ns))
        self._bytes += size
        if self._idle:
            self._wake()

    def end(self) -> None:
        """Say that nothing more comes."""
        self._ended = True
        while self._idle:
            self._wake()

    async def wait(self) -> bool:
        """Return once a request waits; False: there are no more. Another worker may be the faster one to get it."""
        while not self._items:
            if self._ended:
                return False
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter
        return True

    def get(self) -> Scheduled | None:
        """The next request; None: somebody else has got it."""
        if not self._items:
            return None
        item = self._items.popleft()
        self._bytes -= len(item[0].body)
        if self._room is not None and self._has_room(self._size):
            if not self._room.done():
                self._room.set_result(None)
            self._room = None
        return item

    def _wake(self) -> None:
        """Wake one worker that waits and is not gone."""
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _has_room(self, size: int) -> bool:
        half_gone = len(self._items) <= self._length // 2 and self._bytes + size <= self._ahead_bytes
        return half_gone or not self._items

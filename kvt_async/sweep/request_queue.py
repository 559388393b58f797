"""Requests between the producer that makes them and the workers that send them, bounded by number and by bytes.

    put() --> | waiting for a worker | --> get() --> | a worker's, waiting for a place | --> begun() --> sent
              '------- `length` requests, `ahead_bytes` of bodies: both together ------'

Long prompts are what memory goes to, so a body counts until its request begins to be sent. A producer that met a full
queue goes on when half of it is gone: a turn of the event loop for every request would cost a good part of sending it.
"""

import asyncio
from collections import deque

from kvt_async.records import Request

AHEAD_BYTES = 12 * 1024 * 1024
Scheduled = tuple[Request, int]  # and when the producer made it, monotonic ns


class RequestQueue:
    """One producer, any number of workers."""

    def __init__(self, length: int, *, ahead_bytes: int = AHEAD_BYTES) -> None:
        """`length`: requests that may wait; `ahead_bytes`: of their bodies, but one may always wait."""
        self._length, self._ahead_bytes = length, ahead_bytes
        self._items: deque[Scheduled] = deque()
        self._n = self._bytes = 0  # put and not begun
        self._ended = False
        self._room: asyncio.Future[None] | None = None  # the producer waits on it
        self._size = 0  # of the body that it waits with
        self._idle: list[asyncio.Future[None]] = []  # workers; the last one is woken first: its memory is still cached

    @property
    def waiting_bytes(self) -> int:
        """Of bodies that are put and not begun."""
        return self._bytes

    async def put(self, request: Request, scheduled_ns: int) -> None:
        """Wait for room, and stand at the end."""
        size = len(request.body)
        if self._n >= self._length or self._bytes + size > self._ahead_bytes:
            while not self._has_room(size):
                self._room, self._size = asyncio.get_running_loop().create_future(), size
                await self._room
        self._items.append((request, scheduled_ns))
        self._n += 1
        self._bytes += size
        self._wake()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        while self._idle:
            self._wake()

    async def get(self) -> Scheduled | None:
        """The next request; None: there are no more."""
        while not self._items:
            if self._ended:
                return None
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter
        return self._items.popleft()

    def begun(self, request: Request) -> None:
        """It is being sent, or will not be: its room is free."""
        self._n -= 1
        self._bytes -= len(request.body)
        if self._room is not None and self._has_room(self._size):
            if not self._room.done():
                self._room.set_result(None)
            self._room = None

    def _wake(self) -> None:
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _has_room(self, size: int) -> bool:
        half_gone = self._n <= self._length // 2 and self._bytes + size <= self._ahead_bytes
        return half_gone or not self._n

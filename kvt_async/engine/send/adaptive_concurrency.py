"""How many requests may be in flight: a FIFO semaphore whose size can follow what the server bears."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

CUT = 0.8
COOL_DOWN_S = 15.0  # a burst of refusals is one sign, not many
START = 8  # adaptive: where to begin, if the bound allows


class Slots:
    """At most `limit` are held at once; whoever asked first gets the next. `limit` never exceeds `size`.

    adaptive: starts small; doubles after a clean round in which most slots were used, grows by a twentieth once it has
    met the server's limit; a refusal (429, 503) takes a fifth away, at most once in COOL_DOWN_S.
    """

    def __init__(self, size: int, *, adaptive: bool = False) -> None:
        self.size, self._adaptive = size, adaptive
        self.limit = min(size, START) if adaptive else size
        self.held = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._clean = self._peak = 0
        self._refused_at: float | None = None
        self.on_cut: Callable[[], None] | None = None  # called when a refusal has lowered `limit`

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    def take_free(self) -> bool:
        """A slot, if one is free and nobody waits for it."""
        if self.held < self.limit and not self._waiters:
            self._take()
            return True
        return False

    async def acquire(self) -> None:
        if self.take_free():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter  # whoever wakes us has taken the slot in our name
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()
            else:
                with suppress(ValueError):  # already passed over by whoever found it cancelled
                    self._waiters.remove(waiter)
            raise

    def release(self) -> None:
        self.held -= 1
        self._wake()

    def begin_with(self, limit: int) -> None:
        """Where several processes share a bound that adapts, each begins with its part of START, at least 1."""
        if self._adaptive:
            self.limit = min(self.size, max(1, limit))

    def succeeded(self) -> None:
        """A request went through at its first try."""
        if not self._adaptive or self._cooling():
            return
        self._clean += 1
        if self._clean >= max(self.limit, 4):
            if self._peak >= 0.8 * self.limit and self.limit < self.size:
                grown = self.limit * 2 if self._refused_at is None else self.limit + max(1, self.limit // 20)
                self.limit = min(self.size, grown)
                self._wake()
            self._clean, self._peak = 0, self.held

    def refused(self) -> None:
        """The server said 429 or 503."""
        if self._adaptive and not self._cooling():
            self._refused_at = asyncio.get_running_loop().time()
            self.limit = max(1, int(self.limit * CUT))
            self._clean = self._peak = 0
            if self.on_cut is not None:
                self.on_cut()

    def _cooling(self) -> bool:
        return self._refused_at is not None and asyncio.get_running_loop().time() < self._refused_at + COOL_DOWN_S

    def _take(self) -> None:
        self.held += 1
        self._peak = max(self._peak, self.held)

    def _wake(self) -> None:
        while self._waiters and self.held < self.limit:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._take()
                waiter.set_result(None)

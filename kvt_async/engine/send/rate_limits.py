"""When an attempt may be sent: one FIFO line through a slot and two token buckets (requests/min and tokens/min).

aiolimiter's bucket is exact for one waiter and unfair to large ones among many (it wakes the smallest first), so only
the head of the line ever waits at a bucket. Its capacity is one second of the rate: a bucket of a whole minute would
let two minutes' worth go in the first. A prompt larger than that is taken in slices. Time is the event loop's clock.
"""

import asyncio
from collections import deque

from aiolimiter import AsyncLimiter

from kvt_async.contract.settings import Limits
from kvt_async.engine.send.adaptive_concurrency import Slots

MINUTE = 60.0
TOLERANCE = 1.05


class Bucket:
    """A rate per minute, for one waiter at a time: never more than 5% over it in any minute.

    The bucket alone would let a large amount, saved up before a minute began, count on top of that minute's own; so
    what went through in the last minute is remembered. Only an amount beyond the whole limit can't be kept under it: it
    goes alone.
    """

    def __init__(self, per_minute: float) -> None:
        per_second = per_minute / MINUTE
        self.capacity = max(per_second, 1.0)
        self._bucket = AsyncLimiter(self.capacity, self.capacity / per_second)
        self._most = TOLERANCE * per_minute
        self._recent: deque[tuple[float, float]] = deque()  # (when, amount) of the last minute
        self._sum = 0.0

    async def take(self, amount: float) -> None:
        left = amount
        while left > 0:
            part = min(left, self.capacity)
            await self._bucket.acquire(part)
            left -= part
        loop = asyncio.get_running_loop()
        while self._recent and self._sum + amount > self._most:
            await asyncio.sleep(max(0.0, self._recent[0][0] + MINUTE - loop.time()))
            self._forget(loop.time())
        self._forget(loop.time())
        self._recent.append((loop.time(), amount))
        self._sum += amount

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0][0] <= now - MINUTE:
            self._sum -= self._recent.popleft()[1]
        if not self._recent:
            self._sum = 0.0


class Dispatcher:
    """`enter` waits for an attempt's turn and takes a slot for it; `leave` gives the slot back.

    `owed`: tokens that replies cost beyond their estimate; `owed_requests`: sends that could not wait for a permit.
    Whoever is next in line pays both first.
    """

    def __init__(self, limits: Limits) -> None:
        self.slots = Slots(limits.concurrency, adaptive=limits.adaptive)
        self.owed = 0.0
        self.owed_requests = 0
        self._requests = Bucket(limits.requests_per_minute) if limits.requests_per_minute else None
        self._tokens = Bucket(limits.tokens_per_minute) if limits.tokens_per_minute else None
        self._turn = asyncio.Lock() if self._requests or self._tokens else None
        self._in_line = 0

    @property
    def waiting(self) -> int:
        return self._in_line

    def enter_at_once(self) -> bool:
        """Take a slot if that needs no waiting: no rates, nobody before us, a slot free."""
        return self._turn is None and self.slots.take_free()

    async def enter(self, tokens: int) -> None:
        """Wait for a slot and the right to send `tokens` (estimated). Pair with `leave`."""
        self._in_line += 1
        try:
            if self._turn is None:
                await self.slots.acquire()
                return
            async with self._turn:  # first come, first served: a long prompt is not overtaken by short ones
                await self.slots.acquire()
                try:
                    if self._tokens is not None:
                        owed, self.owed = self.owed, 0.0
                        await self._tokens.take(tokens + owed)
                    if self._requests is not None:
                        owed_requests, self.owed_requests = self.owed_requests, 0
                        await self._requests.take(1 + owed_requests)
                except BaseException:
                    self.slots.release()
                    raise
        finally:
            self._in_line -= 1

    def leave(self, estimated: int, used: int | None) -> None:
        """Give the slot back. `used`: prompt and completion tokens as the server counted them; None: it didn't say."""
        self.slots.release()
        if self._tokens is not None and used is not None and used > estimated:
            self.owed += used - estimated

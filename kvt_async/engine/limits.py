"""When an attempt may be sent: one FIFO line through a slot and two token buckets (requests/min and tokens/min).

aiolimiter's bucket is exact for one waiter and unfair to large ones among many (it wakes the smallest first), so only
the head of the line ever waits at a bucket. Its capacity is one second of the rate: a bucket of a whole minute would
let two minutes' worth go in the first. A prompt larger than that is taken in slices. Time is the event loop's clock.
"""

import asyncio

from aiolimiter import AsyncLimiter

from kvt_async.contract.settings import Limits
from kvt_async.engine.slots import Slots

MINUTE = 60.0


class Bucket:
    """A rate per minute. Never more than 5% over it in any minute, for amounts of any size."""

    def __init__(self, per_minute: float, smallest: float) -> None:
        per_second = per_minute / MINUTE
        self.capacity = max(per_second, smallest)
        self._bucket = AsyncLimiter(self.capacity, self.capacity / per_second)

    async def take(self, amount: float) -> None:
        while amount > 0:
            part = min(amount, self.capacity)
            await self._bucket.acquire(part)
            amount -= part


class Dispatcher:
    """`enter` waits for an attempt's turn and takes a slot for it; `leave` gives the slot back.

    `owed`: tokens that replies cost beyond their estimate; `owed_requests`: sends that could not wait for a permit.
    Whoever is next in line pays both first.
    """

    def __init__(self, limits: Limits) -> None:
        self.slots = Slots(limits.concurrency, adaptive=limits.adaptive)
        self.owed = 0.0
        self.owed_requests = 0
        self._requests = Bucket(limits.requests_per_minute, 1.0) if limits.requests_per_minute else None
        self._tokens = Bucket(limits.tokens_per_minute, 1.0) if limits.tokens_per_minute else None
        self._turn = asyncio.Lock() if self._requests or self._tokens else None
        self._in_line = 0

    @property
    def waiting(self) -> int:
        return self._in_line

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

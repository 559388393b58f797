"""Places for requests that are under way: a kill costs at most as many second sends as there are places.

         take() ------------------> held ------- the outcome is on disk: leave() -----> free
           |  free                   ^                                                    |
           '--> waits in a line -----'<------- first who tries again, then who is new ----'

A request takes a place before its first try and keeps it until its outcome is committed. One that sleeps between two
tries has given its place back, with its attempt on disk, and takes one again before it is sent again: then it goes
before every request that was never sent, so that what was begun is ended.
"""

import asyncio
from collections import deque


class Places:
    """A semaphore with two kinds of waiters: who tries again, in order, and workers that have sent nothing yet. Of
    these the last is served first: its memory is still in the processor's cache, and requests keep their own order."""

    def __init__(self, n: int) -> None:
        self.n = self._free = n
        self._again: deque[asyncio.Future[None]] = deque()
        self._fresh: list[asyncio.Future[None]] = []

    def are_wanted(self) -> bool:
        """Whether anybody waits for one: only a commit gives it back."""
        return bool(self._again or self._fresh)

    def take_at_once(self) -> bool:
        """Take a place if one is free; then nobody waits."""
        if not self._free:
            return False
        self._free -= 1
        return True

    async def take(self, *, again: bool = False) -> None:
        """Wait for a place. `again`: for another try."""
        if self.take_at_once():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._again if again else self._fresh).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it was given one, and will not use it
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back, to somebody who waits and is not gone."""
        while self._again or self._fresh:
            waiter = self._again.popleft() if self._again else self._fresh.pop()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

"""Times at which this process did not run: stopped (Ctrl-Z), or the machine asleep. What timed out then says nothing of
a server."""

import asyncio
import time

TICK_S, LEAST_S = 0.25, 2.0  # between two looks; a shorter gap is a busy machine, and limits are longer than that


class Pauses:
    """Notes them while it is started, on the running loop."""

    def __init__(self) -> None:
        self.ended_s: float | None = None  # when the newest one ended, on time.perf_counter's clock
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._last = time.perf_counter()
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def since(self, began_s: float) -> bool:
        """Whether a pause ended after that instant."""
        self._note(time.perf_counter())
        return self.ended_s is not None and self.ended_s > began_s

    def _look(self) -> None:
        self._note(time.perf_counter())
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._look)

    def _note(self, now: float) -> None:
        if now - self._last > LEAST_S:
            self.ended_s = now
        self._last = now

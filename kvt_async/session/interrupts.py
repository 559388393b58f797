"""Ctrl-C: the first stops starting and lets what is in flight finish within a grace period, the second cancels."""

import asyncio
import signal
from collections.abc import Callable
from types import TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Handles signals while the block runs, on the main thread's loop; `stop` is set by the first of them."""

    def __init__(self, grace_s: float, say: Callable[[str], None]) -> None:
        self.stop = asyncio.Event()
        self.hit = False
        self.draining = False  # True while requests are in flight: before and after, a signal cancels at once
        self._grace_s, self._say = grace_s, say
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> "Interrupts":
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        for signum in SIGNALS:
            self._loop.add_signal_handler(signum, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.settle()
        for signum in SIGNALS:
            self._loop.remove_signal_handler(signum)

    def settle(self) -> None:
        """The work has ended: the grace period no longer runs."""
        self.draining = False
        if self._timer is not None:
            self._timer.cancel()

    def _on_signal(self) -> None:
        first, self.hit = not self.hit, True
        self.stop.set()
        if first and self.draining and self._grace_s > 0:
            self._say(f"stopping: what is in flight may finish within {self._grace_s:g} s; again to cancel it")
            self._timer = self._loop.call_later(self._grace_s, self._cancel)
        else:
            self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

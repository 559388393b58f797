"""Waking at an absolute instant. An event loop's timers are rounded up to the millisecond by epoll; a timerfd isn't.

Where there is none (not Linux) the loop's timers do, and late starts show in `send_lag_s` as everywhere.
"""

import asyncio
import ctypes
import heapq
import os
import sys
import time
from contextlib import suppress
from types import TracebackType

_CLOCK_MONOTONIC, _TFD_NONBLOCK, _TFD_CLOEXEC, _ABSTIME = 1, 0o4000, 0o2000000, 1


class _Spec(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]


class Timer:
    """`until(due_ns)` returns at that instant of perf_counter_ns, or at once if it has passed; for any number of
    waiters."""

    def __enter__(self) -> "Timer":
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap by due time
        self._n = 0
        self._fd: int | None = None
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
            if fd >= 0:
                self._fd = fd
                self._loop.add_reader(fd, self._fired)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)

    async def until(self, due_ns: int) -> None:
        left = due_ns - time.perf_counter_ns()
        if left <= 0:
            return
        if self._fd is None:
            await asyncio.sleep(left / 1e9)
            return
        woken: asyncio.Future[None] = self._loop.create_future()
        self._n += 1
        heapq.heappush(self._waiting, (due_ns, self._n, woken))
        if self._waiting[0][2] is woken:
            self._arm(due_ns)
        await woken

    def _arm(self, due_ns: int) -> None:
        spec = _Spec(0, 0, *divmod(due_ns, 1_000_000_000))  # perf_counter is CLOCK_MONOTONIC on Linux
        if self._libc.timerfd_settime(self._fd, _ABSTIME, ctypes.byref(spec), None) != 0:
            self._loop.call_later(max(due_ns - time.perf_counter_ns(), 0) / 1e9, self._fired)

    def _fired(self) -> None:
        assert self._fd is not None
        with suppress(BlockingIOError):  # set anew since it fired
            os.read(self._fd, 8)
        now = time.perf_counter_ns()
        while self._waiting and (self._waiting[0][0] <= now or self._waiting[0][2].done()):
            woken = heapq.heappop(self._waiting)[2]
            if not woken.done():  # nobody waits any more
                woken.set_result(None)
        if self._waiting:
            self._arm(self._waiting[0][0])

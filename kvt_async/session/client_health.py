"""Was it the server or the client? What this process did to its own measurements, and a verdict with a bound.

A latency is wrong by at most the time between a byte's arrival and the stamp on it. The loop's own lag bounds that; a
process at the end of its core, a long GC pause or a late send show the same illness from other sides.
"""

import asyncio
import gc
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.vocabulary import ClientVerdict
from kvt_async.records import Attempt, Json
from kvt_async.session.session import Session

TICK_S = 0.01
MAX_LAG_MS = 2.0  # below this a client is clean whatever it measures
MAX_SEND_LAG_MS = 10.0  # never inside a latency, but the load is then not what was asked for
MAX_GC_SHARE = 0.05
SHARE_OF_TTFT = 0.015  # measured: at 4% of TTFT medians still hold, but p99 is off by several percent
MAX_CPU_SHARE = 0.9
GC_THRESHOLDS = (20_000, 20, 20)  # a reply makes hundreds of objects and no cycles: Python's 700 is a look every few


class DurationHistogram:
    """Counts of durations in ms over logarithmic cells (9% wide): constant memory, any length of run."""

    _PER_OCTAVE, _LOWEST_MS = 8, 0.001
    _CELLS, _BELOW = 40 * _PER_OCTAVE, math.log2(_LOWEST_MS) * _PER_OCTAVE

    def __init__(self) -> None:
        self._counts = [0] * self._CELLS
        self.n, self.max_ms = 0, 0.0

    def add(self, ms: float) -> None:
        cell = int(math.log2(ms) * self._PER_OCTAVE - self._BELOW) if ms > self._LOWEST_MS else 0
        self._counts[cell if cell < self._CELLS else -1] += 1
        self.n += 1
        self.max_ms = max(self.max_ms, ms)

    def quantile_ms(self, q: float) -> float:
        """Upper edge of the cell that holds the quantile; 0 when empty."""
        rank, seen = q * self.n, 0
        for cell, count in enumerate(self._counts):
            seen += count
            if count and seen >= rank:
                return float(min(self.max_ms, self._LOWEST_MS * 2 ** ((cell + 1) / self._PER_OCTAVE)))
        return 0.0


Clocks = tuple[int, float, float]  # an instant in ns; CPU seconds of the process and of its event loop's thread


def own_clocks() -> Clocks:
    """What these clocks show now, called on the event loop's thread."""
    return time.perf_counter_ns(), time.process_time(), time.thread_time()


class Health:
    """Watches this process from `start` to `stop`; `watch` is the ticker to run beside the requests."""

    def __init__(self, clocks: Callable[[], Clocks] = own_clocks) -> None:
        self._clocks = clocks
        self.lag, self.send_lag = DurationHistogram(), DurationHistogram()
        self.ttft_ms: deque[float] = deque(maxlen=4096)
        self.coalesced = self.stamped = self.gc_runs = 0
        self.gc_max_ms = self.gc_total_ms = 0.0
        self._gc_began = 0
        self._gc_thresholds = gc.get_threshold()
        self._began = self._ended = (0, 0.0, 0.0)

    def start(self) -> None:
        """Freeze what set-up left on the heap, so that collections during the run have little to walk."""
        gc.collect()
        gc.freeze()
        self._gc_thresholds = gc.get_threshold()
        gc.set_threshold(*GC_THRESHOLDS)
        gc.callbacks.append(self._on_gc)
        self._began = self._ended = self._clocks()

    def stop(self) -> None:
        self._ended = self._clocks()
        if self._on_gc in gc.callbacks:
            gc.callbacks.remove(self._on_gc)
        gc.unfreeze()
        gc.set_threshold(*self._gc_thresholds)

    async def watch(self) -> None:
        """Note how late each tick comes, against an absolute schedule; runs until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + TICK_S
        while True:
            await asyncio.sleep(due - loop.time())
            late = max(loop.time() - due, 0.0)  # a timer that is good to the millisecond may also come early
            self.lag.add(late * 1000)
            due += TICK_S * (1 + late // TICK_S)  # a block of 100 ms is one late tick, not ten

    def saw(self, attempt: Attempt) -> float | None:
        """Note it; return its time to first token in ms, None where it shows none."""
        marks = attempt.marks
        start_ns = marks.start_ns
        if start_ns is None:
            return None
        ready = marks.limits_ns if marks.conn_reused else marks.conn_ready_ns
        if ready is not None:
            self.send_lag.add((start_ns - ready) / 1e6)
        if marks.first_text_coalesced is not None:  # text came
            self.stamped += 1
            self.coalesced += marks.first_text_coalesced
            first, reasoning = marks.first_content_ns, marks.first_reasoning_ns
            if reasoning is not None and (first is None or reasoning < first):
                first = reasoning
            if first is not None:
                self.ttft_ms.append(((marks.first_text_kernel_ns or first) - start_ns) / 1e6)
                return self.ttft_ms[-1]
        return None

    def row(self) -> Json:
        """The columns of client_health but its session and time."""
        now = self._ended if self._ended != self._began else self._clocks()
        wall = max((now[0] - self._began[0]) / 1e9, 1e-9)
        cpu, loop_cpu = (now[1] - self._began[1]) / wall, (now[2] - self._began[2]) / wall
        p99, ttft = self.lag.quantile_ms(0.99), _median(self.ttft_ms)
        allowed, late = SHARE_OF_TTFT * ttft, self.send_lag.quantile_ms(0.99)
        signals = [  # how many times over what is allowed, in words
            (p99 / max(MAX_LAG_MS, allowed), f"loop lag p99 {p99:.1f} ms, allowed {max(MAX_LAG_MS, allowed):.1f}"),
            (late / max(MAX_SEND_LAG_MS, allowed), f"send lag p99 {late:.1f} ms"),
            (loop_cpu / MAX_CPU_SHARE, f"the event loop used {loop_cpu:.0%} of a core"),
            (self.gc_total_ms / (wall * 1000) / MAX_GC_SHARE, f"GC took {self.gc_total_ms / (wall * 10):.1f}% of time"),
        ]
        worst, signal = max(signals)
        return {
            "verdict": ClientVerdict.BOUND if worst > 1 else ClientVerdict.CLEAN,
            "error_bound_ms": p99,  # holds for 99% of instants; the maximum stands beside it
            "signal": signal,
            "loop_lag_p50_ms": self.lag.quantile_ms(0.5),
            "loop_lag_p99_ms": p99,
            "loop_lag_max_ms": self.lag.max_ms,
            "send_lag_p99_ms": self.send_lag.quantile_ms(0.99) if self.send_lag.n else None,
            "cpu_share": cpu,
            "gc_pause_max_ms": self.gc_max_ms,
            "detail": {
                "wall_s": wall,
                "loop_cpu_share": loop_cpu,
                "ticks": self.lag.n,
                "gc_runs": self.gc_runs,
                "gc_total_ms": self.gc_total_ms,
                "ttft_p50_ms": ttft,
                "first_reads_stamped": self.stamped,
                "first_reads_coalesced": self.coalesced,
            },
        }

    def _on_gc(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._gc_began = time.perf_counter_ns()
            return
        took_ms = (time.perf_counter_ns() - self._gc_began) / 1e6
        self.gc_runs += 1
        self.gc_total_ms += took_ms
        self.gc_max_ms = max(self.gc_max_ms, took_ms)


async def keep_health(session: Session, health: Json, detail: Json, **logged: str) -> None:
    """A line in the log and a row in `client_health`. `health`: Health.row(); `detail` adds what was sent meanwhile, as
    far as the session counts it; `logged`: what the log names beside it."""
    session.log("client", **logged, **health)
    if session.store.broken is None:
        await asyncio.sleep(0.001)  # a row of the live feed may be of this millisecond, and each has its own
        await session.store.insert("client_health", health_row(session, health, detail))


def health_row(session: Session, health: Json, detail: Json) -> Json:
    """A row of `client_health`, as of now."""
    columns = {name: value for name, value in health.items() if name != "detail"}
    told = orjson.dumps({**health["detail"], **detail}).decode()
    return {"session_id": session.session_id, "created_at": utc_now(), **columns, "detail_json": told}


def _median(values: deque[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0

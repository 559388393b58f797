"""The client's verdict on itself: clean while it keeps up, CLIENT-BOUND once it doesn't, with a bound that holds."""

import asyncio
import gc
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable
from typing import Any

import pytest
from msgspec.structs import replace

from kvt_async.contract.vocabulary import ClientVerdict
from kvt_async.records import Attempt, Marks
from kvt_async.session.client_health import Health, Histogram
from tests.group_db import attempt


def test_a_quantile_is_right_to_a_tenth_and_never_above_the_maximum() -> None:
    values = [random.Random(n).expovariate(1 / 5) for n in range(5000)]
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    for q in (0.5, 0.9, 0.99):
        true = sorted(values)[int(q * len(values))]
        assert true * 0.95 <= histogram.quantile_ms(q) <= true * 1.12
    assert histogram.quantile_ms(1.0) == pytest.approx(max(values))
    assert Histogram().quantile_ms(0.99) == 0


async def watched(work: Awaitable[object], *, ttft_ms: float | None = None) -> dict[str, Any]:
    health = Health()
    if ttft_ms is not None:
        health.saw(late(0, reused=1, ttft_ms=ttft_ms))
    health.start()
    ticker = asyncio.create_task(health.watch())
    await work
    ticker.cancel()
    await asyncio.gather(ticker, return_exceptions=True)
    health.stop()
    return health.row()


async def block(ms: float, times: int) -> None:
    for _ in range(times):
        time.sleep(ms / 1000)  # noqa: ASYNC251  # on purpose
        await asyncio.sleep(0.005)


async def test_a_blocked_loop_is_client_bound_with_a_bound_that_covers_the_block() -> None:
    row = await watched(block(40, 8))
    assert row["verdict"] == ClientVerdict.BOUND
    assert "loop lag" in row["signal"]
    assert row["error_bound_ms"] >= 25
    assert row["loop_lag_max_ms"] >= row["loop_lag_p99_ms"] >= row["loop_lag_p50_ms"]


def late(ms: float, reused: int, ttft_ms: float = 50.0) -> Attempt:
    limits = 1_000_000
    start = limits + int(ms * 1e6)
    marks = Marks(limits_ns=limits, start_ns=start, conn_reused=reused, first_content_ns=start + int(ttft_ms * 1e6),
                  first_text_coalesced=0)  # fmt: skip
    return replace(attempt(), marks=replace(marks, conn_ready_ns=None if reused else start - 1000))


def test_requests_written_late_are_client_bound_but_connecting_is_not_lateness() -> None:
    health = Health()
    for _ in range(200):
        health.saw(late(30, reused=0))
    assert health.send_lag.quantile_ms(0.99) < 0.01
    for _ in range(200):
        health.saw(late(30, reused=1))
    row = health.row()
    assert row["verdict"] == ClientVerdict.BOUND
    assert row["send_lag_p99_ms"] == pytest.approx(30, rel=0.1)


def test_the_same_lag_is_nothing_beside_a_slow_first_token() -> None:
    quick, slow = Health(), Health()
    for _ in range(100):
        quick.lag.add(8)
        quick.saw(late(0, reused=1, ttft_ms=20))
        slow.lag.add(8)
        slow.saw(late(0, reused=1, ttft_ms=2000))
    quick._began = slow._began = (time.perf_counter_ns() - 10**12, time.process_time(), time.thread_time())
    assert quick.row()["verdict"] == ClientVerdict.BOUND
    assert slow.row()["verdict"] == "client-clean"
    assert slow.row()["error_bound_ms"] == 8


async def serve_streams(seconds: float) -> None:
    """What a runner's loop does: a little work, often."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        busy = time.perf_counter() + 0.0005
        while time.perf_counter() < busy:
            pass
        await asyncio.sleep(0.002)


async def test_a_core_that_is_shared_on_purpose_is_client_bound_and_a_free_one_is_clean() -> None:
    """The same loop, the same work; on a machine that others use, too, one clean window of many is all one can ask."""
    alone = [await watched(serve_streams(0.25), ttft_ms=1000)]
    while alone[-1]["verdict"] == ClientVerdict.BOUND and len(alone) < 40:
        alone.append(await watched(serve_streams(0.25), ttft_ms=1000))
    assert alone[-1]["verdict"] == "client-clean"

    cores = os.sched_getaffinity(0)
    burn = f"import os\nos.sched_setaffinity(0, [{min(cores)}])\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(4)]  # noqa: ASYNC220  # a moment's work
    try:
        os.sched_setaffinity(0, {min(cores)})
        shared = [await watched(serve_streams(0.5), ttft_ms=100)]
        while shared[-1]["verdict"] != ClientVerdict.BOUND and len(shared) < 10:
            shared.append(await watched(serve_streams(0.5), ttft_ms=100))
    finally:
        os.sched_setaffinity(0, cores)
        for other in others:
            other.kill()
            other.wait()
    assert shared[-1]["verdict"] == ClientVerdict.BOUND
    assert "loop lag" in shared[-1]["signal"]


async def test_garbage_collections_are_seen_and_the_heap_is_thawed_afterwards() -> None:
    async def collect() -> None:
        gc.collect()
        gc.collect()

    row = await watched(collect())
    assert row["detail"]["gc_runs"] >= 2
    assert row["gc_pause_max_ms"] > 0
    assert gc.get_freeze_count() == 0

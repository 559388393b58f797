"""The client's verdict on itself: clean while it keeps up, CLIENT-BOUND once it doesn't, with a bound that holds."""

import asyncio
import gc
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable
from typing import Any

import pytest
from msgspec.structs import replace

from kvt_async.contract.vocabulary import ClientVerdict
from kvt_async.records import Attempt, Marks
from kvt_async.session.client_health import TICK_S, Clocks, DurationHistogram, Health
from tests.fake_time import FakeTimeLoop, in_fake_time
from tests.group_db import attempt


def test_a_quantile_is_right_to_a_tenth_and_never_above_the_maximum() -> None:
    values = [random.Random(n).expovariate(1 / 5) for n in range(5000)]
    histogram = DurationHistogram()
    for value in values:
        histogram.add(value)
    for q in (0.5, 0.9, 0.99):
        true = sorted(values)[int(q * len(values))]
        assert true * 0.95 <= histogram.quantile_ms(q) <= true * 1.12
    assert histogram.quantile_ms(1.0) == pytest.approx(max(values))
    assert DurationHistogram().quantile_ms(0.99) == 0


async def watched(work: Awaitable[object], health: Health | None = None) -> dict[str, Any]:
    """What a client says of itself that did this work."""
    health = health or Health()
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
    clocks = iter([(0, 0.0, 0.0), (10**12, 1.0, 1.0)] * 2)
    quick, slow = Health(clocks.__next__), Health(clocks.__next__)
    for health, ttft_ms in ((quick, 20), (slow, 2000)):
        health.start()
        for _ in range(100):
            health.lag.add(8)
            health.saw(late(0, reused=1, ttft_ms=ttft_ms))
        health.stop()
    assert quick.row()["verdict"] == ClientVerdict.BOUND
    assert slow.row()["verdict"] == ClientVerdict.CLEAN
    assert slow.row()["error_bound_ms"] == 8


@pytest.mark.parametrize(
    ("busy", "lag_ms", "verdict", "says"),
    [
        (0.5, 0, "client-clean", "the event loop used 50%"),
        (0.95, 0, "CLIENT-BOUND", "the event loop used 95%"),
        (0.5, 1.5, "client-clean", "loop lag"),
        (0.5, 5, "CLIENT-BOUND", "loop lag"),
    ],
)
def test_a_loop_that_keeps_time_is_clean_until_it_is_late_or_has_no_core_to_spare(
    busy: float, lag_ms: float, verdict: str, says: str
) -> None:
    """`busy`: CPU seconds a second; `lag_ms`: what holds the loop up when every other tick is due."""

    async def run() -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeTimeLoop)

        def clocks() -> Clocks:
            return round(loop.time() * 1e9), loop.time() * busy, loop.time() * busy

        async def work() -> None:
            for _ in range(500):
                await asyncio.sleep(TICK_S - 1e-4)
                loop.block(1e-4 + lag_ms / 1000)
                await asyncio.sleep(TICK_S - lag_ms / 1000)

        return await watched(work(), Health(clocks))

    row = in_fake_time(run())
    assert row["verdict"] == verdict
    assert row["signal"].startswith(says)
    assert row["loop_lag_p99_ms"] == pytest.approx(lag_ms, rel=0.12, abs=0.2)
    assert row["detail"]["loop_cpu_share"] == pytest.approx(busy)


STOPPED = """
import asyncio, json
from kvt_async.session.client_health import Health

async def main():
    health = Health()
    health.start()
    ticker = asyncio.create_task(health.watch())
    print("ticking", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, input)
    ticker.cancel()
    health.stop()
    print(json.dumps(health.row()))

asyncio.run(main())
"""


def test_a_process_that_the_machine_does_not_let_run_is_client_bound() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ticking\n"
    for _ in range(5):
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    row = json.loads(process.communicate("enough\n", timeout=60)[0])
    assert row["verdict"] == ClientVerdict.BOUND
    assert "loop lag" in row["signal"]
    assert row["loop_lag_max_ms"] > 25


async def test_garbage_collections_are_seen_and_the_heap_is_thawed_afterwards() -> None:
    async def collect() -> None:
        gc.collect()
        gc.collect()

    row = await watched(collect())
    assert row["detail"]["gc_runs"] >= 2
    assert row["gc_pause_max_ms"] > 0
    assert gc.get_freeze_count() == 0

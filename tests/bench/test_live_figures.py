"""What a session at work tells of itself: `kvt status --json` of it, from its database alone."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kvt_async.bench.bench import BenchOptions
from kvt_async.bench.bench import run as run_bench
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.live_figures import LiveFigures, LiveReading, ServerNow, live_history, span
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import ClientVerdict
from kvt_async.session import live_feed
from kvt_async.session.group_status import lines
from kvt_async.status import status
from kvt_async.sweep.sweep import SweepOptions, prepare_group
from kvt_async.sweep.sweep import run as run_sweep
from tests.servers.openai_server import FakeServer, Script, on_loopback
from tests.worlds import bench_settings, query, sweep_settings

NOW = LiveFigures(
    name="rate 4/s",
    run_id="r",
    planned=110,
    sent=42,
    done=34,
    failed=0,
    in_flight=8,
    sent_per_s=4.0,
    done_per_s=3.9,
    output_tokens=4_000,
    output_tokens_per_s=480.0,
    ttft_p50_ms=41.0,
    ttft_p99_ms=80.0,
    left_s=19.4,
)


class Held(FakeServer):
    """Answers so many requests, and the others once somebody has seen what was told of these."""

    def __init__(self, first: int) -> None:
        super().__init__(Script())
        self.first, self.seen = first, asyncio.Event()

    async def chat(self, http: web.Request) -> web.StreamResponse:
        if len(self.bodies) >= self.first:
            await asyncio.wait_for(self.seen.wait(), 20)
        return await super().chat(http)


@pytest.fixture(autouse=True)
def told_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_feed, "FIRST_S", 0.05)
    monkeypatch.setattr(live_feed, "EVERY_S", 0.05)


async def until_told(settings: Settings, at_work: "asyncio.Task[Any]") -> dict[str, Any]:
    """The status of a group at work, once it tells of an answer."""
    while not at_work.done():  # it waits for us: see Held
        await asyncio.sleep(0.02)
        with contextlib.suppress(MissingPrerequisiteError):  # nothing is stored yet
            now = await asyncio.to_thread(status, settings)
            if now["live"] is not None and now["live"]["done"]:
                return now
    raise AssertionError("it ended before it told anything")


async def test_a_stage_at_work_tells_its_counts_rates_and_what_is_left(tmp_path: Path) -> None:
    server = Held(5)
    async with on_loopback(server) as url:
        settings = bench_settings(tmp_path, url, "bench.rate=40", "bench.requests=24")
        at_work = asyncio.create_task(run_bench(settings, BenchOptions(quiet=True)))
        now = await until_told(settings, at_work)
        server.seen.set()
        await at_work
    live = now["live"]
    assert (live["name"], live["planned"]) == ("rate 40/s", 28)
    assert live["client"] in (ClientVerdict.CLEAN, ClientVerdict.BOUND)
    assert 0 < live["done"] <= live["done"] + live["in_flight"] <= live["sent"] <= 28
    assert 0 <= live["left_s"] < 28 / 40 * 3  # a Poisson schedule
    assert live["sent_per_s"] > 0
    assert live["ttft_p50_ms"] <= live["ttft_p99_ms"]
    assert lines(now)[-1].endswith(live["line"])
    after = status(settings)
    assert after["live"] is None  # nobody works on it
    history = live_history(lambda sql, *values: query(settings, sql, *values), "b", 1)
    assert history
    assert all(reading.over for reading in history)
    assert [r.figures.sent for r in history] == sorted(r.figures.sent for r in history)


async def test_a_sweep_at_work_tells_the_same_figures(tmp_path: Path) -> None:
    server = Held(30)  # a canary comes first
    async with on_loopback(server) as url:
        settings = sweep_settings(tmp_path, url)
        await asyncio.to_thread(prepare_group, settings, quiet=True)
        at_work = asyncio.create_task(run_sweep(settings, options=SweepOptions(quiet=True)))
        now = await until_told(settings, at_work)
        server.seen.set()
        await at_work
    live = now["live"]
    assert (live["name"], live["planned"], live["run_id"]) == ("sweep", now["planned"], None)
    assert 0 < live["done"] <= live["sent"]
    assert live["in_flight"] <= 4
    assert set(live) == {*LiveReading.__slots__, *LiveFigures.__slots__, "line"} - {"figures"}


def test_a_line_says_it_all_in_the_order_of_what_matters() -> None:
    now = replace(NOW, failed=1, errors={"TimeoutError": 2}, late=3, server=ServerNow(8, 2, 0.43))
    assert now.line("client-clean") == (
        "rate 4/s: 35/110, 1 failed (2 TimeoutError), 0:19 left, sent 4.0/s, done 3.9/s, 480 tok/s, 8 in flight, "
        "TTFT p50 41 ms, p99 80 ms, client-clean, server 8 running, 2 waiting, KV 43%, 3 sent late"
    )
    assert ServerNow(8, 2, 0.43).words == "8 running, 2 waiting, KV 43%"
    assert ServerNow(None, 2, None).words == "2 waiting"
    assert (span(None), span(19.9), span(3760)) == ("unknown", "0:19", "1:02:40")

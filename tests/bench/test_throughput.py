"""Rates at the shipped defaults, against what a real server on loopback saw of the same requests."""

import math
import time
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from analyzer.bench.bench_analysis import bench_stages
from kvt_async.bench.bench import BenchOptions, run
from kvt_async.bench.load_steps import Load
from kvt_async.bench.request_counts import wanted
from kvt_async.contract.bench_settings import Bench
from kvt_async.contract.formulas.chunk_encoding import encode_chunks
from kvt_async.contract.formulas.open_loop_throughput import of_window
from kvt_async.contract.formulas.request_lives import lives_of
from kvt_async.contract.settings import Settings
from tests.servers.openai_server import FakeServer, Script, on_loopback
from tests.worlds import bench_settings, query

QUIET = BenchOptions(quiet=True)
DEFAULTS = ("bench.requests=auto", "bench.warm_up={requests: 10, latencies: 1.25}", "analysis.charts=false")


class Logging(FakeServer):
    """`began`: when each request was here; the first is the ready check."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.began: list[float] = []

    async def chat(self, http: web.Request) -> web.StreamResponse:
        self.began.append(time.perf_counter())
        return await super().chat(http)


def figure(settings: Settings, name: str) -> dict[str, float]:
    (point,) = bench_stages(settings)["points"]
    found: dict[str, float] = point["figures"][name]
    return found


async def test_a_closed_loop_of_equal_lives_prints_what_the_server_saw(tmp_path: Path) -> None:
    server = Logging(Script(delay_s=0.2))
    async with on_loopback(server) as url:
        settings = bench_settings(tmp_path, url, "bench.concurrency=8", *DEFAULTS)
        await run(settings, QUIET)
    assert query(settings, "SELECT n_warm_up, n_measured FROM bench_stages") == [(10, 100)]
    began = sorted(server.began)[1:]
    truth = 88 / (began[8 + 88] - began[8])  # eleven whole rounds
    found = figure(settings, "requests_per_s")
    assert found["value"] == pytest.approx(truth, rel=0.03)
    assert found["low"] < found["value"] < found["high"] < 1.1 * found["value"]


async def test_an_open_loop_fills_up_first_and_a_long_latency_is_kept_up_with(tmp_path: Path) -> None:
    async with on_loopback(Logging(Script(delay_s=0.7))) as url:
        settings = bench_settings(tmp_path, url, "bench.rate=16", *DEFAULTS)
        await run(settings, QUIET)
    ((n_warm_up, n_measured),) = query(settings, "SELECT n_warm_up, n_measured FROM bench_stages")
    assert n_warm_up >= 1.25 * 16 * 0.7
    assert n_measured >= 100
    done, arrivals = figure(settings, "requests_per_s"), figure(settings, "arrivals_per_s")
    assert done["low"] <= arrivals["value"] <= done["high"]
    assert done["value"] == pytest.approx(arrivals["value"], rel=0.1)


async def test_too_few_requests_tell_no_rate_and_break_no_rule(tmp_path: Path) -> None:
    async with on_loopback(FakeServer(Script(delay_s=0.1))) as url:
        short = ("bench.sweep_concurrency=[10, 20]", "bench.requests=20", "analysis.charts=false")
        settings = bench_settings(tmp_path, url, *short, "bench.warm_up={requests: 0, rounds: 1}")
        await run(settings, QUIET)
    assert query(settings, "SELECT stop_rule FROM bench_window_ends") == [(None,), (None,)]
    answer = bench_stages(settings)
    for point, needed in zip(answer["points"], (120, 240), strict=True):
        found = point["figures"]["requests_per_s"]
        assert (found["value"], found["n_needed"]) == (None, needed)
    assert [zone["seen"] for zone in answer["zones"]] == [None]


async def test_max_s_ends_a_stage_that_owes_nothing_then_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with on_loopback(FakeServer(Script(delay_s=0.1))) as url:
        settings = bench_settings(tmp_path, url, "bench.concurrency=4", *DEFAULTS, "bench.max_s=0.5")
        report = await run(settings, BenchOptions())
        again = await run(settings, QUIET)
    assert (report.exit_code, report.pending, again.session_id) == (0, 0, None)
    assert query(settings, "SELECT reason FROM bench_window_ends") == [("stop_rule",)]
    assert 4 < report.stages[0]["answered"] < 100
    assert "bench.max_s (0.5 s) was over before all its requests had begun" in capsys.readouterr().err
    assert not bench_stages(settings)["partial"]


@pytest.mark.parametrize(
    ("asked", "load", "latency_s", "n"),
    [
        ({}, Load(concurrency=1), None, 100),
        ({}, Load(concurrency=64), None, 768),
        ({}, Load(rate_per_s=40), None, 100),
        ({}, Load(rate_per_s=40), 2.74, 659),  # six latencies of 109.6 requests, and the one that they begin with
        ({"max_s": 10}, Load(rate_per_s=40), 12.9, 400),
        ({"requests": 20}, Load(rate_per_s=40), 12.9, 20),
    ],
)
def test_auto_asks_for_rounds_or_latencies(
    asked: dict[str, float], load: Load, latency_s: float | None, n: int
) -> None:
    assert wanted(Bench.model_validate(asked), load, latency_s) == n


instant = st.integers(0, 30_000_000).map(lambda us: us / 1e6)
request = st.tuples(
    instant, instant, st.floats(0, 1), st.booleans(), st.booleans(), st.integers(0, 300),
    st.lists(st.floats(0, 1), max_size=4),
)  # fmt: skip


@given(st.lists(request, max_size=80), st.one_of(st.none(), st.integers(1, 20)), instant, st.booleans())
def test_whatever_a_window_held_a_rate_is_told_with_bounds_around_it_or_not_at_all(
    requests: list[tuple[float, float, float, bool, bool, int, list[float]]],
    concurrency: int | None,
    until_s: float,
    whole: bool,
) -> None:
    begin, took, share, ok, measured, tokens = (
        np.array([one[i] for one in requests], dtype=np.float64) for i in range(6)
    )
    columns = {
        "begin": begin, "start": begin, "end": begin + took, "finished": begin + took, "first": begin + took * share,
        "last": begin + took, "ok": ok, "measured": measured, "input_tokens": np.full(len(begin), 50.0),
        "output_tokens": tokens,
    }  # fmt: skip
    chunks = [encode_chunks(sorted((int(at * 1e6), 1) for at in one[6])) for one in requests]
    lives = lives_of(columns, chunks)
    if not lives.n:
        return
    found = of_window(lives, concurrency, until_s, whole=whole)
    for rate in (found.requests, found.input_tokens, found.output_tokens, found.total_tokens, found.arrivals):
        low, high = rate.interval(0.05)
        if found.reason is not None:
            assert math.isnan(rate.value)
        else:
            assert 0 <= low <= rate.value <= high
            assert low < high

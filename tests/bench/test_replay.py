"""A trace sent over the wire: by its own timestamps, once, in flat memory, and on from where it was killed."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from analyzer.bench.bench_analysis import bench_stages
from kvt_async.bench.bench import BenchOptions, run
from kvt_async.bench.client_ceiling import keep
from kvt_async.contract.errors import ConfigError
from tests.bench.test_bench import outcomes, started
from tests.bench_output import documented
from tests.servers.openai_server import Counting, Script, on_loopback, serving
from tests.worlds import bench_settings, query

QUIET = BenchOptions(quiet=True)
GAP_MS = 100
SENT = """SELECT b.offset_ns, t.intended_ns - w.start_ns, d.source_line, d.shared_tokens, b.input_tokens,
    b.output_tokens FROM bench_arrivals b JOIN requests r USING (request_id) JOIN telemetry t USING (request_id)
    JOIN bench_windows w USING (run_id) JOIN bench_requests d USING (request_id) WHERE w.window_idx = 0
    ORDER BY t.intended_ns"""


@pytest.fixture(autouse=True)
def _no_ceiling_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def trace(tmp_path: Path) -> tuple[str, ...]:
    """200 requests, every second one begins like the one before; the gaps are 0 and 2 x GAP_MS in turn."""
    rows = [
        {"timestamp": 1000 + n // 2 * 2 * GAP_MS, "input_length": 100 + n % 3, "output_length": 1 + n % 5,
         "hash_ids": [n // 2, 1000 + n]}
        for n in range(200)
    ]  # fmt: skip
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return (
        *("bench.workload.kind=trace", f"bench.workload.path={path}", "bench.workload.block_tokens=60"),
        *("bench.workload.output_tokens.value=128", "bench.requests=auto"),
    )


async def test_a_replay_sends_the_trace_at_its_own_instants_times_a_speed(
    tmp_path: Path, trace: tuple[str, ...]
) -> None:
    async with serving(Script(said={"prompt_tokens_details": {"cached_tokens": 25}})) as (server, url):
        settings = bench_settings(tmp_path, url, *trace, "bench.sweep_speed=[10, 20]", "bench.requests=30")
        report = await run(settings, QUIET)
        assert (await run(settings, QUIET)).session_id is None, "there is nothing left to send"
    assert (report.exit_code, report.pending, [s["load"] for s in report.stages]) == (
        0, 0, ["replay x10", "replay x20"]
    )  # fmt: skip
    rows = query(settings, SENT)
    assert len(rows) == 60
    assert all(offset == intended for offset, intended, *_ in rows)
    for speed, part in ((10, rows[:30]), (20, rows[30:])):
        assert [row[0] for row in part] == [n // 2 * 2 * GAP_MS * 1_000_000 // speed for n in range(30)]
        assert [row[2:] for row in part] == [(n + 1, 60 * (n % 2), 100 + n % 3, 1 + n % 5) for n in range(30)]
    texts = [body["messages"][0]["content"] for body in server.bodies[1:]]
    assert len(set(texts)) == 60, "stages share nothing"
    assert all(a[:236] == b[:236] for a, b in zip(texts[::2], texts[1::2], strict=True))
    stages = query(settings, "SELECT loop, arrival, n_warm_up, n_measured FROM bench_stages")
    assert stages == [("open", "trace", 0, 30)] * 2
    analysis = documented(bench_stages(settings))
    documented({name: value for name, value in analysis.items() if name != "lines"})
    said = 15 * 60 / sum(100 + n % 3 for n in range(30))
    assert [point["shared_share"] for point in analysis["points"]] == [pytest.approx(said)] * 2
    assert "% of prompt tokens at replay x10, 29.7% by the trace" in "\n".join(analysis["verdict"])
    assert "; 29.7% by the trace" in await asyncio.to_thread(Path(analysis["report_md"]).read_text)


async def test_a_replay_by_duration_with_two_processes_is_what_one_sends(
    tmp_path: Path, trace: tuple[str, ...]
) -> None:
    async with serving(Script()) as (_, url):
        load = ("bench.replay=true", "bench.workload.speed=10", "bench.duration_s=0.5", "bench.salt=false")
        one = bench_settings(tmp_path, url, *trace, *load)
        assert (await run(one, QUIET)).exit_code == 0
        two = bench_settings(
            tmp_path, url, *trace, *load, "limits.processes=2", "db.path=" + str(tmp_path / "two.sqlite")
        )
        assert (await run(two, QUIET)).exit_code == 0
    schedule = (
        "SELECT request_id, offset_ns, prompt_sha256 FROM bench_arrivals JOIN requests USING (request_id) ORDER BY 1"
    )
    assert query(two, schedule) == query(one, schedule)
    assert len(query(one, SENT)) == 52  # those of the first 5 s of the trace, both ends among them
    assert query(two, SENT) == query(one, SENT)


async def test_a_killed_replay_goes_on_with_what_has_no_outcome(tmp_path: Path, trace: tuple[str, ...]) -> None:
    server = Counting(Script(), 1 + 30)
    async with on_loopback(server) as url:
        load = (*trace, "bench.replay=true", "bench.workload.speed=5", "bench.requests=100")
        settings = bench_settings(tmp_path, url, *load)
        process = started(tmp_path, url, *load)
        await asyncio.wait_for(server.reached.wait(), 60)
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait, 20)
        done_before = outcomes(settings)[0][0]
        assert 0 < done_before < 60
        report = await run(settings, QUIET)
    assert (report.exit_code, report.pending) == (0, 0)
    assert outcomes(settings) == [(100, 100)]
    assert query(settings, "SELECT count(*), count(DISTINCT source_line) FROM bench_requests") == [(100, 100)]
    ((first, n),) = query(settings, """SELECT min(t.intended_ns - w.start_ns), count(*) FROM bench_windows w
        JOIN requests r USING (run_id) JOIN attempts a USING (request_id)
        JOIN telemetry t USING (request_id, attempt_idx)
        WHERE w.window_idx = 1 AND a.session_id = w.session_id""")  # fmt: skip
    assert (first, n) == (0, 100 - done_before), "the rest begins at once, without a warm-up"


async def test_a_load_of_steps_takes_the_lengths_of_a_trace(tmp_path: Path, trace: tuple[str, ...]) -> None:
    async with serving(Script()) as (_, url):
        settings = bench_settings(tmp_path, url, *trace, "bench.steps=[{rate: 40, for_s: 0.5}, {rate: 80, for_s: 0.5}]")
        report = await run(settings, QUIET)
    assert (report.exit_code, report.pending) == (0, 0)
    rows = query(settings, "SELECT offset_ns FROM bench_arrivals WHERE phase = 'measured' ORDER BY offset_ns")
    begun = rows[0][0] / 1e9
    assert 35 < len(rows) < 90
    assert sum(at / 1e9 - begun > 0.5 for (at,) in rows) > len(rows) / 2


@pytest.mark.parametrize("load", [("bench.rate=200",), ("bench.concurrency=4",)])
async def test_without_a_replay_only_the_lengths_of_a_trace_are_sent_and_it_begins_again_at_its_end(
    tmp_path: Path, trace: tuple[str, ...], load: tuple[str, ...]
) -> None:
    async with serving(Script()) as (server, url):
        settings = bench_settings(tmp_path, url, *trace, *load, "bench.requests=220")
        report = await run(settings, QUIET)
    assert (report.exit_code, report.pending) == (0, 0)
    assert query(settings, "SELECT phase, count(*) FROM bench_arrivals GROUP BY phase ORDER BY phase") == [
        ("measured", 220), ("warm_up", 4)
    ]  # fmt: skip
    assert query(settings, "SELECT max(n) FROM (SELECT count(*) n FROM bench_requests GROUP BY source_line)") == [(2,)]
    assert len({body["messages"][0]["content"] for body in server.bodies}) == 225


async def test_a_trace_whose_requests_all_come_at_once_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("timestamp,input,output\n" + "2024-05-10 00:00:00,40,6\n" * 5)
    async with serving(Script()) as (_, url):
        settings = bench_settings(
            tmp_path, url, f"bench.workload={{kind: trace, path: {path}}}", "bench.replay=true", "bench.requests=auto"
        )
        keep(settings, {"requests_per_s": 1e3, "output_events_per_s": 1e4, "streams": 64, "measured_at": "today"})
        report = await run(settings, QUIET)
    assert (report.exit_code, report.stages[0]["answered"]) == (0, 5)
    assert query(settings, "SELECT rate_per_s, n_measured FROM bench_stages") == [(None, 5)]
    (point,) = bench_stages(settings)["points"]
    assert (point["n_started"], point["figures"]["requests_per_s"]["value"]) == (5, None)


async def test_a_replay_needs_a_trace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="replay and sweep_speed need workload"):
        bench_settings(tmp_path, "http://127.0.0.1:9/v1", "bench.replay=true")


async def test_a_trace_does_not_warm_up_by_places(tmp_path: Path, trace: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"warm_up\.places is not for workload\.kind: trace"):
        bench_settings(tmp_path, "http://127.0.0.1:9/v1", *trace, "bench.concurrency=2", "bench.warm_up.places=1")

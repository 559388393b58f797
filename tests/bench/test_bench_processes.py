"""A bench sent by several processes is one window on one clock, and what one process would have sent."""

import asyncio
import os
import signal
from pathlib import Path

import orjson
import pytest

from kvt_async.bench.bench import BenchOptions, run
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.settings import Settings
from tests.bench.test_bench import outcomes, started
from tests.servers.openai_server import Counting, FakeServer, Script, on_loopback, serving
from tests.worlds import bench_settings, query

QUIET = BenchOptions(quiet=True)
TWO = "limits.processes=2"


@pytest.fixture(autouse=True)
def _no_ceiling_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def senders_of(pid: int) -> list[int]:
    """Sender processes of a process, by its threads' children."""
    children = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for some in children for child in some
            if b"window_sender" in Path(f"/proc/{child}/cmdline").read_bytes()]  # fmt: skip


async def gone(*pids: int) -> bool:
    """Whether they have ended, or do so within ten seconds; a zombie that nobody waits for has."""

    def is_alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    for _ in range(200):
        if not any(map(is_alive, pids)):
            return True
        await asyncio.sleep(0.05)
    return False


def left_behind(settings: Settings) -> list[str]:
    """What of the senders' own databases is still there."""
    return [str(path) for path in Path(settings.output.runs_dir).rglob("*.senders*")]


async def test_two_processes_send_the_schedule_of_one_at_its_instants_in_one_window(tmp_path: Path) -> None:
    schedule = "SELECT request_id, offset_ns, phase, output_tokens FROM bench_arrivals ORDER BY request_id"
    async with serving(Script()) as (server, url):
        one = bench_settings(tmp_path, url, "bench.rate=100", "bench.salt=false")
        assert (await run(one, QUIET)).exit_code == 0
        n, server.bodies = len(server.bodies), []
        settings = bench_settings(
            tmp_path, url, "bench.rate=100", "bench.salt=false", TWO, "db.path=" + str(tmp_path / "two.sqlite")
        )
        report = await run(settings, QUIET)
    assert (report.exit_code, report.pending, len(server.bodies)) == (0, 0, n)
    assert query(settings, schedule) == query(one, schedule)
    assert outcomes(settings) == [(20, 20)]
    assert query(settings, """SELECT count(*) FROM telemetry t JOIN requests USING (request_id) JOIN bench_windows w
        USING (run_id) JOIN bench_arrivals b USING (request_id)
        WHERE t.intended_ns - w.start_ns = b.offset_ns AND t.start_ns >= t.intended_ns""") == [(24,)]  # fmt: skip
    ends = query(
        settings, "SELECT n_sent, n_measured, client_json, measured_to_ns > measured_from_ns FROM bench_window_ends"
    )
    assert [(sent, measured, whole) for sent, measured, _, whole in ends] == [(24, 20, 1)]
    health = orjson.loads(ends[0][2])["detail"]["processes"]
    assert [(one["process"], one["verdict"] in ("client-clean", "CLIENT-BOUND")) for one in health] == [
        (1, True),
        (2, True),
    ]
    assert left_behind(settings) == []


async def test_a_closed_loop_is_shared_and_never_exceeds_its_concurrency(tmp_path: Path) -> None:
    async with serving(Script(delay_s=0.05)) as (server, url):
        settings = bench_settings(tmp_path, url, "bench.concurrency=5", "bench.duration_s=0.5", TWO)
        report = await run(settings, QUIET)
    assert (server.most_in_flight, report.exit_code) == (5, 0)
    assert report.stages[0]["answered"] == report.stages[0]["planned"] > 20
    ((peak, sent, length),) = query(settings, """SELECT peak_in_flight, n_sent,
        (measured_to_ns - measured_from_ns) / 1e9 FROM bench_window_ends""")  # fmt: skip
    assert (peak, sent, length > 0.4) == (5, len(server.bodies) - 1, True)


async def test_a_load_of_less_than_one_request_a_process_is_refused(tmp_path: Path) -> None:
    settings = bench_settings(tmp_path, "http://127.0.0.1:9/v1", "bench.sweep_concurrency=[8, 1]", TWO)
    with pytest.raises(ConfigError, match=r"bench\.sweep_concurrency is 1: of 2 processes"):
        await run(settings, QUIET)


async def test_a_sender_that_is_killed_ends_its_stage_and_nothing_is_lost_or_sent_twice(tmp_path: Path) -> None:
    server = Counting(Script(), 1 + 4 + 8)
    async with on_loopback(server) as url:
        settings = bench_settings(tmp_path, url, "bench.rate=20", TWO)
        bench = asyncio.create_task(run(settings, QUIET))
        await asyncio.wait_for(server.reached.wait(), 60)
        victim, other = senders_of(os.getpid())
        os.kill(victim, signal.SIGKILL)
        report = await bench
        assert (report.exit_code, report.reason) == (3, "local")
        assert 0 < report.pending < 20
        assert await gone(other)
        assert query(settings, "SELECT reason FROM bench_window_ends") == [("local",)]
        report = await run(bench_settings(tmp_path, url, "bench.rate=20"), QUIET)  # one process may go on
    assert (report.exit_code, report.pending) == (0, 0)
    assert outcomes(settings) == [(20, 20)]
    assert left_behind(settings) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_what_the_senders_of_a_stopped_bench_stored_is_kept(tmp_path: Path, how: signal.Signals) -> None:
    server = Counting(Script(), 1 + 4 + 10)
    async with on_loopback(server) as url:
        options = ("bench.rate=20", TWO, "limits.grace_s=0.5", "db.flush_interval_s=0")
        settings = bench_settings(tmp_path, url, *options)
        process = started(tmp_path, url, *options)
        await asyncio.wait_for(server.reached.wait(), 60)
        senders = senders_of(process.pid)
        process.send_signal(how)
        code = await asyncio.to_thread(process.wait, 20)
        assert (code, len(senders)) == (-9 if how is signal.SIGKILL else 130, 2)
        n = len(server.bodies)
        report = await run(bench_settings(tmp_path, url, "bench.rate=20"), QUIET)  # one process may go on
        assert await gone(*senders)
    assert (report.exit_code, report.pending) == (0, 0)
    assert outcomes(settings) == [(20, 20)]
    again = len(server.bodies) - n
    assert again < 1 + 4 + 20 - 5, "what was answered before is not sent again"


async def test_a_key_that_one_process_sees_refused_stops_all(tmp_path: Path) -> None:
    async with on_loopback(FakeServer(Script(refusal=(10, 401)))) as url:
        settings = bench_settings(tmp_path, url, "bench.rate=40", "bench.requests=100", TWO)
        report = await run(settings, QUIET)
    assert report.exit_code == 2
    assert report.pending > 0
    assert left_behind(settings) == []

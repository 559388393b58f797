"""Whole benches against real servers on loopback: schedules, stalls, kills, guards."""

import asyncio
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from kvt_async.bench import client_ceiling
from kvt_async.bench.bench import BenchOptions, run
from kvt_async.bench.null_server import null_server
from kvt_async.contract.errors import ConfigError, ContractMismatchError, GuardError
from kvt_async.contract.settings import Settings
from tests.servers.openai_server import Counting, FailingAfterTheFirst, FakeServer, Script, on_loopback, serving
from tests.worlds import bench_overrides, bench_settings, query

QUIET = BenchOptions(quiet=True)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_ceiling_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


async def test_the_stored_schedule_is_the_order_sent_and_warm_up_comes_first_from_other_prompts(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = bench_settings(tmp_path, url, "bench.rate=100", "bench.repeats=2")
        report = await run(settings, QUIET)
    assert (report.exit_code, report.pending, len(report.stages)) == (0, 0, 2)
    rows = query(settings, """SELECT b.phase, b.offset_ns, t.intended_ns - w.start_ns FROM bench_arrivals b
        JOIN requests r USING (request_id) JOIN telemetry t USING (request_id) JOIN bench_windows w USING (run_id)
        ORDER BY w.start_ns, t.intended_ns""")  # fmt: skip
    assert [phase for phase, _, _ in rows] == (["warm_up"] * 4 + ["measured"] * 20) * 2
    assert all(offset == intended for _, offset, intended in rows)
    assert query(settings, "SELECT count(*), count(DISTINCT prompt_sha256) FROM requests") == [(48, 48)]
    assert query(settings, "SELECT sum(start_ns < intended_ns) FROM telemetry") == [(0,)]
    sent = [body["messages"][0]["content"] for body in server.bodies[1:]]  # the first was the ready check
    assert len({text[:16] for text in sent}) == len(sent), "salted prompts share no block"
    assert query(settings, "SELECT count(*) FROM runs WHERE prompt_template_version = dataset_id") == [(0,)]


async def test_an_open_loop_does_not_wait_for_a_stalled_server_and_pays_the_stall_from_the_intended_start(
    tmp_path: Path,
) -> None:
    first, last = 10, 1 + 4 + 40  # ready check, warm-up, measured

    class Stalling(FakeServer):
        """From its tenth request on it answers nothing for 2 s, nor before all the others are here."""

        arrived, until, released_ns = 0, 0.0, 0

        def __init__(self, script: Script) -> None:
            super().__init__(script)
            self.all_here = asyncio.Event()

        async def chat(self, http: web.Request) -> web.StreamResponse:
            self.arrived += 1
            if self.arrived == first:
                self.until = asyncio.get_running_loop().time() + 2.0
            if self.arrived == last:
                self.all_here.set()
            if self.arrived >= first:
                await asyncio.wait_for(self.all_here.wait(), 30)
                await asyncio.sleep(max(0.0, self.until - asyncio.get_running_loop().time()))
                self.released_ns = self.released_ns or time.perf_counter_ns()
            return await super().chat(http)

    server = Stalling(Script())
    async with on_loopback(server) as url:
        settings = bench_settings(tmp_path, url, "bench.rate=40", "bench.requests=40", "bench.arrival=constant")
        await run(settings, QUIET)
    (row,) = query(settings, """SELECT max(t.start_ns), max(t.end_ns - t.intended_ns) / 1e9,
        (SELECT peak_in_flight FROM bench_window_ends) FROM telemetry t""")  # fmt: skip
    assert row[1] > 1.9  # the stall's full cost
    assert row[0] < server.released_ns  # and none of it in when we sent
    assert row[2] >= last - first + 1


async def test_a_cap_that_binds_is_counted_and_a_closed_loop_never_exceeds_its_concurrency(tmp_path: Path) -> None:
    async with serving(Script(delay_s=0.1)) as (server, url):
        capped = bench_settings(tmp_path, url, "bench.rate=200", "bench.max_in_flight=3")
        await run(capped, QUIET)
        assert server.most_in_flight == 3
        closed = bench_settings(tmp_path, url, "experiment.exp_group_id=c", "bench.concurrency=3")
        await run(closed, QUIET)
        assert server.most_in_flight == 3
    assert query(capped, "SELECT n_held > 0, peak_in_flight FROM bench_window_ends") == [(1, 3)]
    assert query(closed, "SELECT peak_in_flight, n_measured, n_sent FROM bench_window_ends") == [(3, 20, 24)]


async def test_failures_are_outcomes_and_nothing_is_tried_again(tmp_path: Path) -> None:
    async with on_loopback(FailingAfterTheFirst(Script(faults={"http_500": 0.4}))) as url:
        settings = bench_settings(tmp_path, url, "bench.rate=100", "bench.requests=40")
        report = await run(settings, QUIET)
    assert report.exit_code == 4
    assert report.failed > 0
    assert report.pending == 0
    assert query(settings, "SELECT max(attempt_idx) FROM attempts") == [(0,)]


async def test_a_ladder_stops_where_the_server_cannot_follow_and_says_why(tmp_path: Path) -> None:
    class Slow(FakeServer):
        def __init__(self, script: Script) -> None:
            super().__init__(script)
            self.turn = asyncio.Semaphore(1)

        async def chat(self, http: web.Request) -> web.StreamResponse:
            async with self.turn:  # 16 requests a second at most, on a busy machine too
                await asyncio.sleep(0.06)
                return await super().chat(http)

    async with on_loopback(Slow(Script())) as url:
        rates = ("bench.sweep_rate=[4, 33, 66]", "bench.arrival=constant")
        settings = bench_settings(tmp_path, url, *rates, "bench.duration_s=3")
        await run(settings, QUIET)
    rows = query(settings, "SELECT load, stop_rule FROM bench_stages JOIN bench_window_ends USING (run_id)")
    assert [load for load, _ in rows] == ["rate 4/s constant", "rate 33/s constant"]
    assert "proven to be below 90%" in rows[1][1]


def started(folder: Path, url: str, *overrides: str) -> subprocess.Popen[bytes]:
    words = [word for item in bench_overrides(folder, url, *overrides) for word in ("--override", item)]
    code = "import sys; from kvt_async.contract.load import load_settings; from kvt_async.bench.bench import *; " \
           "sys.exit(execute(load_settings(None, sys.argv[2::2]), BenchOptions(quiet=True)).exit_code)"  # fmt: skip
    return subprocess.Popen([sys.executable, "-c", code, *words], cwd=ROOT, stderr=subprocess.DEVNULL)


def outcomes(settings: Settings) -> list[tuple[int, int]]:
    return query(settings, """SELECT count(*), count(DISTINCT request_id) FROM requests JOIN bench_arrivals
        USING (request_id) JOIN responses USING (request_id) WHERE phase = 'measured'""")  # fmt: skip


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_a_bench_stopped_in_its_third_rate_completes_the_rest_and_counts_nothing_twice(
    tmp_path: Path, how: signal.Signals
) -> None:
    server = Counting(Script(), 1 + 2 * 24 + 12)  # ready check, two whole stages, half of the third
    async with on_loopback(server) as url:
        rest = ("bench.sweep_rate=[60, 50, 10, 70, 80]", "limits.grace_s=0.5")
        settings = bench_settings(tmp_path, url, *rest)
        process = started(tmp_path, url, *rest)
        await asyncio.wait_for(server.reached.wait(), 60)
        process.send_signal(how)
        code = await asyncio.to_thread(process.wait, 20)
        assert code == (-9 if how is signal.SIGKILL else 130)
        done_before = outcomes(settings)[0][0]
        assert 40 <= done_before < 60
        report = await run(settings, QUIET)
    assert (report.exit_code, report.pending, len(report.stages)) == (0, 0, 5)
    assert outcomes(settings) == [(100, 100)]
    windows = query(settings, """SELECT load, count(*), count(e.run_id) FROM bench_stages JOIN bench_windows w
        USING (run_id) LEFT JOIN bench_window_ends e USING (run_id, session_id)
        GROUP BY load ORDER BY stage_idx""")  # fmt: skip
    assert [n for _, n, _ in windows] == [1, 1, 2, 1, 1]
    assert windows[2][2] == (1 if how is signal.SIGKILL else 2)
    measured = query(settings, """SELECT count(*) FROM bench_arrivals JOIN requests USING (request_id)
        WHERE phase = 'measured' GROUP BY run_id""")  # fmt: skip
    assert measured == [(20,)] * 5
    second = query(settings, """SELECT count(*), min(t.intended_ns - w.start_ns), b.phase FROM bench_windows w
        JOIN requests r USING (run_id) JOIN attempts a USING (request_id)
        JOIN telemetry t USING (request_id, attempt_idx)
        JOIN bench_arrivals b USING (request_id) WHERE w.window_idx = 1 AND a.session_id = w.session_id
        GROUP BY b.phase ORDER BY b.phase""")  # fmt: skip
    assert [(n, phase) for n, _, phase in second] == [(60 - done_before, "measured"), (4, "warm_up")]
    assert second[0][1] > second[1][1], "the new window warms up first"


async def test_a_closed_loop_by_duration_sends_as_many_as_go_and_owes_nothing(tmp_path: Path) -> None:
    with null_server() as url:
        settings = bench_settings(tmp_path, url, "bench.concurrency=2", "bench.duration_s=0.5")
        report = await run(settings, QUIET)
        again = await run(settings, QUIET)
    assert report.stages[0]["answered"] == report.stages[0]["planned"] > 2
    assert again.session_id is None
    ((length,),) = query(settings, "SELECT (measured_to_ns - measured_from_ns) / 1e9 FROM bench_window_ends")
    assert length >= 0.5


async def test_server_metrics_are_sampled_before_during_and_after(tmp_path: Path) -> None:
    class Watched(FakeServer):
        looked_at = asyncio.Event()  # its metrics, after the first request of the stage

        async def metrics(self, http: web.Request) -> web.Response:
            if len(self.bodies) > 1:
                self.looked_at.set()
            return await super().metrics(http)

        async def chat(self, http: web.Request) -> web.StreamResponse:
            if len(self.bodies) >= 20:
                await asyncio.wait_for(self.looked_at.wait(), 60)
            return await super().chat(http)

    async with on_loopback(Watched(Script())) as url:
        settings = bench_settings(tmp_path, url, "bench.rate=30")
        await run(settings, QUIET)
    rows = query(settings, "SELECT phase, metrics_json, error FROM server_samples ORDER BY at_ns")
    phases = [phase for phase, _, _ in rows]
    assert (phases[0], phases[-1], "during" in phases) == ("before", "after", True)
    assert {(orjson.loads(text)["vllm:prefix_cache_hits_total"], error) for _, text, error in rows} == {(3.0, None)}


async def test_a_stage_planned_otherwise_is_refused_and_force_opens_a_generation_beside_it(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        await run(bench_settings(tmp_path, url, "bench.rate=100"), QUIET)
        other = bench_settings(tmp_path, url, "bench.rate=100", "bench.requests=10")
        with pytest.raises(ContractMismatchError, match="another plan"):
            await run(other, QUIET)
        longer = bench_settings(tmp_path, url, "bench.rate=100", "bench.workload.input_tokens.value=50")
        with pytest.raises(ContractMismatchError, match="another contract"):
            await run(longer, QUIET)
        report = await run(longer, BenchOptions(quiet=True, force=True))
    assert report.generation == 2


async def test_a_plan_beyond_the_clients_ceiling_is_refused_and_half_of_it_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script()) as (server, url):
        settings = bench_settings(tmp_path, url, "bench.rate=100")
        ceilings = {"requests_per_s": 5000.0, "output_events_per_s": 500.0, "streams": 64}
        client_ceiling.keep(settings, ceilings)  # 100 requests/s of 6 tokens are 600 events/s
        with pytest.raises(GuardError, match="would measure this client") as caught:
            await run(settings, QUIET)
        assert caught.value.exit_code == 3
        assert server.bodies == []
        client_ceiling.keep(settings, ceilings | {"output_events_per_s": 1000.0})
        await run(settings, QUIET)
    assert "look at the client's verdict" in capsys.readouterr().err
    ((kept,),) = query(settings, "SELECT calibration_json FROM bench_stages")
    assert orjson.loads(kept)["output_events_per_s"] == 1000.0


async def test_every_kv_level_is_benched_with_its_fields_and_its_evidence(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = bench_settings(tmp_path, url, "bench.rate=100", "bench.levels=true", "kv.budgets=[1.0, 0.5]")
        await run(settings, QUIET)
    rows = query(settings, """SELECT s.level, u.kv_budget, count(*), min(p.kv_effective), max(p.kv_effective)
        FROM bench_stages s JOIN runs u USING (run_id) JOIN requests USING (run_id) JOIN responses p USING (request_id)
        GROUP BY 1 ORDER BY s.stage_idx""")  # fmt: skip
    assert rows == [("full", 1.0, 24, 1.0, 1.0), ("snapkv/aware 0.5", 0.5, 24, 0.5, 0.5)]


async def test_no_load_and_no_server_are_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no load"):
        await run(bench_settings(tmp_path, "http://127.0.0.1:9/v1"), QUIET)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("code", "exit_code"), [(401, 2), (402, 5)])
async def test_a_bench_whose_key_or_money_ends_counts_no_failure_and_goes_on(
    tmp_path: Path, code: int, exit_code: int
) -> None:
    async with serving(Script(refusal=(12, code))) as (server, url):
        settings = bench_settings(tmp_path, url, "bench.concurrency=2")
        report = await run(settings, QUIET)
        assert (report.exit_code, report.failed) == (exit_code, 0)
        assert 0 < report.pending < 20
        assert query(settings, "SELECT count(*) FROM give_ups") == [(0,)]
        server.script.refusal = None
        report = await run(settings, QUIET)
    assert (report.exit_code, report.failed, report.pending) == (0, 0, 0)
    assert report.stages[0]["answered"] == 20


async def test_more_connections_than_files_are_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (70, 70))
    async with serving(Script()) as (server, url):
        with pytest.raises(GuardError, match="may open 70 files") as refused:
            await run(bench_settings(tmp_path, url, "bench.concurrency=80"), QUIET)
        assert "at most 30 in flight" in str(refused.value)
        assert server.bodies == []


@pytest.mark.parametrize(
    ("ends", "n", "said"),
    [
        (["bench.requests=auto", "bench.duration_s=0.5"], range(10, 100), ""),
        (["bench.requests=auto", "bench.max_s=0.4"], [20], "cut by bench.max_s (0.4 s) from 100"),
    ],
)
async def test_an_open_loop_of_any_end_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ends: list[str], n: Sequence[int], said: str
) -> None:
    async with serving(Script()) as (_, url):
        report = await run(bench_settings(tmp_path, url, "bench.rate=50", *ends), BenchOptions())
    assert (report.exit_code, report.pending) == (0, 0)
    assert report.stages[0]["answered"] in n
    err = capsys.readouterr().err
    assert said in err
    assert ("cut by" in err) is bool(said)

"""Conversations on the wire: each turn comes after the reply before it and its user's pause."""

import asyncio
import signal
import time
from collections import defaultdict
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from analyzer.bench.bench_analysis import bench_stages, measured
from analyzer.bench.read.stage_facts import stages
from analyzer.bench.report.conversation_tables import CHART
from analyzer.charts.style import WIDE
from analyzer.read.snapshot import snapshot
from kvt_async.bench.bench import BenchOptions, run
from kvt_async.bench.stage_figures import stage_figures
from kvt_async.contract.formulas.prompt_text import messages_sha256
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings
from kvt_async.store.reader import Reader
from tests.bench.test_bench import outcomes, started
from tests.bench_output import documented
from tests.servers.openai_server import Counting, FailingAfterTheFirst, FakeServer, Script, on_loopback
from tests.worlds import bench_settings, check_invariants, db_of, page_of, query

QUIET = BenchOptions(quiet=True)
TALKS = (
    "bench.workload={kind: conversations, turns: {kind: uniform, low: 1, high: 4}, think_s: {kind: exponential, value: "
    "0.03}, input_tokens: {value: 12}, output_tokens: {value: 6}}",
    "bench.warm_up={requests: 3, rounds: 1, latencies: 0}",
    "analysis.charts=false",
)
TURNS = """SELECT q.conversation_idx, q.turn_idx, t.start_ns, t.end_ns, t.intended_ns, q.think_ns, b.phase, r.request_id
    FROM bench_requests q JOIN requests r USING (request_id) JOIN bench_arrivals b USING (request_id)
    LEFT JOIN telemetry t USING (request_id) ORDER BY 1, 2"""


@pytest.fixture(autouse=True)
def _no_ceiling_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Hearing(FakeServer):
    """`heard`: of each prompt when it was here and when its answer went; `said`: what it answered to each."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.heard: dict[str, tuple[int, int]] = {}
        self.said: dict[str, str] = {}

    async def chat(self, http: web.Request) -> web.StreamResponse:
        began = time.perf_counter_ns()
        response = await super().chat(http)
        body = await http.json()
        self.heard[messages_sha256(body["messages"])] = (began, time.perf_counter_ns())
        return response

    async def reply(self, http: web.Request, body: dict[str, Any], texts: list[str], *more: Any) -> web.StreamResponse:
        self.said[messages_sha256(body["messages"])] = "".join(texts)
        return await super().reply(http, body, texts, *more)


def talks(settings: Settings) -> dict[int, list[tuple[Any, ...]]]:
    """Turns by conversation, in their order."""
    by_conversation: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for conversation, *turn in query(settings, TURNS):
        by_conversation[conversation].append(tuple(turn))
    return by_conversation


def prompts_of(server: FakeServer) -> dict[str, list[dict[str, str]]]:
    return {messages_sha256(body["messages"]): body["messages"] for body in server.bodies}


@pytest.mark.parametrize("history", ["recorded", "own"])
@pytest.mark.parametrize("load", ["bench.concurrency=3", "bench.rate=25"])
async def test_a_turn_comes_when_its_user_has_read_and_thought(tmp_path: Path, load: str, history: str) -> None:
    server = Hearing(Script(delay_s=0.01))
    async with on_loopback(server) as url:
        settings = bench_settings(tmp_path, url, load, *TALKS, f"bench.workload.history={history}")
        report = await run(settings, QUIET)
    assert (report.exit_code, report.pending, report.failed) == (0, 0, 0)
    ((n_measured, n_warm_up),) = query(settings, "SELECT n_measured, n_warm_up FROM bench_stages")
    assert n_measured >= 20
    assert outcomes(settings) == [(n_measured, n_measured)]
    prompts, sha = prompts_of(server), dict(query(settings, "SELECT request_id, prompt_sha256 FROM requests"))
    assert len(server.bodies) == 1 + n_measured + n_warm_up  # and the ready check
    by_conversation = talks(settings)
    for turns in by_conversation.values():
        assert [turn[0] for turn in turns] == list(range(len(turns)))
        for before, after in pairwise(turns):
            _, _, ended, _, _, _, earlier = before
            turn, start, _, intended, think, _, name = after
            assert intended == ended + think
            assert start >= intended
            ours = prompts[sha[name]]
            assert ours[: 2 * turn - 1] == prompts[sha[earlier]]
            assert server.heard[sha[name]][0] >= server.heard[sha[earlier]][1] + think
            is_its_own = ours[2 * turn - 1]["content"] == server.said[sha[earlier]].strip()
            assert is_its_own == (history == "own")
    if load == "bench.concurrency=3":
        spans = sorted((turns[0][1], turns[-1][2]) for turns in by_conversation.values())
        most = max(sum(a < begin < b for a, b in spans) for begin, _ in spans) + 1
        assert most <= 3
    else:
        offsets = query(settings, """SELECT offset_ns IS NULL, min(q.turn_idx), max(q.turn_idx) > 0 FROM bench_arrivals
            JOIN bench_requests q USING (request_id) GROUP BY 1 ORDER BY 1""")  # fmt: skip
        assert offsets == [(0, 0, 0), (1, 1, 1)]
    check_invariants(settings)


async def test_a_failed_turn_ends_its_conversation_and_every_turn_counts(tmp_path: Path) -> None:
    server = FailingAfterTheFirst(Script(faults={"http_500": 0.15}))
    async with on_loopback(server) as url:
        settings = bench_settings(tmp_path, url, "bench.concurrency=2", *TALKS, "bench.workload.history=own",
                                  "bench.requests=40", "bench.workload.turns={value: 4}")  # fmt: skip
        report = await run(settings, QUIET)
        again = await run(settings, QUIET)
    assert (report.exit_code, report.pending, again.session_id) == (4, 0, None)
    lost = query(settings, """SELECT q.conversation_idx, q.turn_idx, r.prompt_sha256, b.input_tokens FROM give_ups g
        JOIN bench_requests q USING (request_id) JOIN requests r USING (request_id)
        JOIN bench_arrivals b USING (request_id) WHERE g.reason = 'earlier_turn_failed'
        AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.request_id = q.request_id)""")  # fmt: skip
    failed = dict(query(settings, """SELECT q.conversation_idx, q.turn_idx FROM give_ups g
        JOIN bench_requests q USING (request_id) WHERE g.reason <> 'earlier_turn_failed'"""))  # fmt: skip
    assert sorted(row[:2] for row in lost) == sorted(
        (conversation, turn) for conversation, at in failed.items() for turn in range(at + 1, 4)
    )
    assert {row[2:] for row in lost} == {("", 0)}
    ((n_lost,),) = query(settings, """SELECT count(*) FROM give_ups JOIN bench_arrivals USING (request_id)
        WHERE reason = 'earlier_turn_failed' AND phase = 'measured'""")  # fmt: skip
    assert n_lost > 0
    answer = documented(bench_stages(settings))
    (point,) = answer["points"]
    assert point["n_failed"] == report.failed
    assert sum(turn["n_lost"] for turn in point["turns"]) == n_lost
    assert sum(turn["n"] for turn in point["turns"]) == 40
    assert point["conversations"]["n"] == 10
    assert not answer["partial"]


@pytest.mark.parametrize("history", ["recorded", "own"])
async def test_a_killed_bench_goes_on_in_each_conversation_where_it_stood(tmp_path: Path, history: str) -> None:
    server = Counting(Script(delay_s=0.02), 20)
    more = ("bench.concurrency=3", *TALKS, f"bench.workload.history={history}", "bench.workload.turns={value: 5}",
            "bench.requests=30", "bench.workload.think_s=0.01", "bench.warm_up={requests: 0, rounds: 0}")  # fmt: skip
    async with on_loopback(server) as url:
        settings = bench_settings(tmp_path, url, *more)
        process = started(tmp_path, url, *more)
        await asyncio.wait_for(server.reached.wait(), 60)
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait, 20)
        done_before = outcomes(settings)[0][0]
        assert 0 < done_before < 30
        n_sent = len(server.bodies)
        report = await run(settings, QUIET)
    assert (report.exit_code, report.pending) == (0, 0)
    assert outcomes(settings) == [(30, 30)]
    assert n_sent + 1 + (30 - done_before) == len(server.bodies)
    prompts, sha = prompts_of(server), dict(query(settings, "SELECT request_id, prompt_sha256 FROM requests"))
    replies = dict(query(settings, "SELECT request_id, text FROM responses"))
    for turns in talks(settings).values():
        assert [turn[0] for turn in turns] == [0, 1, 2, 3, 4]
        *earlier, (*_, name) = turns
        own = [message["content"] for message in prompts[sha[name]] if message["role"] == "assistant"]
        stored = [replies[before[-1]].strip() for before in earlier]
        assert (own == stored) == (history == "own")
    check_invariants(settings)


async def test_several_processes_take_whole_conversations_and_their_own_history(tmp_path: Path) -> None:
    server = Hearing(Script(delay_s=0.01))
    async with on_loopback(server) as url:
        settings = bench_settings(tmp_path, url, "bench.concurrency=4", *TALKS, "bench.workload.history=own",
                                  "limits.processes=2")  # fmt: skip
        report = await run(settings, QUIET)
    assert (report.exit_code, report.pending) == (0, 0)
    prompts, sha = prompts_of(server), dict(query(settings, "SELECT request_id, prompt_sha256 FROM requests"))
    for turns in talks(settings).values():
        for before, after in pairwise(turns):
            ours = prompts[sha[after[-1]]]
            assert ours[-2]["content"] == server.said[sha[before[-1]]].strip()
            assert after[3] == before[2] + after[4]
    assert query(settings, "SELECT count(*) FROM bench_windows") == [(1,)]
    check_invariants(settings)


async def test_figures_by_turn_say_what_the_prompts_share_and_what_the_cache_held(tmp_path: Path) -> None:
    async with on_loopback(FakeServer(Script(delay_s=0.01, reuses_from=0.0))) as url:
        settings = bench_settings(tmp_path, url, "bench.concurrency=3", *TALKS, "bench.requests=60",
                                  "bench.workload.turns={value: 5}")  # fmt: skip
        await run(settings, QUIET)
    answer = documented(bench_stages(settings))
    (point,) = answer["points"]
    turns, talked = point["turns"], point["conversations"]
    ((run_id,),) = query(settings, "SELECT run_id FROM bench_stages")
    with closing(Reader(db_of(settings))) as reader:  # the line of the stage, and the objectives that end a ladder
        line = stage_figures(reader, run_id, None)
        assert line.value("ttft_p50_s", of_answered=True) == pytest.approx(point["figures"]["ttft_p50_s"]["value"])
        assert line.value("latency_p99_s", of_answered=True) == pytest.approx(
            point["figures"]["latency_p99_s"]["value"]
        )
    assert [(turn["turn"], turn["n"]) for turn in turns] == [(0, 12), (1, 12), (2, 12), (3, 24)]
    assert turns[0]["cached_share"] == turns[0]["shared_share"] == 0
    for before, turn in pairwise(turns[:3]):
        assert turn["shared_tokens"] == pytest.approx(before["asked_tokens"], abs=1.5)  # a turn shares all before it
        assert turn["cached_tokens"] == pytest.approx(before["prompt_tokens"], abs=1.5)
        assert turn["delay_p99_s"] >= turn["delay_p50_s"] >= 0
    assert [turn["cache"] for turn in turns] == ["cold", "mixed", "mixed", "mixed"]
    assert (talked["n"], talked["n_whole"], talked["turns_mean"]) == (12, 12, 5)
    spans = [(turns[-1][2] - turns[0][1]) / 1e9 for turns in talks(settings).values() if turns[0][5] == "measured"]
    assert talked["duration_p50_s"] == pytest.approx(sorted(spans)[len(spans) // 2], rel=0.25)
    assert any(line.startswith("3 users, 3+") and "24/24" in line for line in answer["lines"])
    assert any("12 conversations of 5 turns, 12 whole" in line for line in answer["lines"])
    page = page_of(answer)
    assert "### Turn by turn" in page
    assert "a prefix cache" not in page.partition("## Loads")[0]  # nothing to warn of: later turns are to be cached
    with snapshot(connect_for_reading(db_of(settings))) as conn:
        _, points, _ = measured(conn, stages(conn, "b"), 0.05)
    (rows,) = CHART.draw(points, WIDE).datasets.values()
    assert str(rows).count("turn") == 4 * 4  # turns, and p50, p99, cached and seen before of each


async def test_a_closed_loop_by_duration_lets_begun_conversations_end(tmp_path: Path) -> None:
    async with on_loopback(FakeServer(Script(delay_s=0.01))) as url:
        settings = bench_settings(tmp_path, url, "bench.concurrency=3", *TALKS, "bench.duration_s=0.2",
                                  "bench.workload.turns={value: 3}", "bench.workload.history=own")  # fmt: skip
        report = await run(settings, QUIET)
        again = await run(settings, QUIET)
    assert (report.exit_code, again.session_id) == (0, None)
    assert {len(turns) for turns in talks(settings).values()} == {3}
    assert report.stages[0]["answered"] == report.stages[0]["planned"] >= 3


async def test_a_file_of_conversations_is_held_as_it_was_recorded(tmp_path: Path) -> None:
    file = tmp_path / "talks.jsonl"
    file.write_text('{"turns": [{"prompt": "P", "reply": "R"}, {"prompt": "P2"}]}\n')
    server = Hearing(Script())
    async with on_loopback(server) as url:
        settings = bench_settings(tmp_path, url, "bench.concurrency=1", "bench.requests=4", "bench.salt=false",
                                  f"bench.workload={{kind: conversations, path: {file}}}",
                                  "bench.warm_up={requests: 0, rounds: 0}")  # fmt: skip
        await run(settings, QUIET)
    assert [[m["content"] for m in body["messages"]] for body in server.bodies[1:]] == [["P"], ["P", "R", "P2"]] * 2
    assert query(settings, "SELECT source_line FROM bench_requests") == [(1,)] * 4

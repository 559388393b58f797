"""The runner's own short table, the analyzer's frames and the stored view mean the same by the same words."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from aiohttp import web

from analyzer.bench.figures.points import points
from analyzer.bench.figures.stage_results import result_of
from analyzer.bench.read.request_metrics import gaps, with_metrics
from analyzer.bench.read.stage_facts import requests, stages
from analyzer.bench.report.trust import trust
from kvt_async.bench.bench import BenchOptions, run
from kvt_async.bench.stage_figures import stage_figures
from kvt_async.contract.paths import run_paths
from kvt_async.contract.schema import connect_for_reading
from kvt_async.store.reader import Reader
from tests.servers.openai_server import FakeServer, Script, on_loopback
from tests.worlds import bench_settings

GAP_S = 0.004
Json = dict[str, Any]


def said(**delta: Any) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": delta}]}) + b"\n\n"


def counted(completion: int, **more: Any) -> bytes:
    usage = {"prompt_tokens": 10, "completion_tokens": completion, **more}
    return b"data: " + orjson.dumps({"choices": [], "usage": usage}) + b"\n\n"


TEXT = [said(content="a "), said(content="b "), said(content="c ")]
ARGUMENTS = [said(tool_calls=[{"index": 0, "function": {"arguments": f"a{n}"}}]) for n in range(3)]
HIDDEN = {"completion_tokens_details": {"reasoning_tokens": 100}}
BESIDE = {"completion_tokens_details": {"reasoning_tokens": 1}}
REPLIES: list[tuple[list[bytes], bytes]] = [
    (TEXT, counted(3)),
    (TEXT, counted(103, **HIDDEN)),
    (
        [said(reasoning_content="r "), *TEXT],
        counted(3, total_tokens=14, completion_tokens_details={"reasoning_tokens": 1}),
    ),
    ([*TEXT, *ARGUMENTS], counted(6)),
    (ARGUMENTS, counted(3)),
    ([b"".join(TEXT)], counted(3)),
    (TEXT, counted(0)),
]


class EveryShape(FakeServer):
    """Each reply is of the next shape, an event every GAP_S."""

    async def _answer(self, http: web.Request, body: Json, fault: str | None) -> web.StreamResponse:
        pieces, usage = REPLIES[len(self.bodies) % len(REPLIES)]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(http)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(GAP_S)
        end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
        await response.write(end + usage + b"data: [DONE]\n\n")
        return response


async def test_three_readings_of_one_stage_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    async with on_loopback(EveryShape(Script())) as url:
        settings = bench_settings(tmp_path, url, "bench.concurrency=2", "bench.requests=28")
        report = await run(settings, BenchOptions(quiet=True))
    assert report.exit_code == 0
    run_id = report.stages[0]["run_id"]
    db = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path).db
    conn = connect_for_reading(db)
    view = conn.execute(
        "SELECT m.ttft_s, m.tpot_s, m.latency_s, m.completion_tokens IS NOT NULL, "
        "t.last_delta_ns > m.first_text_user_ns "
        "FROM attempt_metrics m JOIN telemetry t USING (request_id, attempt_idx) JOIN bench_arrivals b "
        "USING (request_id) WHERE b.phase = 'measured' ORDER BY request_id"
    ).fetchall()
    frame = with_metrics(requests(conn, run_id)).filter(phase="measured").sort("request_id")
    reader = Reader(db)
    figures = stage_figures(reader, run_id, None)
    reader.close()
    conn.close()
    assert frame["ttft_s"].to_list() == pytest.approx([row[0] for row in view])
    assert frame["latency_s"].to_list() == pytest.approx([row[2] for row in view])
    by_usage = [(ours, row[1]) for ours, row in zip(frame["tpot_s"].to_list(), view, strict=True) if row[3]]
    assert [ours for ours, _ in by_usage] == [pytest.approx(theirs) for _, theirs in by_usage]
    shown = frame["tpot_s"].drop_nulls()
    assert 0 < len(shown) == sum(row[4] for row in view) < 28  # all but those that came in one read
    for metric in (
        "tpot",
        "ttft",
        "ttfb",
        "latency",
    ):  # the runner's short table and the report, which uses kernel stamps
        mean_s = frame[f"{metric}_s"].mean()
        assert figures.value(f"{metric}_mean_ms") == pytest.approx(mean_s * 1000)  # type: ignore[operator]
    assert figures.value("itl_mean_ms") == pytest.approx(np.concatenate(gaps(frame)).mean() * 1000)
    assert set(frame["tokens"]) == {3, 103, 4, 6}


async def test_replies_that_done_alone_ended_and_first_tokens_that_came_together_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    class Hasty(FakeServer):
        """Its first two chunks share a write, and it never says why it stopped."""

        async def _answer(self, http: web.Request, body: Json, fault: str | None) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(http)
            await response.write(TEXT[0] + TEXT[1])
            await asyncio.sleep(5 * GAP_S)
            await response.write(TEXT[2] + b"data: [DONE]\n\n")
            return response

    async with on_loopback(Hasty(Script())) as url:
        settings = bench_settings(tmp_path, url, "bench.concurrency=2")
        await run(settings, BenchOptions(quiet=True))
    db = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path).db
    conn = connect_for_reading(db)
    (point,) = points([result_of(conn, stage, 0.05) for stage in stages(conn, "b")], 0.05)
    conn.close()
    assert (point.n_answered, point.n_done_alone) == (20, 20)
    assert 0 < point.n_coalesced == 20 - point.n_one_arrival  # a busy machine may read all of a reply at once
    verdict = trust([point])
    assert f"{point.n_coalesced} of 20 first tokens came with others in one read: their TTFT may be less" in verdict
    assert "20 of 20 replies ended with [DONE] and no finish_reason" in verdict

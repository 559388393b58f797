"""A bench of a server that speaks as an engine does: what its pages say reaches the screen, the report and --json."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from analyzer.bench.bench_analysis import bench_stages
from kvt_async.bench.bench import BenchOptions, run
from tests.servers.engine_pages import Done, vllm
from tests.servers.openai_server import FakeServer, Script, on_loopback
from tests.worlds import bench_settings, page_of, query

QUIET, CHARTLESS = BenchOptions(quiet=True), "analysis.charts=false"


class Crowded(FakeServer):
    """vLLM with drafts of two tokens, of which the first is always right; its cache is full, and it serves somebody
    else as often as us."""

    looked_at = asyncio.Event()  # its page, while it was busy

    async def metrics(self, http: web.Request) -> web.Response:
        n = len(self.bodies)
        if n > 5:
            self.looked_at.set()
        page = vllm(Done(requests=2 * n, generated=6 * n, prompt_tokens=40 * n, cached_tokens=10 * n, drafts=3 * n,
                         draft_tokens=6 * n, accepted=(3 * n, 0), preempted=n // 4, running=min(n, 4), waiting=n // 10,
                         kv_usage=min(n, 5) / 5))  # fmt: skip
        return web.Response(text=page)

    async def chat(self, http: web.Request) -> web.StreamResponse:
        if len(self.bodies) >= 20:
            await asyncio.wait_for(self.looked_at.wait(), 60)
        return await super().chat(http)


async def test_what_a_server_says_of_a_load_is_on_the_screen_in_the_report_and_in_json(tmp_path: Path) -> None:
    async with on_loopback(Crowded(Script())) as url:
        settings = bench_settings(tmp_path, url, "bench.rate=40", "bench.scrape_interval_s=0.05", CHARTLESS)
        await run(settings, QUIET)
        analysis = await asyncio.to_thread(bench_stages, settings)
    (point,) = analysis["points"]
    (side,) = point["server"]["stages"]
    assert (point["server"]["engine"], side["restarts"], side["requests_of_others"]) == ("vLLM", 0, 24)
    assert side["counters"]["preemptions"] == 6
    assert side["cached_share"] == 0.25
    assert (side["drafting"]["acceptance"], side["drafting"]["accepted_length"]) == (0.5, 2.0)
    assert (side["gauges"]["kv_usage"]["max"], point["server"]["kv_cache_usage_max"]) == (1.0, 1.0)
    preempted, others = [line for line in analysis["verdict"] if line.startswith("WARNING")]
    assert "took the KV cache of running requests back at rate 40/s (6 requests)" in preempted
    assert "it answered others at rate 40/s (24 requests)" in others
    screen = analysis["lines"][analysis["lines"].index("") + 1 :]
    assert screen[0].startswith("the server says")
    assert max(len(line) for line in screen[:2]) <= 100
    page = await asyncio.to_thread(page_of, analysis)
    assert "| Preempted |" in page
    assert "| Paused max |" not in page  # vLLM doesn't say
    during = query(settings, "SELECT metrics_json FROM server_samples WHERE phase = 'during'")
    assert all(isinstance(value, float) for (text,) in during for value in orjson.loads(text).values())


async def test_a_reply_of_llama_cpp_tells_its_drafts(tmp_path: Path) -> None:
    class Drafting(FakeServer):
        """Speaks of no drafts on its page, and of them in the timings of every reply."""

        async def chat(self, http: web.Request) -> web.StreamResponse:
            body = orjson.loads(await http.read())
            self.bodies.append(body)
            message = {"role": "assistant", "content": "one two three"}
            reply: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
            reply["usage"] = {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23}
            reply["timings"] = {"cache_n": 5, "prompt_n": 15, "predicted_n": 3, "draft_n": 8, "draft_n_accepted": 2}
            return web.json_response(reply)

    async with on_loopback(Drafting(Script(metrics="unrelated 1\n"))) as url:
        settings = bench_settings(tmp_path, url, "bench.rate=100", "bench.requests=5", "engine.stream=false", CHARTLESS)
        await run(settings, QUIET)
        analysis = await asyncio.to_thread(bench_stages, settings)
    (point,) = analysis["points"]
    (side,) = point["server"]["stages"]
    assert (side["drafting"]["acceptance"], side["drafting"]["source"]) == (0.25, "replies")
    assert point["cached_share"] == 0.25
    assert "| Drafted tokens accepted |" in await asyncio.to_thread(page_of, analysis)

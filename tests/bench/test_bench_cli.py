"""`kvt bench` as a program: what it answers and with which exit code."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from analyzer.bench.bench_analysis import bench_stages
from analyzer.bench.comparison import compare
from kvt_async.bench.bench import BenchOptions, run
from kvt_async.bench.cli import app
from tests.bench_output import documented
from tests.forked_kvt import run_kvt
from tests.servers.openai_server import FakeServer, Script, on_loopback, serving
from tests.worlds import bench_overrides, bench_settings

QUIET = BenchOptions(quiet=True)


async def kvt_bench(tmp_path: Path, url: str, *options: str) -> tuple[int, dict[str, Any], str]:
    """(exit code, --json, stderr). Everything in that JSON is documented."""
    overrides = [
        word for one in bench_overrides(tmp_path, url, "analysis.charts=false") for word in ("--override", one)
    ]
    words, env = ["bench", "--json", *options, *overrides], {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = await asyncio.to_thread(run_kvt, words, tmp_path, env)
    answer = orjson.loads(done.stdout) if done.stdout else {}
    if answer:
        assert documented(answer, "run")["schema"] == "kvt.bench/1"
    return done.returncode, answer, done.stderr


async def test_an_objective_that_is_proven_missed_exits_1_and_one_that_is_met_exits_0(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        code, answer, _ = await kvt_bench(tmp_path, url, "--concurrency", "2", "--slo", "ttft_p50_ms=0.001")
        assert (code, answer["exit_code"]) == (1, 1)
        assert answer["analysis"]["points"][0]["objectives"][0]["verdict"] == "missed"
        n = len(server.bodies)
        code, answer, _ = await kvt_bench(tmp_path, url, "--concurrency", "2", "--slo", "ttft_p50_ms=60000")
        assert (code, len(server.bodies)) == (0, n), "another question of the same stage sends nothing"
        assert answer["analysis"]["points"][0]["objectives"][0]["verdict"] == "met"
    page = (tmp_path / "runs/b/bench_report.html").read_text()
    assert len(page) < 200_000, "a page without charts carries no program that draws them"


async def test_a_limit_that_is_not_finite_is_an_error_of_the_config(tmp_path: Path) -> None:
    for option in (["--rate", "inf"], ["--rate", "nan"], ["--rate", "5", "--slo", "ttft_p99_ms=inf"],
                   ["--rate", "5", "--duration", "inf"], ["--sweep-rate", "1,inf"]):  # fmt: skip
        code, _, err = await kvt_bench(tmp_path, "http://127.0.0.1:9/v1", *option)
        assert code == 2, (option, err)
        assert "Traceback" not in err


async def test_a_server_that_is_busy_for_the_first_request_is_waited_for(tmp_path: Path) -> None:
    class Busy(FakeServer):
        n_refused = 0

        async def chat(self, http: web.Request) -> web.StreamResponse:
            if self.n_refused < 2:
                self.n_refused += 1
                return web.json_response({"error": {"message": "busy"}}, status=(429, 503)[self.n_refused - 1],
                                         headers={"Retry-After": "0"})  # fmt: skip
            return await super().chat(http)

    server = Busy(Script())
    async with on_loopback(server) as url:
        report = await run(bench_settings(tmp_path, url, "bench.concurrency=2"), QUIET)
    assert (report.exit_code, report.failed, server.n_refused) == (0, 0, 2)


async def test_the_schema_of_json_is_printed_and_holds_what_each_command_says(tmp_path: Path) -> None:
    """A run, the same with --dry-run, its report under another tool's formulas, and two groups side by side."""
    async with serving(Script()) as (_, url):
        settings = bench_settings(tmp_path, url, "analysis.charts=false", "bench.concurrency=2")
        plan = (await run(settings, BenchOptions(dry_run=True, quiet=True))).as_json()
        await run(settings, QUIET)
    analysis = await asyncio.to_thread(bench_stages, settings, as_tool="vllm", asked={"ttft_p50_ms": 0.001})
    folder = str(tmp_path / "runs/b")
    comparison = await asyncio.to_thread(compare, folder, folder)
    for answer, kind in ((plan, "plan"), (analysis, "analysis"), (comparison, "comparison")):
        documented({name: value for name, value in answer.items() if name != "lines"}, kind)
    printed = CliRunner().invoke(app, ["schema"])
    Draft202012Validator.check_schema(orjson.loads(printed.stdout))
    Draft202012Validator(orjson.loads(printed.stdout)).validate({**plan, "schema": "kvt.bench/1", "of_tomorrow": 1})
    with pytest.raises(AssertionError, match=r"of_tomorrow.* is to be documented in .*bench_output\.schema\.json"):
        documented({**plan, "of_tomorrow": 1}, "plan")

"""`kvt status` of a benched group: what its stages planned and did, and what of the config is still to come."""

from pathlib import Path

import orjson
import pytest

from kvt_async.bench.bench import BenchOptions, run
from kvt_async.session.group_status import lines
from kvt_async.status import show_status, status
from tests.servers.openai_server import FailingAfterTheFirst, Script, on_loopback, serving
from tests.worlds import bench_settings

QUIET = BenchOptions(quiet=True)
LIST = ("bench.sweep_rate=[50, 100, 200]", "bench.repeats=2")


async def test_it_counts_measured_requests_of_each_stage_and_adds_up(tmp_path: Path) -> None:
    async with on_loopback(FailingAfterTheFirst(Script(faults={"http_500": 0.05}))) as url:
        settings = bench_settings(tmp_path, url, "bench.rate=100", "bench.repeats=2")
        report = await run(settings, QUIET)
    now = status(settings)
    assert (now["invariants_hold"], now["ahead"], now["pending"], now["planned"]) == (True, 0, 0, 40)
    assert [level["level"] for level in now["levels"]] == ["rate 100/s", "rate 100/s (repeat 1)"]
    assert now["failures"] == report.failed
    assert now["responses"] == 40 - report.failed


async def test_stages_of_the_config_that_have_not_begun_are_still_planned(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        await run(bench_settings(tmp_path, url, "bench.rate=50"), QUIET)
    now = status(bench_settings(tmp_path, url, *LIST))
    assert (now["planned"], now["responses"], now["pending"], now["ahead"]) == (120, 20, 100, 5)
    assert [level["level"] for level in now["levels"] if not level["begun"]] == [
        "rate 100/s", "rate 200/s", "rate 50/s (repeat 1)", "rate 100/s (repeat 1)", "rate 200/s (repeat 1)",
    ]  # fmt: skip
    assert "b, generation 1: 20 answered, 0 failed, 100 pending of 120" in lines(now)[0]


async def test_a_load_given_on_the_command_line_alone_leaves_nothing_to_come(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script()) as (_, url):
        await run(bench_settings(tmp_path, url, "bench.rate=50"), QUIET)
    assert show_status(bench_settings(tmp_path, url), as_json=True) == 0
    now = orjson.loads(capsys.readouterr().out)
    assert (now["planned"], now["pending"], now["ahead"]) == (20, 0, 0)

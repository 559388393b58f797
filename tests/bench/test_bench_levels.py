"""`kvt bench --levels`: a level's figures never stand without what shows that its budget was applied."""

import sys
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from analyzer.bench.bench_analysis import bench_stages
from kvt_async.bench.bench import BenchOptions, run
from kvt_async.contract.errors import DeadKnobError
from kvt_async.contract.settings import Settings
from tests.servers.openai_server import Script, serving
from tests.worlds import bench_settings, page_of, query

QUIET = BenchOptions(quiet=True)
ALLOWED = replace(QUIET, allow_dead_knob=True)
LEVELS = (
    "bench.levels=true",
    "bench.concurrency=2",
    "kv.levels=[{budget: 1.0}, {budget: 0.5}]",
    "bench.requests=6",
    "analysis.charts=false",
)


def leveled(folder: Path, url: str, *overrides: str) -> Settings:
    return bench_settings(folder, url, *LEVELS, *overrides)


def budgets(settings: Settings) -> dict[str, tuple[str, str]]:
    """(status, reason) of each level, as --json has them; no picture is drawn."""
    points = bench_stages(settings)["points"]
    return {point["level"]: (point["budget"]["status"], point["budget"]["reason"]) for point in points}


async def test_a_server_that_ignores_the_budget_is_refused_before_the_first_stage(tmp_path: Path) -> None:
    async with serving(Script(knob="dead")) as (server, url):
        settings = leveled(tmp_path, url)
        with pytest.raises(DeadKnobError, match="--allow-dead-knob") as caught:
            await run(settings, QUIET)
    assert caught.value.exit_code == 3
    assert query(settings, "SELECT (SELECT count(*) FROM requests), (SELECT count(*) FROM bench_stages)") == [(0, 0)]
    assert query(settings, "SELECT verdict FROM probes WHERE verdict IS NOT NULL") == [("dead",)]
    assert {body["kv"]["budget"] for body in server.bodies if "budget" in body["kv"]} == {1.0, 0.5, 0.02}


async def test_levels_of_an_allowed_dead_knob_are_called_unverified_beside_their_figures(tmp_path: Path) -> None:
    async with serving(Script(knob="echo_only")) as (_, url):
        settings = leveled(tmp_path, url)
        report = await run(settings, ALLOWED)
    assert (report.exit_code, report.canary) == (0, "dead")
    found = bench_stages(settings)
    assert [point["budget"]["status"] for point in found["points"]] == ["full", "unverified"]
    (line,) = [line for line in found["lines"] if line.startswith("snapkv/aware 0.5: budget")]
    assert "UNVERIFIED, the server reports the budget, but the canary" in line
    page = page_of(found)
    assert "Budget UNVERIFIED: snapkv/aware 0.5: not to be read as that budget." in page
    assert "| snapkv/aware 0.5 (unverified), concurrency 2 |" in page
    assert "NOT shown to be at this budget" in found["verdict"][3]


@pytest.mark.parametrize(("knob", "status"), [("works", "verified"), ("half", "contradicted")])
async def test_what_replies_say_of_their_budget_is_the_levels_verdict(tmp_path: Path, knob: str, status: str) -> None:
    async with serving(Script(knob=knob)) as (_, url):
        settings = leveled(tmp_path, url)
        report = await run(settings, QUIET)
    assert report.canary == "alive"
    found = budgets(settings)
    assert (found["full"][0], found["snapkv/aware 0.5"][0]) == ("full", status)
    shown = "0.5 fraction (echoed)" if knob == "works" else "0.25 fraction (echoed)"
    label = "snapkv/aware 0.5" + ("" if knob == "works" else " (contradicted)")
    page = (tmp_path / "runs/b/bench_report.md").read_text(encoding="utf-8")
    for row in (
        f"| {label}, concurrency 2 | {status} | {shown} |",
        f"| {label} | {status} | {shown} | concurrency 2 |",
    ):
        assert row in page
    assert query(settings, "SELECT status FROM run_evidence ORDER BY status") == sorted([("full",), (status,)])


async def test_a_server_that_says_it_on_its_metrics_page_is_looked_at_before_and_after(tmp_path: Path) -> None:
    async with serving(Script(knob="dead", metrics='kvt:budget{of="kv"} 0.5\n')) as (server, url):
        settings = leveled(tmp_path, url, 'kv.evidence={metric: "kvt:budget{of=\\"kv\\"}", unit: fraction}')
        await run(settings, ALLOWED)
        server.script.metrics = 'kvt:budget{of="kv"} 1.0\n'
    looks = [
        (phase, said["raw"])
        for phase, text in query(settings, "SELECT phase, identity_json FROM server_snapshots ORDER BY taken_at, n")
        for said in orjson.loads(text).get("evidence", {}).values()
    ]
    assert looks == [("start", "0.5"), ("end", "0.5")] * 2
    assert budgets(settings)["full"][0] == "contradicted", "full cache that says it evicted"


async def test_the_canary_is_not_asked_again_when_no_level_is_left(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = leveled(tmp_path, url)
        await run(settings, QUIET)
        n = len(server.bodies)
        await run(settings, QUIET)
    assert len(server.bodies) == n
    assert query(settings, "SELECT count(*) FROM probes WHERE answer IS NOT NULL") == [(9,)]


def launched(folder: Path, port: int, *, knob: str, more: str = "") -> Settings:
    command = f"{sys.executable} -m tests.servers.openai_server --port {{port}} --knob {knob} --kept {{budget}} {more}"
    apply = f"kv.apply={{via: launch, command: '{command}', grace_s: 2}}"
    levels = "kv.levels=[{budget: 1.0}, {budget: 0.5}, {budget: 0.2}]"
    return leveled(folder, f"http://127.0.0.1:{port}/v1", apply, levels)


async def test_launched_levels_are_asked_on_their_own_servers_the_harshest_second(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    settings = launched(tmp_path, unused_tcp_port, knob="works")
    report = await run(settings, QUIET)
    assert (report.exit_code, report.canary) == (0, "alive")
    sent = [level for (level,) in query(settings, "SELECT level FROM bench_stages ORDER BY stage_idx")]
    assert sent == ["full", "snapkv 0.2", "snapkv 0.5"]
    asked = query(settings, "SELECT level, count(*) FROM probes WHERE answer IS NOT NULL GROUP BY 1 ORDER BY 1")
    assert asked == [("full", 6), ("snapkv 0.2", 3)]
    assert budgets(settings)["snapkv 0.5"][0] == "unverified", "nothing shows what was launched"


async def test_a_dead_launched_knob_keeps_full_cache_and_sends_nothing_else(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    settings = launched(tmp_path, unused_tcp_port, knob="dead")
    with pytest.raises(DeadKnobError, match="full was sent and is kept, nothing of any other level was"):
        await run(settings, QUIET)
    assert query(settings, "SELECT level FROM bench_stages") == [("full",)]


async def test_a_launched_server_that_dies_under_a_stage_is_started_again_and_the_rest_is_another_window(
    tmp_path: Path, unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = launched(tmp_path, unused_tcp_port, knob="works", more="--die-after 18")
    settings = settings.model_copy(
        update={"bench": settings.bench.model_copy(update={"requests": 12, "retries": True})}
    )
    report = await run(settings, BenchOptions(allow_dead_knob=True))
    printed = capsys.readouterr().err
    assert "stopping: the launched server ended with exit code" in printed
    assert "starting it again (1 of 2)" in printed
    assert (report.exit_code, report.failed, report.pending) == (0, 0, 0)
    windows = query(settings, "SELECT count(DISTINCT session_id), group_concat(DISTINCT reason) FROM bench_window_ends "
                              "GROUP BY run_id ORDER BY 1 DESC")  # fmt: skip
    assert (windows[0][0], set(windows[0][1].split(","))) == (2, {"server", "finished"})
    ends = query(settings, "SELECT reason, count(*) FROM session_ends GROUP BY 1 ORDER BY 1")
    assert ends[0] == ("finished", 1)
    assert ends[1][0] == "server"
    assert query(settings, "SELECT session_id FROM session_ends WHERE reason = 'finished'") == [(report.session_id,)]

"""Answers scored under load: a planted loss is found at its load and nowhere else, over real HTTP."""

import asyncio
import hashlib
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from analyzer.bench.bench_analysis import bench_stages
from analyzer.bench.bench_checks import check_bench
from analyzer.bench.comparison import compare
from analyzer.verify.verification import verify
from kvt_async.bench.bench import BenchOptions, run
from kvt_async.contract.check_settings import Assertion
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.settings import Settings
from kvt_async.data.prepare import prepare
from kvt_async.status import status
from tests.bench_output import documented
from tests.data.helpers import jsonl_settings, write_lines
from tests.servers.openai_server import FakeServer, Script, on_loopback
from tests.worlds import bench_settings, db_of, query

QUIET = BenchOptions(quiet=True)
EXAMPLES = 90
ROWS = [
    {"example_id": f"e{i:03d}", "question": f"what is {i} ?", "context": f"rain {i} " * 4, "answers": [f"value{i}"]}
    for i in range(EXAMPLES)
]


class WorseWhenBusy(FakeServer):
    """Right but for a tenth of its questions; with more than `most` requests in flight, wrong for 4 of 10 of them, or,
    with `fails`, those fail."""

    def __init__(self, most: int = 4, *, fails: bool = False) -> None:
        super().__init__(Script(words=1))
        self.most, self.fails = most, fails

    async def _answer(self, http: web.Request, body: dict[str, Any], fault: str | None) -> web.StreamResponse:
        prompt = body["messages"][-1]["content"]
        number = re.search(r"what is (\d+)", prompt)
        assert number is not None
        await asyncio.sleep(0.004 * self.in_flight)  # so that as many are here as the load brings
        chance = int(hashlib.sha256(number[1].encode()).hexdigest(), 16) % 10
        busy = self.in_flight > self.most
        if busy and self.fails and chance in (1, 2, 3, 4):
            return web.json_response({"error": {"message": "overloaded"}}, status=500)
        wrong = chance == 0 or (busy and chance in (1, 2, 3, 4))
        text = "nothing" if wrong else f"value{number[1]}"
        return await self.reply(http, body, [text], self.usage(prompt, 1))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifest")
    one_bin = ("binning.n_bins=1", f"binning.n_per_bin={EXAMPLES}", "tokenizer.name=approx:chars/4")
    return prepare(jsonl_settings(folder, ROWS, *one_bin), report=lambda _: None).path


def scored(folder: Path, url: str, manifest: Path, *overrides: str) -> Settings:
    return bench_settings(
        folder, url, "bench.scored=true", f"bench.workload={{kind: manifest, path: {manifest}}}", "bench.requests=auto",
        "analysis.charts=false", "bench.scrape_interval_s=0", *overrides,
    )  # fmt: skip


async def test_a_planted_loss_is_found_at_its_load_and_at_no_other(tmp_path: Path, manifest: Path) -> None:
    async with on_loopback(WorseWhenBusy()) as url:
        settings = scored(
            tmp_path, url, manifest, "bench.sweep_concurrency=[4, 16]", "bench.stop.gain=null", "bench.requests=100"
        )
        report = await run(settings, QUIET)
    assert (report.exit_code, report.pending) == (0, 0)
    assert [stage["load"] for stage in report.stages] == [
        "unloaded", "concurrency 4", "concurrency 16", "unloaded",
    ]  # fmt: skip
    analysis = documented(bench_stages(settings))
    documented({name: value for name, value in analysis.items() if name != "lines"})
    rows = {row["load"]: row for row in analysis["quality"]}
    assert {load: row["verdict"] for load, row in rows.items()} == {
        "unloaded": "control", "concurrency 4": "safe", "concurrency 16": "beyond",
    }  # fmt: skip
    assert all(row["n"] == EXAMPLES for row in rows.values())
    assert (rows["concurrency 4"]["loss_mean"], rows["unloaded"]["n_worse"]) == (0.0, 0)
    lost = rows["concurrency 16"]
    assert lost["acc_unloaded"] - lost["acc_loaded"] == pytest.approx(lost["loss_mean"])
    assert 0.2 < lost["loss_ci_low"] < lost["loss_mean"] < lost["loss_ci_high"]
    assert lost["loss_failures"] == 0
    assert "a loss is proven at concurrency 16" in "\n".join(analysis["lines"])
    assert "unloaded" not in [point["load"] for point in analysis["points"]], "it is no load of the ladder"
    page = (tmp_path / "runs/b/bench_report.md").read_text(encoding="utf-8")
    assert "## Quality under load" in page
    assert status(settings)["ahead"] == 0
    comparison = compare(str(tmp_path / "runs/b"), str(tmp_path / "runs/b"))
    assert "unloaded" not in str(comparison), "it is no load to be compared either"
    of_golds = """SELECT count(*), count(DISTINCT x.example_id) FROM requests r JOIN runs u USING (run_id)
        JOIN examples x ON x.dataset_id = u.dataset_id AND x.example_id = r.example_id
        JOIN bench_requests b ON b.request_id = r.request_id AND b.example_id = r.example_id"""
    assert query(settings, of_golds)[0][1] == EXAMPLES
    gates = [
        {"name": "any", "kind": "max_drop", "value": 0.1},
        {"name": "light", "kind": "max_drop", "value": 0.05, "load": "concurrency 4"},
        {"name": "strict", "kind": "max_drop", "value": 0.01, "load": "concurrency 4"},
    ]
    asked = settings.model_copy(update={"check": [Assertion.model_validate(gate) for gate in gates]})
    told = [(result.passed, result.is_open) for result in check_bench(asked)]
    assert told == [(False, False), (True, False), (True, True)], "90 prompts can't prove 0.01"
    of_sweep = Assertion.model_validate({"name": "x", "kind": "max_drop", "value": 0.1, "budget": 0.5})
    with pytest.raises(ConfigError, match="budget belong to a sweep"):
        check_bench(settings.model_copy(update={"check": [of_sweep]}))
    findings, checked = verify(db_of(settings))
    assert (findings.differences, checked[0].findings.differences) == ([], [])
    assert checked[0].findings.checked["scores"] == query(settings, "SELECT count(*) FROM scores")[0][0]
    for change in (
        "UPDATE bench_quality SET loss_mean = 0.01 WHERE load = 'concurrency 16'",
        "UPDATE scores SET score = 1 WHERE score = 0 AND request_id LIKE 'concurrency-16%'",
    ):
        copy = tmp_path / "edited.sqlite"
        copy.write_bytes(db_of(settings).read_bytes())
        with sqlite3.connect(copy) as conn:
            conn.execute(change)
        conn.close()
        _, edited = verify(copy)
        assert edited[0].findings.n_differences > 0, change


async def test_failures_score_nothing_and_are_shown_apart(tmp_path: Path, manifest: Path) -> None:
    async with on_loopback(WorseWhenBusy(fails=True)) as url:
        settings = scored(
            tmp_path, url, manifest, "bench.concurrency=16", "bench.unloaded=1", "bench.repeats=2", "bench.requests=100"
        )
        await run(settings, QUIET)
    (row,) = bench_stages(settings)["quality"]
    assert (row["verdict"], row["n"], row["n_answers"]) == ("beyond", EXAMPLES, 200)
    assert row["fail_loaded"] > 0.2
    assert row["loss_failures"] == pytest.approx(row["loss_mean"], abs=0.1)
    assert "of the requests failed" in row["sentence"]


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("bench.body.ignore_eos=true", "bench.body.ignore_eos"),
        ("decoding.extra_body={min_tokens: 5}", "decoding.extra_body.min_tokens"),
        ("bench.workload.output_tokens={value: 8}", "bench.workload.output_tokens"),
        ("bench.workload={kind: synthetic, path: null}", "bench.scored"),
    ],
)
async def test_what_changes_where_answers_end_is_refused_before_anything_is_sent(
    tmp_path: Path, manifest: Path, override: str, where: str
) -> None:
    settings = scored(tmp_path, "http://127.0.0.1:9/v1", manifest, "bench.rate=10", override)
    with pytest.raises(ConfigError) as caught:
        await run(settings, QUIET)
    assert caught.value.where == where


async def test_without_a_path_the_prompts_are_the_configs_own_data_as_their_task_asks_them(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "in.jsonl", ROWS[:8])
    own = (f"dataset={{name: jsonl, task: mine, path: {data}}}", "binning={n_bins: 1, n_per_bin: 8}")
    ask = ("bench.scored=true", "bench.workload={kind: manifest}", "bench.concurrency=2", "bench.requests=8")
    async with on_loopback(WorseWhenBusy()) as url:
        settings = bench_settings(tmp_path, url, *own, *ask, "analysis.charts=false", "bench.unloaded=1")
        with pytest.raises(MissingPrerequisiteError, match="not prepared"):
            await run(settings, BenchOptions(dry_run=True))
        await run(settings, QUIET)
        plan = (await run(settings, BenchOptions(dry_run=True, quiet=True))).as_json()
    assert [(stage["load"], stage["requests"]) for stage in plan["stages_in_sight"]] == [
        ("unloaded", 8), ("concurrency 2", 8),
    ]  # fmt: skip
    (row,) = bench_stages(settings)["quality"]
    assert (row["n"], row["verdict"]) == (8, "cannot_tell")
    assert row["n_needed"] > 8, "eight prompts are too few to tell"

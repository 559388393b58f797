"""A way of applying a budget that kvt doesn't have is one file: `via: header` of header_way.py, from config to verdict.

The server takes its budget from two headers and from nothing else.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from analyzer.stages import analyze_stage, score_stage
from kvt_async.bench.bench import BenchOptions
from kvt_async.bench.bench import run as run_bench
from kvt_async.contract.command_line.run_folder import stored_settings
from kvt_async.contract.errors import ConfigError, ContractMismatchError
from kvt_async.contract.load import load_settings
from kvt_async.contract.settings_kv import APPLY_KEYS, ApplyKeys, Via
from kvt_async.sweep.sweep import SweepOptions, run
from kvt_async.ways.registry import register, way_of
from tests.servers.openai_server import FakeServer, Script, on_loopback
from tests.ways.header_way import Header, header_way
from tests.worlds import bench_settings, check_invariants, query, states, sweep_settings

QUIET = SweepOptions(quiet=True)
APPLY = "kv.apply={via: header, header: {X-KV-Budget: '{budget}', X-KV-Policy: '{policy}'}}"


class HeaderServer(FakeServer):
    """Keeps the budget that each request had in its header."""

    def __init__(self) -> None:
        super().__init__(Script())
        self.budgets: list[str | None] = []

    async def _answer(self, http: web.Request, body: dict[str, Any], fault: str | None) -> web.StreamResponse:
        self.budgets.append(http.headers.get("X-KV-Budget"))
        kv = {"policy": http.headers["X-KV-Policy"], "budget": float(http.headers["X-KV-Budget"])}
        return await super()._answer(http, body | {"kv": kv}, fault)


@pytest.fixture
def header() -> Iterator[None]:
    with header_way():
        yield


@pytest.mark.parametrize("transport", ["aiohttp", "lean"])
@pytest.mark.usefixtures("header")
async def test_a_sweep_over_headers_is_judged_sent_stored_and_resumed(tmp_path: Path, transport: str) -> None:
    async with on_loopback(server := HeaderServer()) as url:
        extra = ("kv.control_repeats=0", f"engine.transport={transport}", "engine.warm_up=prefill")
        settings = sweep_settings(tmp_path, url, APPLY, *extra)
        report = await run(settings, options=QUIET)
        assert (report.exit_code, report.canary, states(settings)) == (0, "alive", {"response": 36})
        check_invariants(settings)
        assert len(server.budgets) == len(server.bodies)
        assert set(server.budgets) == {"1.0", "0.5", "0.2"}
        assert not any("kv" in body for body in server.bodies)
        assert query(settings, "SELECT DISTINCT u.kv_apply, u.kv_budget, p.kv_effective FROM responses p "
                               "JOIN requests USING (request_id) JOIN runs u USING (run_id) ORDER BY 2") == [
            ("header", 0.2, 0.2), ("header", 0.5, 0.5), ("header", 1.0, 1.0),
        ]  # fmt: skip
        assert (await run(settings, options=QUIET)).session_id is None
        with pytest.raises(ContractMismatchError, match=r"apply\.header\.X-KV-Policy"):
            await run(sweep_settings(tmp_path, url, APPLY.replace("{policy}", "other"), *extra), options=QUIET)


async def test_its_data_are_analysed_where_nobody_knows_such_a_way(tmp_path: Path) -> None:
    async with on_loopback(HeaderServer()) as url:
        with header_way():
            await run(sweep_settings(tmp_path, url, APPLY, "kv.control_repeats=0"), options=QUIET)
    settings = stored_settings(tmp_path / "runs/g", ["analysis.resamples=200"])
    await asyncio.to_thread(score_stage, settings)
    await asyncio.to_thread(analyze_stage, settings)
    assert {row[0] for row in query(settings, "SELECT status FROM run_evidence")} == {"full", "verified"}


@pytest.mark.usefixtures("header")
async def test_a_bench_of_levels_sends_the_headers_too(tmp_path: Path) -> None:
    async with on_loopback(server := HeaderServer()) as url:
        settings = bench_settings(
            tmp_path, url, APPLY, "bench.levels=true", "bench.concurrency=2", "kv.budgets=[1.0, 0.2]",
            "kv.control_repeats=0",
        )  # fmt: skip
        report = await run_bench(settings, BenchOptions(force=True, guarded=False, quiet=True))
    assert (report.exit_code, report.canary) == (0, "alive")
    assert server.budgets.count("1.0") > 20 < server.budgets.count("0.2")
    assert None not in server.budgets


@pytest.mark.usefixtures("header")
@pytest.mark.parametrize(
    ("apply", "match"),
    [
        ("{via: header}", "via: header needs header"),
        ("{via: header, header: {X: '{polcy}'}}", r"kv\.apply\.header\.X: there is no placeholder \{polcy\}"),
        ("{via: header, header: {'a b': x}}", "'a b' is no name of a header"),
        ("{via: body, body: {}, header: {X: y}}", "header is given, but via is body"),
        ("{via: heder}", r"'body', 'endpoint', 'launch', 'none' or 'header' \(got 'heder'\)"),
        ("{via: header, heder: {}}", "(?s)unknown key kv.apply.heder.*Did you mean kv.apply.header"),
    ],
)
async def test_its_keys_are_checked_as_those_of_every_way_are(tmp_path: Path, apply: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        await run(sweep_settings(tmp_path, "http://127.0.0.1:1/v1", f"kv.apply={apply}"), options=QUIET)


@pytest.mark.usefixtures("header")
def test_a_secret_in_its_keys_is_known_as_one() -> None:
    apply = "kv.apply={via: header, header: {X-KV: '{budget} ${KV_TOKEN}'}}"
    settings = load_settings(None, [apply], environ={"KV_TOKEN": "a-very-secret-word"})
    assert settings.secrets.text("said a-very-secret-word") != "said a-very-secret-word"


def test_a_way_that_nobody_added_is_no_way_and_a_name_can_be_added_once() -> None:
    with pytest.raises(ConfigError, match="Input should be 'body', 'endpoint', 'launch' or 'none'"):
        load_settings(None, ["kv.apply={via: header}"], environ={})
    with header_way(), pytest.raises(ValueError, match="the way header already"):
        register(Header(), ApplyKeys())
    with pytest.raises(ValueError, match="the key body already"):
        register(Header(), ApplyKeys(needed=("body",)))


def test_every_name_that_the_config_takes_has_its_way() -> None:
    assert [*APPLY_KEYS] == [via.value for via in Via]
    assert [way_of(name).name for name in APPLY_KEYS] == [*APPLY_KEYS]
    assert json.dumps([*APPLY_KEYS]) == '["body", "endpoint", "launch", "none"]'

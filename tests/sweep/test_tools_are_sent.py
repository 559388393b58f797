"""A sweep over rows that offer tools: what is sent, what is stored of the calls, and that it can be verified."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from analyzer.read.drift import answers_beside_canary
from analyzer.stages import every_stage, score_stage
from analyzer.verbs.show import show
from analyzer.verify.verification import verify
from kvt_async.contract import plugin_files
from kvt_async.contract.formulas.prompt_text import messages_sha256
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings
from kvt_async.records import Json
from kvt_async.sweep.sweep import SweepOptions, run
from tests.servers.fault_server import FaultServer, Seen, Wire, delta, event, head, usage
from tests.worlds import check_invariants, db_of, query, sweep_settings

WEATHER: Json = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL: Json = {"name": "weather", "arguments": {"city": "Paris"}}


def tool_rows(path: Path, expect_none: bool) -> Path:
    """Every other row offers a tool, every third of all forces it; to the others any text is right, or a word."""
    rows = []
    for i in range(6):
        row: Json = {"example_id": f"e{i}", "question": f"Weather {i}?", "context": f"Fact {i}. " + "word " * 40}
        if i % 2 == 0:
            row |= {"tools": [WEATHER], "expected_calls": [CALL]}
            row |= {"tool_choice": "required"} if i % 3 == 0 else {}
        else:
            row |= {"answers": [] if expect_none else ["a"]}
        rows.append(orjson.dumps(row))
    path.write_bytes(b"\n".join(rows))
    return path


async def caller(wrong: int | None, wire: Wire, request: Seen) -> None:
    """Calls the tool that it is offered, in pieces; else says one word."""
    if request.method == "GET":
        await wire.send(head(404, "application/json", length=2) + b"{}")
        return
    body = request.json()
    parts: list[Any] = [delta("sunny")]
    if "tools" in body:
        number = f"{request.at_ns}"
        city = number if f"Weather {wrong}?" in str(body["messages"]) else "Paris"
        pieces = [("weather", ""), (None, '{"city":'), (None, f' "{city}"}}')]
        parts = [
            delta(tool_calls=[{"index": 0, "id": number, "function": {"name": name, "arguments": text}}])
            for name, text in pieces
        ]
    ended = [delta(finish="tool_calls" if "tools" in body else "stop"), usage()]
    stream = b"".join(map(event, [*parts, *ended])) + event("[DONE]")
    await wire.send(head(200, "text/event-stream", length=len(stream)) + stream)


async def swept(
    folder: Path, *overrides: str, wrong: int | None = None, expect_none: bool = False
) -> tuple[Settings, list[Seen]]:
    """`wrong`: the row to which the server gives wrong arguments, other ones each time."""
    async with FaultServer(partial(caller, wrong)) as server:
        data = tool_rows(folder / "tools.jsonl", expect_none)
        settings = sweep_settings(
            folder, server.base_url, f"dataset.path={data}", "kv.apply.via=none", "kv.budgets=[1.0]",
            "kv.control_repeats=0", "analysis.charts=false", *overrides,
        )  # fmt: skip
        settings = plugin_files.with_plugins(settings, lambda _: None)
        report = await run(settings, options=SweepOptions(quiet=True))
        assert report.responses == report.planned
        return settings, [seen for seen in server.seen if seen.method == "POST"]


@pytest.mark.parametrize("transport", ["aiohttp", "lean"])
async def test_each_request_offers_its_own_tools_and_its_calls_are_stored(tmp_path: Path, transport: str) -> None:
    settings, sent = await swept(tmp_path, f"engine.transport={transport}")
    bodies = {body["messages"][-1]["content"].split("Weather ")[-1]: body for body in (seen.json() for seen in sent)}
    assert {n: body.get("tools") for n, body in bodies.items() if n[:-1].isdigit()} == {
        f"{n}?": [WEATHER] if n % 2 == 0 else None for n in range(6)
    }
    assert {n: body.get("tool_choice") for n, body in bodies.items() if "tools" in body} == {
        "0?": "required", "2?": None, "4?": None
    }  # fmt: skip
    sql = "SELECT q.example_id, p.text, p.tool_calls_json FROM responses p JOIN requests q USING (request_id)"
    stored = query(settings, sql)
    for example_id, text, calls_json in stored:
        if int(example_id[1:]) % 2 == 0:
            (call,) = json.loads(calls_json)
            assert (text, call["name"], call["arguments"]) == ("", "weather", '{"city": "Paris"}')
            assert call["id"].isdigit()
        else:
            assert (text, calls_json) == ("sunny", None)
    hashes = dict(query(settings, "SELECT example_id, prompt_sha256 FROM requests"))
    assert hashes["e4"] == messages_sha256(bodies["4?"]["messages"], {"tools": [WEATHER]})
    assert hashes["e5"] == messages_sha256(bodies["5?"]["messages"])
    check_invariants(settings)
    findings, _ = verify(db_of(settings))
    assert not findings.differences  # the hash of every prompt is made again, its tools included


async def test_the_calls_of_a_sweep_are_scored_by_columns_and_verified(tmp_path: Path) -> None:
    settings, _ = await swept(tmp_path, "dataset.params={metric: tool_call}", wrong=4, expect_none=True)
    await asyncio.to_thread(score_stage, settings)
    sql = "SELECT q.example_id, s.score, s.failure_label, s.metric FROM scores s JOIN requests q USING (request_id)"
    scores = {example_id: rest for example_id, *rest in query(settings, sql)}
    assert scores == {
        f"e{n}": [0.0 if n == 4 else 1.0, None, "tool_call"] for n in range(6)
    }  # odd ones offer no tool, and expect no call
    with closing(connect_for_reading(db_of(settings))) as conn:
        shown = "\n".join(show(conn, settings, "e0").lines)
    assert '  tools: [{"type": "function", "function": {"name": "weather"' in shown
    assert '  tool_choice: "required"' in shown
    assert 'calls [{"name":"weather","arguments":"{\\"city\\":' in shown
    await asyncio.to_thread(every_stage, settings, partial=True)
    findings, _ = verify(db_of(settings))
    assert not findings.differences


OWN = """
import json
from kvt_async.plugins import metric

@metric("same_city", needs_tools=True)
def same_city(prediction, golds, meta):
    \"\"\"Any call of a tool that is offered, to the right city.\"\"\"
    try:
        called = json.loads(prediction)
    except ValueError:
        return float(not golds)
    called = called if isinstance(called, list) else [called]
    given = [c["arguments"] for c in called]
    cities = [(json.loads(one) if isinstance(one, str) else one)["city"] for one in given]
    names = {tool["function"]["name"] for tool in meta["tools"] or []}
    wanted = [json.loads(gold)["arguments"]["city"] for gold in golds]
    return float(cities == wanted and {c["name"] for c in called} <= names)
"""


async def test_a_metric_of_ones_own_sees_the_calls_and_the_tools(tmp_path: Path) -> None:
    plugin = tmp_path / "own.py"
    plugin.write_text(OWN)
    try:
        settings, _ = await swept(
            tmp_path, f"plugins=[{plugin}]", "dataset.params={metric: same_city}", wrong=4, expect_none=True
        )
        await asyncio.to_thread(score_stage, settings)
    finally:
        plugin_files.load([])
    sql = "SELECT q.example_id, s.score FROM scores s JOIN requests q USING (request_id)"
    assert dict(query(settings, sql)) == {f"e{n}": 0.0 if n == 4 else 1.0 for n in range(6)}


async def test_replies_that_differ_in_their_calls_alone_are_not_identical(tmp_path: Path) -> None:
    settings, _ = await swept(
        tmp_path, "dataset.params={metric: tool_call}", "kv.control_repeats=1", wrong=4, expect_none=True
    )
    await asyncio.to_thread(score_stage, settings)
    sql = """SELECT q.example_id, s.flags FROM scores s JOIN requests q USING (request_id)
             JOIN runs u USING (run_id) WHERE u.repeat_idx = 1"""
    flags = dict(query(settings, sql))
    assert flags == {  # ids are new in each reply
        f"e{n}": "call_arguments" if n == 4 else "identical_to_full" for n in range(6)
    }


async def test_a_prompt_that_is_cut_offers_its_tools_whole(tmp_path: Path) -> None:
    settings, sent = await swept(tmp_path, "kv.policy=truncate_prompt", "kv.budgets=[0.5, 1.0]")
    cut = [body for body in (seen.json() for seen in sent) if "tools" in body and len(str(body["messages"])) < 250]
    assert len(cut) >= 3
    assert all(body["tools"] == [WEATHER] for body in cut)
    sql = "SELECT prompt_sha256 FROM requests JOIN runs USING (run_id) WHERE kv_budget = 0.5 AND example_id = 'e0'"
    hashes = {messages_sha256(body["messages"], {"tools": [WEATHER], "tool_choice": "required"}) for body in cut}
    assert query(settings, sql)[0][0] in hashes


def by_budget(told: bool) -> Callable[[Wire, Seen], Awaitable[None]]:
    """Calls a tool with the budget in its arguments: always, or (`told` False) not where the canary asks."""

    async def step(wire: Wire, request: Seen) -> None:
        if request.method == "GET":
            await wire.send(head(404, "application/json", length=2) + b"{}")
            return
        body = request.json()
        city = str(body["kv"]["budget"]) if told or body["max_tokens"] == MAX_TOKENS else "Paris"
        call = {"index": 0, "id": f"{request.at_ns}", "function": {"name": "weather", "arguments": {"city": city}}}
        parts = [delta(tool_calls=[call]) if "tools" in body else delta("sunny"), delta(finish="stop"), usage()]
        stream = b"".join(map(event, parts)) + event("[DONE]")
        await wire.send(head(200, "text/event-stream", length=len(stream)) + stream)

    return step


MAX_TOKENS = 77


@pytest.mark.parametrize("told", [True, False])
async def test_calls_are_what_a_canary_compares_and_what_overrules_it(tmp_path: Path, told: bool) -> None:
    async with FaultServer(by_budget(told)) as server:
        data = tool_rows(tmp_path / "tools.jsonl", True)
        settings = sweep_settings(
            tmp_path, server.base_url, f"dataset.path={data}", f"decoding.max_tokens={MAX_TOKENS}",
            "dataset.params={metric: tool_call}", "analysis.charts=false",
        )  # fmt: skip
        report = await run(settings, options=SweepOptions(quiet=True, allow_dead_knob=True))
    assert report.canary == ("alive" if told else "dead")
    with closing(connect_for_reading(db_of(settings))) as conn:
        answers = answers_beside_canary(conn, "g", 1)
    if told:
        assert answers is None
    else:
        assert answers is not None
        assert (answers.n, answers.changed, answers.changed_again) == (6, 3, 0)

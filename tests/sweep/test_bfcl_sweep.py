"""BFCL over a server whose calls break with the budget: what is sent, scores, first faults, report, verify."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from analyzer.stages import every_stage
from analyzer.verify.verification import verify
from kvt_async.contract.paths import run_paths
from kvt_async.contract.settings import Settings
from kvt_async.records import Json
from kvt_async.sweep.sweep import SweepOptions, run
from tests.data.helpers import write_lines
from tests.data.test_bfcl import FERRY
from tests.servers.fault_server import FaultServer, Seen, Wire, delta, event, head, usage
from tests.worlds import db_of, query, sweep_settings

RIGHT = {"route": "Oslo-Kiel", "price": 9.5}
FAULTS: dict[int, tuple[str, Any]] = {
    0: ("call_unreadable", '{"route": "Oslo'),
    1: ("call_schema", "{}"),
    2: ("call_name", None),
    3: ("call_arguments", json.dumps(RIGHT | {"price": 8})),
}


def written(folder: Path, n: int = 8) -> Path:
    """BFCL's files with n entries of one call."""
    truth = [{"ferry.book": {"route": ["Oslo-Kiel"], "price": ["", 9.5]}}]
    name, answers = "BFCL_v4_simple_python.json", folder / "bfcl" / "possible_answer"
    write_lines(answers / name, [{"id": f"e{i}", "ground_truth": truth} for i in range(n)])
    asked = [[{"role": "user", "content": f"Book ferry {i}."}] for i in range(n)]
    rows = [{"id": f"e{i}", "question": [asked[i]], "function": [FERRY]} for i in range(n)]
    write_lines(folder / "bfcl" / name, rows)
    return folder / "bfcl"


async def ferry_office(wire: Wire, request: Seen) -> None:
    """Calls rightly, by its field or in the text that is asked for; under half of the cache the first four break."""
    if request.method == "GET":
        await wire.send(head(404, "application/json", length=2) + b"{}")
        return
    body: Json = request.json()
    said = body["messages"][-1]["content"]
    n = int(said.split()[-1].rstrip(".")) if said.startswith("Book ferry") else 9
    fault, arguments = FAULTS.get(n, ("", "")) if body["kv"].get("budget", 1) < 1 else ("", json.dumps(RIGHT))
    arguments = json.dumps(RIGHT) if fault == "" else arguments
    if "tools" in body:
        name = body["tools"][0]["function"]["name"]
        call = {"index": 0, "id": "c", "function": {"name": name, "arguments": arguments}}
        part = delta("Which ferry?") if arguments is None else delta(tool_calls=[call])
    else:
        texts = {"call_unreadable": "[ferry.book(route='Oslo", "call_schema": "[ferry.book()]", "call_name": "[]"}
        price = 8 if fault == "call_arguments" else 9.5
        part = delta(texts.get(fault, f"[ferry.book(route='Oslo/Kiel', price={price})]"))
    stream = b"".join(map(event, [part, delta(finish="stop"), usage()])) + event("[DONE]")
    await wire.send(head(200, "text/event-stream", length=len(stream)) + stream)


async def swept(folder: Path, *overrides: str) -> tuple[Settings, list[Json]]:
    async with FaultServer(ferry_office) as server:
        settings = sweep_settings(
            folder, server.base_url, "dataset.name=bfcl", "dataset.task=simple_python",
            f"dataset.path={written(folder)}",
            "kv.budgets=[1.0, 0.5]", "kv.control_repeats=0", "analysis.charts=false", "binning.n_bins=1",
            "decoding.max_tokens=64", *overrides,
        )  # fmt: skip
        report = await run(settings, options=SweepOptions(quiet=True))
        assert report.responses == report.planned
        return settings, [seen.json() for seen in server.seen if seen.method == "POST"]


@pytest.mark.parametrize("mode", ["fc", "prompt"])
async def test_what_breaks_first_is_told_of_each_answer_and_level(tmp_path: Path, mode: str) -> None:
    settings, sent = await swept(tmp_path, f"dataset.params.mode={mode}")
    asked = [body for body in sent if str(body["messages"][-1]["content"]).startswith("Book ferry")]
    roles = {tuple(message["role"] for message in body["messages"]) for body in asked}
    assert roles == ({("user",)} if mode == "fc" else {("system", "user")})
    assert all(("tools" in body) is (mode == "fc") for body in asked)
    await asyncio.to_thread(every_stage, settings, partial=True)
    sql = """SELECT q.example_id, s.score, s.flags FROM scores s JOIN requests q USING (request_id)
             JOIN runs u ON u.run_id = q.run_id WHERE u.is_full = ?"""
    assert {score for _, score, _ in query(settings, sql, 1)} == {1.0}
    here = {example_id: (score, flags) for example_id, score, flags in query(settings, sql, 0)}
    for n, (fault, _) in FAULTS.items():
        assert here[f"e{n}"] == (0.0, fault)
    assert {here[f"e{n}"][0] for n in range(4, 8)} == {1.0}
    shares = dict(query(settings, "SELECT measure, value FROM outcome_changes WHERE measure LIKE 'call_%'"))
    assert shares == dict.fromkeys(("call_unreadable", "call_schema", "call_name", "call_arguments"), 0.125)
    paths = run_paths(settings.output.runs_dir, "g", settings.db.path)
    assert "| snapkv/aware 0.5 | 8 | 100% → 50% |" in paths.report_md.read_text()
    assert "What of the tool calls is wrong first" in paths.report_html.read_text()
    findings, _ = verify(db_of(settings))
    assert not findings.differences

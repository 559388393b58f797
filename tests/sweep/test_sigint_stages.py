"""Ctrl-C at every stage of a request: exit 130, an intact database, and the same command does exactly the rest."""

import asyncio
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from kvt_async.contract.settings import Settings
from kvt_async.sweep.sweep import SweepOptions, prepare_group, run
from tests.servers.certificate import CERTIFICATE, served_with_tls
from tests.servers.fault_server import head
from tests.servers.stage_server import (
    CONNECT,
    EVENT,
    FIRST_BYTE,
    HANDSHAKE,
    HEADERS,
    IN_FLIGHT,
    LARGE,
    TOKENS,
    WRITING,
    Kvt,
    StageServer,
    kvt,
)
from tests.worlds import check_invariants, db_of, query, states, sweep_settings

PROMPT_S = 20.0  # far less than the waits that Ctrl-C must end


def prepared(folder: Path, url: str, *overrides: str, n: int, large: bool = False) -> tuple[Settings, Path]:
    """One level of `n` examples, the first of them `large`; prepared, and its config file."""
    rows = (
        {"example_id": f"e{i}", "context": "word " * (LARGE // 5 + 1 if large and i == 0 else 9),
         "question": f"What is {i}?", "answers": ["a"]}
        for i in range(n)
    )  # fmt: skip
    (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = sweep_settings(
        folder, url, "kv.apply={via: none}", "kv.policy=label", "kv.budgets=[1.0]", "kv.control_repeats=0",
        "binning.n_bins=1", f"limits.concurrency={n}", "limits.grace_s=60", *overrides, n=n,
    )  # fmt: skip
    prepare_group(settings, quiet=True)
    config = folder / "experiment.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    return settings, config


@pytest.fixture
async def server(request: pytest.FixtureRequest) -> AsyncIterator[StageServer]:
    """At the stages of the test's parameter `server`, or of requests in flight."""
    stages = getattr(request, "param", IN_FLIGHT)
    one = StageServer(*stages, tls=served_with_tls() if HANDSHAKE in stages else None)
    yield one
    await one.close()


async def interrupted(one: Kvt, settings: Settings, *, answered: int, within_s: float = PROMPT_S) -> None:
    """It ended by Ctrl-C, in order, with so many responses stored."""
    code, out = await one.ended(within_s)
    assert (code, "Traceback" in one.err) == (130, False), one.err
    assert "run the same command again to resume" in out
    assert query(settings, "SELECT reason, exit_code FROM session_ends") == [("interrupted", 130)]
    assert states(settings).get("response", 0) == answered
    assert "failure" not in states(settings)
    check_invariants(settings)


async def resumed(settings: Settings, server: StageServer, n: int) -> None:
    """The same command, against a server that answers, completes everything; nothing was answered twice."""
    server.go_on()
    report = await run(settings, options=SweepOptions(prepare_first=False, quiet=True))
    assert (report.exit_code, states(settings)) == (0, {"response": n})
    assert server.answered == Counter(range(n))
    assert query(settings, "SELECT count(*), count(DISTINCT request_id) FROM responses") == [(n, n)]
    check_invariants(settings)


# stage: (its body was written, a status came, a first byte came, the text so far)
CANCELLED_AT = {
    WRITING: (0, 0, 0, None),
    HEADERS: (1, 0, 0, None),
    FIRST_BYTE: (1, 1, 0, None),
    TOKENS: (1, 1, 1, "a"),
    EVENT: (1, 1, 1, "a"),
}


@pytest.mark.parametrize("transport", ["aiohttp", "lean"])
@pytest.mark.parametrize("let_go", [(WRITING, FIRST_BYTE, EVENT), (HEADERS, TOKENS)])
async def test_what_is_in_flight_may_finish_and_a_second_ctrl_c_cancels_the_rest_at_whatever_stage(
    tmp_path: Path, server: StageServer, transport: str, let_go: tuple[str, ...]
) -> None:
    n = len(IN_FLIGHT)
    settings, config = prepared(tmp_path, server.url, f"engine.transport={transport}", n=n, large=True)
    async with kvt("run", "-c", str(config)) as one:
        await one.until(lambda: all(stage.is_set() for stage in server.reached.values()))
        one.interrupt()
        await one.said("stopping: what is in flight may finish")
        server.go_on(*let_go)
        await one.until(lambda: states(settings).get("response", 0) == len(let_go))
        one.interrupt()
        await interrupted(one, settings, answered=len(let_go))
    stored = query(settings, """SELECT r.example_id, body_sent_ns IS NOT NULL, status_ns IS NOT NULL,
        first_byte_ns IS NOT NULL, a.partial_text FROM attempts a JOIN telemetry USING (request_id, attempt_idx)
        JOIN requests r USING (request_id) WHERE a.end_state = 'cancelled'""")  # fmt: skip
    assert {IN_FLIGHT[int(name[1:])]: tuple(marks) for name, *marks in stored} == {
        stage: marks for stage, marks in CANCELLED_AT.items() if stage not in let_go
    }
    await resumed(settings, server, n)
    assert query(settings, "SELECT count(*) FROM attempts") == [(2 * n - len(let_go),)]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/net/tcp shows that a connection is not accepted yet")
@pytest.mark.parametrize("transport", ["aiohttp", "lean"])
@pytest.mark.parametrize("server", [(CONNECT,), (HANDSHAKE,)], indirect=True)
async def test_a_connection_that_is_not_made_yet_is_given_up_when_the_grace_period_ends(
    tmp_path: Path, server: StageServer, transport: str
) -> None:
    settings, config = prepared(
        tmp_path, server.url, f"engine.transport={transport}", f"engine.ca_file={CERTIFICATE}", "limits.grace_s=0.1",
        "engine.timeouts.connect_s=300", n=2,
    )  # fmt: skip
    async with kvt("run", "-c", str(config)) as one:
        await one.until(lambda: all(stage.is_set() for stage in server.reached.values()))
        one.interrupt()
        await interrupted(one, settings, answered=0)
    assert query(settings, "SELECT count(*) FROM attempts") == [(0,)]  # nothing was sent
    await resumed(settings, server, 2)


@pytest.mark.parametrize("server", [()], indirect=True)
async def test_a_request_that_waits_to_be_tried_again_ends_at_once_and_stays_pending(
    tmp_path: Path, server: StageServer
) -> None:
    server.refuse = head(429, "application/json", length=2, headers={"Retry-After": "200"}) + b"{}"
    settings, config = prepared(tmp_path, server.url, "limits.retry.max_wait_s=250", n=3)
    async with kvt("run", "-c", str(config)) as one:
        await one.until(lambda: query(settings, "SELECT count(*) FROM attempts WHERE http_status = 429") == [(3,)])
        one.interrupt()
        await interrupted(one, settings, answered=0)
    await resumed(settings, server, 3)
    tries = "SELECT count(*), max(attempt_idx), sum(error_type = 'RateLimited') FROM attempts"
    assert query(settings, tries) == [(6, 1, 3)]


@pytest.mark.parametrize("server", [()], indirect=True)
async def test_a_request_that_waits_for_a_rate_limit_is_not_sent_any_more(tmp_path: Path, server: StageServer) -> None:
    settings, config = prepared(tmp_path, server.url, "limits.requests_per_minute=0.5", n=2)
    async with kvt("run", "-c", str(config)) as one:
        await one.until(lambda: states(settings).get("response") == 1)
        one.interrupt()
        await interrupted(one, settings, answered=1)
    assert server.answered.total() == 1
    await resumed(settings, server, 2)


@pytest.mark.parametrize("server", [(HEADERS,)], indirect=True)
async def test_replies_that_wait_for_their_commit_are_committed_first(tmp_path: Path, server: StageServer) -> None:
    n = IN_FLIGHT.index(HEADERS) + 1
    settings, config = prepared(tmp_path, server.url, n=n)
    async with kvt("run", "-c", str(config)) as one:
        await one.until(server.reached[HEADERS].is_set)
        with closing(sqlite3.connect(db_of(settings), timeout=30, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # the writer can't commit as long as this lasts
            server.go_on(HEADERS)
            await one.until(lambda: server.answered.total() == n)
            one.interrupt()
            await one.said("stopping")
            other.execute("ROLLBACK")
        await interrupted(one, settings, answered=n)
    await resumed(settings, server, n)


@pytest.mark.parametrize("server", [()], indirect=True)
async def test_ctrl_c_while_the_server_is_asked_who_it_is_ends_at_once(tmp_path: Path, server: StageServer) -> None:
    silent = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        silent.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as mute:
        url = f"http://127.0.0.1:{mute.sockets[0].getsockname()[1]}/v1"
        settings, config = prepared(tmp_path, url, n=2)
        async with kvt("run", "-c", str(config)) as one:
            await one.until(silent.is_set)
            one.interrupt()
            await interrupted(one, settings, answered=0)
    await resumed(settings.model_copy(update={"engine": settings.engine.model_copy(update={"base_url": server.url})}),
                  server, 2)  # fmt: skip

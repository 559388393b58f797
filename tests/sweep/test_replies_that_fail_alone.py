"""What a server sends costs at most its own request: rows that can't be inserted, readers that raise, odd pages."""

import gzip
import resource
import zlib
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kvt_async.bench import bench
from kvt_async.contract.errors import EndState, ErrorType, ServerError
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.secrets import Secrets
from kvt_async.engine.reply import classify
from kvt_async.engine.reply.retry_headers import read_hints
from kvt_async.engine.send import attempt
from kvt_async.engine.send.attempt import MOST_PAGE_BYTES
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Reply
from kvt_async.store.columns import rows_of_outcome
from kvt_async.store.writer import Writer
from kvt_async.sweep.sweep import SweepOptions, run
from tests.engine.sending import try_once
from tests.group_db import NOW, SESSION, make_group, outcome, request_row
from tests.servers.fault_server import FaultServer, Seen, Wire, delta, event, head, reply, status, stream, usage
from tests.servers.odd_replies import dump, nested
from tests.worlds import bench_settings, check_invariants, db_of, engine_settings, query, states, sweep_settings

KEY = "sk-live-SECRETKEY0123456789abcdef"


def unstorable(seq: int) -> list[tuple[str, tuple[object, ...]]]:
    """Rows of an outcome that SQLite can't take: an integer of over 64 bits."""
    good = outcome(seq)
    assert good.last is not None
    return rows_of_outcome(replace(good, last=replace(good.last, http_status=2**64)), SESSION, NOW)


async def test_a_row_that_cannot_be_inserted_is_left_out_and_its_group_is_committed(tmp_path: Path) -> None:
    db = tmp_path / "k.sqlite"
    make_group(db, 200)
    async with Writer(db, 0.2, secrets=Secrets([KEY])) as store:
        await store.save([request_row(seq) for seq in range(100)])
        told: list[bool] = []
        for seq in range(100):
            rows = unstorable(seq) if seq in (3, 77) else rows_of_outcome(outcome(seq), SESSION, NOW)
            await store.submit(rows, told.append)
        await store.flush()
        assert told == [True] * 100
        assert {name.rpartition(":")[2] for name in store.refused} == {"3", "77"}
        assert store.broken is None
        await store.save([request_row(150)])  # and it goes on
    assert _rows(db, "SELECT count(*) FROM responses UNION ALL SELECT count(*) FROM attempts") == [(98,), (98,)]
    (report,) = reports_in(tmp_path)
    assert "OverflowError" in report.read_text()
    assert report.stat().st_mode & 0o077 == 0


async def test_a_reply_whose_rows_cannot_be_inserted_is_a_failure_and_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvt_async.engine.reply.token_counts.MAX_COUNT", 2**80)  # as if counts were not looked at

    async def step(wire: Wire, request: Seen) -> None:
        odd = b"Fact 3:" in request.body
        await _answer(wire, request, event(delta("x", finish="stop")) + event(usage(prompt=2**70 if odd else 7)))

    async with FaultServer(step) as server:
        settings = sweep_settings(tmp_path, server.base_url, "kv.apply.via=none", "kv.control_repeats=0")
        report = await run(settings, options=SweepOptions(quiet=True))
    assert (report.failures, report.pending, report.exit_code) == (3, 0, 4)
    assert states(settings) == {"failure": 3, "response": 33}
    told = query(settings, "SELECT DISTINCT error_type, error_message FROM attempts WHERE error_type NOT NULL")
    assert [kind for kind, _ in told] == ["MalformedResponse"]
    assert "bug of kvt" in told[0][1]
    check_invariants(settings)


async def test_a_reply_of_a_bench_whose_rows_cannot_be_inserted_is_a_failure_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvt_async.engine.reply.token_counts.MAX_COUNT", 2**80)
    seen = 0

    async def step(wire: Wire, request: Seen) -> None:
        nonlocal seen
        seen += request.method == "POST"
        count = 2**70 if seen in (8, 12) else 7
        await _answer(wire, request, event(delta("x", finish="stop")) + event(usage(prompt=count)))

    async with FaultServer(step) as server:
        settings = bench_settings(tmp_path, server.base_url, "bench.concurrency=2")
        report = await bench.run(settings, bench.BenchOptions(quiet=True))
    assert report.pending == 0
    assert dict(query(settings, "SELECT state, count(*) FROM outcomes GROUP BY 1")) == {
        "failure": 2, "response": 22,
    }  # fmt: skip


async def test_an_exception_nobody_expected_costs_its_request_and_leaves_a_report_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = classify.judge

    def judging(exchange: Any, *rest: Any, **more: Any) -> Any:
        if b"PLANTED" in exchange.raw_body():
            raise KeyError(f"a bug beside {KEY}")
        return judge(exchange, *rest, **more)

    monkeypatch.setattr(attempt, "judge", judging)
    monkeypatch.setenv("PLANTED_KEY", KEY)

    async def step(wire: Wire, request: Seen) -> None:
        text = f"PLANTED {KEY}" if b"Fact 3:" in request.body else "a"
        await _answer(wire, request, reply(text))

    async with FaultServer(step) as server:
        settings = sweep_settings(
            tmp_path, server.base_url, "kv.apply.via=none", "kv.control_repeats=0", "engine.api_key_env=PLANTED_KEY",
            "limits.retry.max_attempts=2",
        )  # fmt: skip
        report = await run(settings, options=SweepOptions(quiet=True))
    assert (report.responses, report.failures, report.pending) == (33, 3, 0)
    (report_file,) = reports_in(db_of(settings).parent)
    assert "KeyError" in report_file.read_text()
    assert not holding(tmp_path, KEY.encode())


DEEP = nested(1000, "[", "]")


@pytest.mark.parametrize(
    "body",
    [
        event(delta("x")) + b'data: {"choices":[{"index":0,"delta":{"content":' + DEEP.encode() + b"}}]}\n\n",
        event({"error": {"message": "x", "code": "²"}}),
        event('{"error":{"message":"x","code":"' + "9" * 5000 + '"}}'),
        event('{"error":' + nested(300) + "}"),
        event('{"status":' + nested(900) + "}"),
        event('{"error":{"message":"cut in an emoji \\ud83d"}}'),
    ],
    ids=["deep text", "superscript", "long code", "deep error", "deep status", "half an emoji"],
)
async def test_odd_shapes_are_failures_of_their_request(body: bytes) -> None:
    got = await try_once(stream(body))
    assert got.reply is None
    assert got.error_type in (ErrorType.MALFORMED, ErrorType.STREAM_ERROR, ErrorType.STREAM_CUT)
    assert got.end_state in (EndState.MALFORMED, EndState.ERROR_EVENT, EndState.EOF_NO_DONE)


async def test_evidence_of_400_digits_is_no_number_and_the_answer_stands() -> None:
    kept = b'{"choices":[],"usage":{"kv":{"kept":' + b"9" * 400 + b'},"n":"\\ud800"}}'
    body = event(delta("x", finish="stop")) + event(kept)
    asked = {"requested": 0.5, "unit": "fraction", "is_full": False, "evidence": {"usage": "kv.kept"}}
    async with FaultServer(stream(body)) as server, Sender(engine_settings(server.base_url)) as sender:
        tried = await sender._open.client.attempt(server.base_url, "/chat/completions", b"{}", expects=asked)
    assert isinstance(tried.attempt.reply, Reply)
    assert tried.attempt.reply.kv_effective is None


@pytest.mark.parametrize("wait", ["9" * 400 + "s", "9" * 400, "1e999", "Sun, 06 Nov 99999999999994 08:49:37 GMT"])
def test_a_wait_that_no_clock_can_hold_is_not_heard(wait: str) -> None:
    assert read_hints({"retry-after": wait}).retry_after_s is None
    assert read_hints({}, body={"retry_after": wait}).retry_after_s is None
    assert read_hints({}, body={"retry_after": 10**400}).retry_after_s is None
    assert read_hints({}, body={"retry_after": float("inf")}).retry_after_s is None


PAGES = {
    "half a surrogate pair": ("/v1/models", b'{"data":[{"id":"reference"},{"id":"\\ud800"}]}', {}),
    "Latin-1 in a header": ("/v1/models", b'{"data":[{"id":"reference"}]}', {"Server": "café"}),
    "900 levels": ("/version", nested(900).encode(), {}),
    "a huge number": ("/version", dump({"version": 10**300}).encode(), {}),
    "no number": ("/version", b'{"version": NaN, "x": 1e999}', {}),
    "metrics": ("/metrics", b'cache{a="\xff"} 1e999\ncache_b{', {}),
}


@pytest.mark.parametrize("page", PAGES)
async def test_no_page_about_the_server_ends_a_run_before_its_start(tmp_path: Path, page: str) -> None:
    path, body, headers = PAGES[page]

    async def step(wire: Wire, request: Seen) -> None:
        if request.method == "GET" and request.path == path:
            lead = head(200, "application/json", length=len(body), headers=headers)
            await wire.send(lead.decode().encode("latin-1") + body)
        else:
            await _answer(wire, request, reply("a"))

    async with FaultServer(step) as server:
        settings = sweep_settings(tmp_path, server.base_url, "kv.apply.via=none", "kv.control_repeats=0", n=2)
        report = await run(settings, options=SweepOptions(quiet=True))
    assert (report.responses, report.exit_code) == (6, 0)


async def test_a_page_is_read_up_to_a_bound_inflated_or_endless() -> None:
    async def endless(wire: Wire, request: Seen) -> None:
        await wire.send(head(200, "application/json", chunked=True))
        while True:
            await wire.send(b"10000\r\n" + b" " * 65_536 + b"\r\n")

    deflate = zlib.compressobj(1, wbits=31)
    packed = b"".join([deflate.compress(b" " * (1 << 20)) for _ in range(256)] + [deflate.flush()])
    bomb = status(200, packed, headers={"Content-Encoding": "gzip"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for step in (endless, bomb):
        async with FaultServer(step) as server, Sender(engine_settings(server.base_url)) as sender:
            with pytest.raises(ServerError, match="longer than 8 MiB"):
                await sender.pages.get_json(f"{server.base_url}/models")
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 100
    assert MOST_PAGE_BYTES == 8 << 20


async def test_a_compressed_page_of_ordinary_length_is_read() -> None:
    step = status(200, gzip.compress(b'{"data": []}'), headers={"Content-Encoding": "gzip"})
    async with FaultServer(step) as server, Sender(engine_settings(server.base_url)) as sender:
        assert await sender.pages.get_json(f"{server.base_url}/models") == {"data": []}


def reports_in(folder: Path) -> list[Path]:
    return list(folder.glob("bug-*.txt"))


def holding(folder: Path, data: bytes) -> list[Path]:
    """Files below the folder that hold the bytes."""
    return [path for path in folder.rglob("*") if path.is_file() and data in path.read_bytes()]


async def _answer(wire: Wire, request: Seen, body: bytes) -> None:
    if request.method == "POST":
        await stream(body)(wire, request)
    elif request.path == "/v1/models":
        await status(200, {"data": [{"id": "reference"}]})(wire, request)
    else:
        await status(404)(wire, request)


def _rows(db: Path, sql: str) -> list[tuple[Any, ...]]:
    conn = connect_for_reading(db)
    try:
        return conn.execute(sql).fetchall()
    finally:
        conn.close()

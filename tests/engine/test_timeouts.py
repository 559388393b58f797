"""Timeouts, each with its name, and what holds them off."""

import asyncio
import socket

import orjson
import pytest

from kvt_async.contract import timeouts
from kvt_async.contract.errors import EndState, ErrorType
from kvt_async.engine.send.sender import Sender
from tests.engine.sending import PATH, against, send_one, try_once
from tests.servers.fault_server import Seen, Wire, delta, event, head, paced, raw, reply, stall
from tests.worlds import engine_settings

pytestmark = pytest.mark.usefixtures("every_transport")


async def test_no_reply_in_time_is_a_ttfb_timeout() -> None:
    got = await try_once(stall(), timeouts={"ttfb_s": 0.1})
    assert (got.end_state, got.error_type) == (EndState.TIMEOUT, ErrorType.TTFB_TIMEOUT)
    assert 0.1 <= got.latency_s < 1


async def test_headers_alone_are_no_first_byte() -> None:
    got = await try_once(raw(head(chunked=True), then="stall"), timeouts={"ttfb_s": 0.1})
    assert (got.error_type, got.http_status) == (ErrorType.TTFB_TIMEOUT, 200)


async def test_a_stalled_stream_is_an_idle_timeout_and_keeps_its_text() -> None:
    got = await try_once(paced([(0, event(delta("a"))), (30, b"")]), timeouts={"idle_s": 0.1})
    assert (got.end_state, got.error_type, got.partial_text) == (EndState.TIMEOUT, ErrorType.IDLE_TIMEOUT, "a")
    assert got.marks.first_content_ns is not None


async def test_a_stream_that_drips_without_end_is_a_total_timeout() -> None:
    drops = [(0.02, event(delta("a")))] * 100
    got = await try_once(paced(drops), timeouts={"idle_s": 0.5, "total_s": 0.3})
    assert (got.end_state, got.error_type) == (EndState.TIMEOUT, ErrorType.TOTAL_TIMEOUT)
    assert 0.3 <= got.latency_s < 1


async def test_auto_gives_an_answer_the_time_that_a_slow_stream_needs_for_its_own_max_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timeouts, "LEAST_ANSWER_S", 0.2)
    drops = paced([(0.05, event(delta("a")))] * 10 + [(0.0, reply("b"))])
    async with against(drops) as (server, sender):
        short = await send_one(sender, server, max_tokens=1)
        long = await send_one(sender, server, max_tokens=50)
    assert (short.last and short.last.error_type) is ErrorType.TOTAL_TIMEOUT
    assert long.reply is not None
    assert long.reply.text == "a" * 10 + "b"


async def test_auto_lets_a_whole_reply_be_made_before_its_first_byte() -> None:
    whole = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}
    later = raw(head(200, "application/json", length=len(orjson.dumps(whole))) + orjson.dumps(whole))

    async def slow(wire: Wire, request: Seen) -> None:
        await asyncio.sleep(0.4)
        await later(wire, request)

    async with against(slow, stream=False, timeouts={"ttfb_s": 0.1}) as (server, sender):
        short = await send_one(sender, server, max_tokens=1)
        long = await send_one(sender, server, max_tokens=50)
    assert (short.last and short.last.error_type) is ErrorType.TTFB_TIMEOUT
    assert long.reply is not None


async def test_a_stall_ends_a_long_answer_long_before_its_time_is_up() -> None:
    async with against(paced([(0, event(delta("a"))), (30, b"")]), timeouts={"idle_s": 0.1}) as (server, sender):
        outcome = await send_one(sender, server, max_tokens=32_768)
    assert outcome.last is not None
    assert (outcome.last.error_type, outcome.last.partial_text) == (ErrorType.IDLE_TIMEOUT, "a")
    assert outcome.last.latency_s < 5


async def test_keep_alive_comments_hold_off_the_idle_timeout() -> None:
    body = [(0.06, b": ping\n\n")] * 5 + [(0.0, reply("a"))]
    got = await try_once(paced(body), timeouts={"idle_s": 0.2})
    assert got.end_state is EndState.DONE


async def test_a_stall_after_the_finish_reason_costs_time_but_no_answer() -> None:
    got = await try_once(paced([(0, reply("a", done=False)), (30, b"")]), timeouts={"idle_s": 0.1})
    assert (got.end_state, got.error_type) == (EndState.EOF_FINISHED, None)


async def test_a_connection_that_is_not_made_in_time_is_a_connect_timeout() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:  # the backlog is full: further connections hang
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            async with Sender(engine_settings(url, timeouts={"connect_s": 0.2})) as sender:
                got = await sender.probe(url, PATH, b"{}")
        finally:
            for filler in fillers:
                filler.close()
    assert (got.end_state, got.error_type) == (EndState.TIMEOUT, ErrorType.CONNECT_TIMEOUT)
    assert got.marks.start_ns is None

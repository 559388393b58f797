"""Timeouts, each with its name, and what holds them off."""

import socket

import pytest

from kvt_async.contract.errors import EndState, ErrorType
from kvt_async.engine.send.sender import Sender
from tests.engine.sending import PATH, try_once
from tests.servers.fault_server import delta, event, head, paced, raw, reply, stall
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

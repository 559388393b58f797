"""Connections: what can go wrong with them, keep-alive, TLS, IPv6, several endpoints."""

import asyncio
from pathlib import Path

import pytest

from kvt_async.contract.errors import ConfigError, EndState, ErrorType
from kvt_async.engine.send.sender import Sender
from tests.engine.sending import PATH, Recorder, against, request_to, send_one, try_once
from tests.servers.certificate import CERTIFICATE, served_with_tls
from tests.servers.fault_server import FaultServer, Step, answer, chunk, close, event, head, paced, raw, reply, reset
from tests.servers.fault_server import status as http_status
from tests.worlds import engine_settings, free_port, until

pytestmark = pytest.mark.usefixtures("every_transport")


async def test_a_refused_connection_says_where() -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    async with Sender(engine_settings(url)) as sender:
        got = await sender.probe(url, PATH, b"{}")
    assert (got.end_state, got.error_type) == (EndState.NOT_CONNECTED, ErrorType.CONNECTION)
    assert f"127.0.0.1:{url.split(':')[2].split('/', maxsplit=1)[0]}" in (got.error_message or "")


async def test_a_name_that_does_not_exist_is_a_connection_error() -> None:
    url = "http://no-such-host.invalid/v1"
    async with Sender(engine_settings(url)) as sender:
        got = await sender.probe(url, PATH, b"{}")
    assert (got.end_state, got.error_type) == (EndState.NOT_CONNECTED, ErrorType.CONNECTION)
    assert "no-such-host.invalid" in (got.error_message or "")


@pytest.mark.parametrize("step", [close(), reset()])
async def test_a_connection_lost_before_the_first_byte_is_a_connection_error(step: Step) -> None:
    got = await try_once(step)
    assert (got.error_type, got.http_status) == (ErrorType.CONNECTION, None)
    assert "before the first byte" in (got.error_message or "")


async def test_a_connection_lost_inside_the_head_is_a_connection_error() -> None:
    got = await try_once(raw(b"HTTP/1.1 200 OK\r\nContent-"))
    assert got.error_type is ErrorType.CONNECTION
    assert got.reply is None


async def test_a_server_that_answers_before_it_has_read_everything_is_heard() -> None:
    async with against(http_status(413, {"error": {"message": "too large"}})) as (server, sender):
        got = await sender.probe(server.base_url, PATH, b"x" * 3_000_000)
    assert got.http_status == 413


# ------------------------------------------------------------------ keep-alive


async def test_a_connection_is_used_again() -> None:
    async with against(answer("a")) as (server, sender):
        outcomes = [await send_one(sender, server) for _ in range(3)]
        assert [o.last.marks.conn_reused for o in outcomes if o.last] == [0, 1, 1]
        assert server.connections == 1


async def test_a_keep_alive_connection_that_the_server_closed_is_replaced_once_at_once_and_recorded() -> None:
    async with against(answer("a"), close(), answer("b")) as (server, sender):
        await send_one(sender, server)
        recorder = Recorder()
        outcome = await send_one(sender, server, recorder)
    assert outcome.reply is not None
    assert outcome.reply.text == "b"
    (stale,) = recorder.attempts
    assert (stale.attempt_idx, stale.error_type, stale.marks.conn_reused) == (0, ErrorType.CONNECTION, 1)
    assert outcome.last is not None
    assert (outcome.last.attempt_idx, outcome.last.marks.conn_reused) == (1, 0)


async def test_once_means_once() -> None:
    async with against(answer("a"), close(), close(), answer("late")) as (server, sender):
        await send_one(sender, server)
        await send_one(sender, server)
        assert len(server.seen) == 3


async def test_nothing_is_sent_again_at_once_when_part_of_a_reply_had_come() -> None:
    async with against(answer("a"), raw(b"HTTP/1.1 2"), answer("late")) as (server, sender):
        await send_one(sender, server)
        await send_one(sender, server)
        assert len(server.seen) == 2


async def test_a_fresh_connection_that_is_closed_is_no_stale_one() -> None:
    async with against(close(), answer("late")) as (server, sender):
        await send_one(sender, server)
        assert len(server.seen) == 1


async def test_what_a_server_says_unasked_is_never_taken_for_an_answer() -> None:
    stray = head(200, "application/json", length=2) + b"{}"
    first = head(chunked=True) + chunk(reply("a")) + chunk(b"")
    async with against(raw(first + stray, then="keep"), answer("b")) as (server, sender):
        one = await send_one(sender, server, number=1)
        await asyncio.sleep(0.02)
        two = await send_one(sender, server, number=2)
    assert one.reply is not None
    assert two.reply is not None
    assert (one.reply.text, two.reply.text) == ("a", "b")


# ------------------------------------------------------------------ TLS, IPv6


async def test_tls_with_a_ca_file() -> None:
    async with (
        FaultServer(answer("a"), tls=served_with_tls()) as server,
        Sender(engine_settings(server.base_url, ca_file=str(CERTIFICATE))) as sender,
    ):
        outcome = await send_one(sender, server)
    assert outcome.reply is not None


async def test_a_certificate_that_nobody_vouches_for_is_a_tls_error() -> None:
    async with (
        FaultServer(answer("a"), tls=served_with_tls()) as server,
        Sender(engine_settings(server.base_url)) as sender,
    ):
        got = await sender.probe(server.base_url, PATH, b"{}")
    assert (got.end_state, got.error_type) == (EndState.NOT_CONNECTED, ErrorType.TLS)
    assert "self-signed" in (got.error_message or "")
    assert "engine.ca_file" in (got.error_message or "")


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_ca_file_that_cannot_be_used_is_a_config_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        async with Sender(engine_settings("https://127.0.0.1/v1", ca_file=str(path))):
            pass
    assert "ca.pem" in str(caught.value)


async def test_ipv6() -> None:
    async with FaultServer(answer("a"), host="::1") as server, Sender(engine_settings(server.base_url)) as sender:
        assert (await send_one(sender, server)).reply is not None


async def test_both_loops_give_the_same_attempt() -> None:
    import uvloop

    def run() -> tuple[EndState, str | None, int | None]:
        async def main() -> tuple[EndState, str | None, int | None]:
            got = await try_once(paced([(0, reply("a", "b", done=False)), (0.01, event("[DONE]"))]))
            return got.end_state, got.reply.text if got.reply else None, got.marks.n_events

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main())

    plain = await try_once(paced([(0, reply("a", "b", done=False)), (0.01, event("[DONE]"))]))
    expected = (plain.end_state, plain.reply.text if plain.reply else None, plain.marks.n_events)
    assert await asyncio.to_thread(run) == expected


# ------------------------------------------------------------------ several endpoints


async def test_several_endpoints_share_the_requests_and_a_dead_one_is_avoided() -> None:
    dead = f"http://127.0.0.1:{free_port()}/v1"
    retry = {"retry": {"max_attempts": 3, "initial_s": 0.001}}
    async with FaultServer(answer("a", delay_s=0.05)) as one, FaultServer(answer("b", delay_s=0.05)) as two:
        async with Sender(engine_settings(one.base_url, retry)) as sender:
            urls = (one.base_url, two.base_url)
            await asyncio.gather(*(sender.send(request_to(*urls, number=n), Recorder()) for n in range(6)))
            assert (len(one.seen), len(two.seen)) == (3, 3)
        async with Sender(engine_settings(one.base_url, retry)) as sender:
            recorder = Recorder()
            for n in range(5):
                assert (await sender.send(request_to(dead, one.base_url, number=n), recorder)).reply is not None
            assert len(recorder.attempts) <= 1


async def test_an_endpoint_set_aside_is_asked_on_its_health_page_and_serves_again_once_that_answers() -> None:
    port = free_port()
    dead = f"http://127.0.0.1:{port}/v1"
    retry = {"retry": {"max_attempts": 3, "initial_s": 0.001}}
    async with FaultServer(answer("a")) as one, Sender(engine_settings(one.base_url, retry)) as sender:
        sender._open.quarantine._every_s = 0.01
        recorder, urls = Recorder(), (dead, one.base_url)
        outcomes = [await sender.send(request_to(*urls, number=n), recorder) for n in range(6)]
        assert [o.last.endpoint for o in outcomes if o.last] == [one.base_url] * 6
        assert [(a.endpoint, a.error_type) for a in recorder.attempts] == [(dead, ErrorType.CONNECTION)]
        loading = http_status(503)
        async with FaultServer(loading, loading, answer("b"), port=port) as back:
            await until(lambda: dead not in sender._open.quarantine)
            assert [seen.path for seen in back.seen] == ["/health"] * 3  # not a request among them
            served = [await sender.send(request_to(*urls, number=n), recorder) for n in range(6, 10)]
        assert {o.last.endpoint for o in served if o.last} == {dead, one.base_url}
        assert len(recorder.attempts) == 1


async def test_where_every_endpoint_is_set_aside_requests_find_out_themselves() -> None:
    ports = free_port(), free_port()
    urls = tuple(f"http://127.0.0.1:{port}/v1" for port in ports)
    retry = {"retry": {"max_attempts": 8, "initial_s": 0.01}}
    async with Sender(engine_settings(urls[0], retry)) as sender:
        recorder = Recorder()
        sending = asyncio.create_task(sender.send(request_to(*urls), recorder))
        await until(lambda: all(url in sender._open.quarantine for url in urls))
        async with FaultServer(answer("b"), port=ports[1]):
            outcome = await sending
        assert outcome.last is not None
        assert outcome.last.endpoint == urls[1]
        assert urls[1] not in sender._open.quarantine

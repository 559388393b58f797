"""Which callers are answered: by Host, Origin, and how long they keep the server waiting."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from kvt_async.serve.app import Patience, make_app
from tests.serve.support import Api, body, example, until

HEALTH = "GET /health HTTP/1.1\r\n{}\r\nConnection: close\r\n\r\n"


async def say(base: str, *parts: bytes) -> bytes:
    """Everything that comes back on one connection until the server closes it."""
    reader, writer = await asyncio.open_connection(*_address(base))
    for part in parts:
        writer.write(part)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


def _address(base: str) -> tuple[str, int]:
    host, _, port = base.removeprefix("http://").rpartition(":")
    return host, int(port)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("Host: 127.0.0.1:{port}", 200),
        ("Host: localhost:{port}", 200),
        ("Host: LOCALHOST", 200),
        ("Host: localhost.:1", 200),
        ("Host: kvt.localhost:{port}", 200),
        ("Host: [::1]:{port}", 200),
        ("Host: 127.8.9.1", 200),
        (f"Host: {socket.gethostname()}:80", 200),
        ("Host: evil.example:{port}", 403),
        ("Host: 127.0.0.1.evil.example", 403),
        ("Host: localhost.evil.example", 403),
        ("Host: 10.0.0.7:{port}", 403),
        ("Host: evil.example\r\nHost: localhost", 400),
        ("X-None: 1", 400),
    ],
)
async def test_on_a_loopback_address_only_names_of_this_machine_may_be_asked_for(
    api: Api, host: str, status: int
) -> None:
    answer = await say(api.base, HEALTH.format(host.format(port=_address(api.base)[1])).encode())
    assert answer.split()[1] == str(status).encode()
    if status == 403:
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "host_not_allowed"


async def test_an_old_client_that_names_no_host_is_answered(api: Api) -> None:
    assert (await say(api.base, b"GET /health HTTP/1.0\r\n\r\n")).split()[1] == b"200"


async def test_the_name_that_the_server_was_started_with_may_be_asked_for() -> None:
    async with serving(make_app(prefill_cache_mb=0, names=["models.example"])) as base:
        assert (await say(base, HEALTH.format("Host: Models.Example:8000").encode())).split()[1] == b"200"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://{host}", 200),
        ("https://evil.example", 403),
        ("http://localhost:3000", 403),
        ("null", 403),
        ("http://[", 403),
        ("file://{host}", 403),
    ],
)
async def test_a_web_page_of_another_origin_is_not_answered(api: Api, origin: str, status: int) -> None:
    headers = {"Origin": origin.format(host=api.base.removeprefix("http://")), "Content-Type": "text/plain"}
    url = f"{api.base}/v1/chat/completions"
    async with api.session.post(url, json=body(example(150)), headers=headers) as reply:
        assert reply.status == status
        assert not [name for name in reply.headers if name.lower().startswith("access-control")]
        if status == 403:
            assert (await reply.json())["error"]["code"] == "origin_not_allowed"


async def test_one_model_is_found_by_its_id_slashes_and_all() -> None:
    async with serving(make_app(prefill_cache_mb=0, model_name="org/a b")) as base, aiohttp.ClientSession() as session:
        api = Api(base, session)
        listed = json.loads((await api.get("/v1/models"))[1])["data"][0]
        for path in ("/v1/models/org/a%20b", "/v1/models/org%2Fa%20b"):
            status, text = await api.get(path)
            assert (status, json.loads(text)) == (200, listed)
        status, text = await api.get("/v1/models/other")
        assert (status, json.loads(text)["error"]["code"]) == (404, "model_not_found")


@asynccontextmanager
async def serving(app: web.Application, **options: Any) -> AsyncIterator[str]:
    """An application on a free port of 127.0.0.1 with small socket buffers, and the server's own options."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5, **options)
    await runner.setup()
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024)
        listening.bind(("127.0.0.1", 0))
        await web.SockSite(runner, listening).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        await runner.cleanup()


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/compl", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
async def test_a_connection_that_sends_nothing_or_half_of_a_head_is_closed(sent: bytes) -> None:
    async with serving(make_app(prefill_cache_mb=0), keepalive_timeout=0.2) as base:
        assert await say(base, sent) == b""


async def test_a_body_that_does_not_come_is_408_and_the_connection_closes() -> None:
    patience = Patience(body_s=0.2)
    async with serving(make_app(prefill_cache_mb=0, patience=patience), lingering_time=0.2) as base:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
        answer = await say(base, head)
    assert answer.split()[1] == b"408"
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "body_timeout"


async def test_a_client_that_reads_nothing_of_its_stream_is_left_and_its_work_stopped() -> None:
    app = make_app(prefill_cache_mb=0, patience=Patience(reader_s=0.2))
    async with serving(app) as base, aiohttp.ClientSession() as session:
        request = json.dumps(body(example(150), max_tokens=3900, ignore_eos=True, stream=True)).encode()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.connect(_address(base))
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(request)}\r\n\r\n"
            client.sendall(head.encode() + request)
            await until(Api(base, session), "kvt:requests_cancelled_total", 1)

"""What kvt is compared with: a raw asyncio.Protocol and a bare aiohttp client, neither of which keeps anything."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import orjson

from kvt_async.contract.settings import Settings
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Attempt, Request

Send = Callable[[str, bytes], Awaitable[int]]
"""(base URL, body) -> text events seen"""


class Raw(asyncio.Protocol):
    """As little as can be done: find the events of a reply, count them, know its end by the last chunk's bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.rest, self.events = b"", 0
        self.ended: asyncio.Future[int]

    def data_received(self, data: bytes) -> None:
        time.perf_counter_ns()
        data, pos = self.rest + data if self.rest else data, 0
        while (start := data.find(b"data: ", pos)) >= 0:
            end = data.find(b"\n\n", start)
            if end < 0:
                break
            self.events += 1
            pos = end + 2
        self.rest = data[pos:]
        if self.rest.endswith(b"0\r\n\r\n"):
            self.rest = b""
            self.ended.set_result(self.events)


def raw() -> Send:
    idle: list[Raw] = []

    async def send(url: str, body: bytes) -> int:
        where, loop = urlsplit(url), asyncio.get_running_loop()
        connection = (
            idle.pop() if idle else (await loop.create_connection(Raw, where.hostname or "", where.port or 80))[1]
        )
        connection.ended, connection.events = loop.create_future(), 0
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.transport.write(head + body)
        events = await connection.ended
        idle.append(connection)
        return events - 4  # role, finish, usage, [DONE]

    return send


def bare(session: aiohttp.ClientSession, *, with_json: bool) -> Send:
    """session.post and iter_any; every event is found, and with_json read."""
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}

    async def send(url: str, body: bytes) -> int:
        tokens, rest = 0, b""
        async with session.post(f"{url}/chat/completions", data=body, headers=headers) as reply:
            async for read in reply.content.iter_any():
                time.perf_counter_ns()
                data, pos = rest + read if rest else read, 0
                while (end := data.find(b"\n\n", pos)) >= 0:
                    payload, pos = data[pos + 6 : end], end + 2
                    if not with_json:
                        tokens += 1
                    elif payload != b"[DONE]":
                        choices = orjson.loads(payload)["choices"]
                        tokens += bool(choices and choices[0]["delta"].get("content"))
                rest = data[pos:]
        return tokens if with_json else tokens - 4

    return send


def kvt(sender: Sender) -> Send:
    """As the runner calls it: all marks, text, chunk times and usage."""

    async def record(request: Request, attempt: Attempt) -> None:
        raise RuntimeError(f"this server never fails: {attempt.error_message}")

    async def send(url: str, body: bytes) -> int:
        request = Request("r", "run", "e", (url,), "/chat/completions", body, True, 10, 256)
        outcome = await sender.send(request, record)
        assert outcome.last is not None, "not sent"
        assert outcome.last.reply is not None, outcome.last.error_message
        return outcome.last.marks.n_text_chunks or 0

    return send


def settings_of(url: str, transport: str, concurrency: int = 4096) -> Settings:
    engine = {"base_url": url, "transport": transport, "api_key_env": "KVT_BENCH_NO_KEY"}
    return Settings.model_validate({"engine": engine, "limits": {"concurrency": concurrency}})


@asynccontextmanager
async def clients(url: str, names: list[str]) -> Any:
    """name -> Send, of `raw`, `bare`, `bare+json`, `aiohttp`, `lean`; the last two are kvt's transports."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        Sender(settings_of(url, "aiohttp")) as over_aiohttp,
        Sender(settings_of(url, "lean")) as over_lean,
    ):
        every = {
            "raw": raw(),
            "bare": bare(session, with_json=False),
            "bare+json": bare(session, with_json=True),
            "aiohttp": kvt(over_aiohttp),
            "lean": kvt(over_lean),
        }
        yield {name: every[name] for name in names}


def loops(asked: str) -> Iterator[tuple[str, Any]]:
    """(name, loop factory) of `uvloop`, `asyncio` or `both`."""
    if asked in ("uvloop", "both"):
        import uvloop

        yield "uvloop", uvloop.new_event_loop
    if asked in ("asyncio", "both"):
        yield "asyncio", None

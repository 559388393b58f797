"""A server that can be wrong in every way: raw bytes, any cuts, any delays, on a real socket.

    async with FaultServer(status(429, headers={"Retry-After": "1"}), answer("Paris")) as server:
        ...  # server.base_url; server.seen holds every request that arrived

Each request takes the next step; the last one repeats. A step is `async def step(wire, request)`; it may write anything
and returns when the connection may take its next request (or after `wire.close()`, `wire.reset()`).
"""

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    connection: int  # 0, 1, ...: which connection it came on
    at_ns: int  # monotonic, when its last byte was here

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader, self.writer, self.number = reader, writer, number
        self.closed = False

    async def send(self, data: bytes, *, every: int | None = None, pause_s: float = 0.0) -> None:
        """All at once, or in pieces of `every` bytes, each its own write with a pause in between."""
        step = every or max(len(data), 1)
        for at in range(0, len(data), step):
            self.writer.write(data[at : at + step])
            await self.writer.drain()
            if every:
                await asyncio.sleep(pause_s)

    def close(self) -> None:
        """A clean end: FIN."""
        self.closed = True
        self.writer.close()

    def reset(self) -> None:
        """RST, as from a process that was killed."""
        self.closed = True
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Step = Callable[[Wire, Seen], Awaitable[None]]


class FaultServer:
    """Listens on a free port of `host`; `stop` may be called in the middle of everything."""

    def __init__(self, *steps: Step, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.steps = list(steps)
        self.seen: list[Seen] = []
        self.connections = 0
        self.port = port  # 0: a free one
        self._host, self._tls = host, tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}/v1"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """On the same port as before, if it was stopped."""
        self._server = await asyncio.start_server(self._serve, self._host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and cut every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        wire = Wire(reader, writer, self.connections)
        self.connections += 1
        try:
            while not wire.closed and (request := await self._read(wire)) is not None:
                step = self.steps[min(len(self.seen), len(self.steps) - 1)]
                self.seen.append(request)
                await step(wire, request)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            with suppress(Exception):
                writer.close()

    async def _read(self, wire: Wire) -> Seen | None:
        try:
            head = await wire.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
        body = await wire.reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ", 2)
        return Seen(method, path, headers, body, wire.number, time.perf_counter_ns())


# ------------------------------------------------------------------ bytes


def head(
    code: int = 200,
    content_type: str | None = "text/event-stream",
    *,
    length: int | None = None,
    chunked: bool = False,
    headers: dict[str, str] | None = None,
) -> bytes:
    """A status line and headers. Neither `length` nor `chunked`: the body ends with the connection."""
    lines = [f"HTTP/1.1 {code} X"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data: bytes) -> bytes:
    """One HTTP chunk; of nothing: the last one."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(payload: Any, *, eol: bytes = b"\n") -> bytes:
    """One SSE event; a str or bytes is sent as it is, anything else as JSON."""
    data = payload if isinstance(payload, bytes) else payload.encode() if isinstance(payload, str) else _dump(payload)
    return b"data: " + data + eol + eol


def delta(content: str | None = None, *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chat chunk."""
    fields = {} if content is None else {"content": content}
    return {"id": "c", "choices": [{"index": 0, "delta": {**fields, **more}, "finish_reason": finish}]}


def usage(prompt: int = 7, completion: int = 3, **more: Any) -> dict[str, Any]:
    """The usage-only chunk."""
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **more}}


def reply(*texts: str, finish: str | None = "stop", done: bool = True, with_usage: bool = True) -> bytes:
    """The SSE body of a normal reply: role, one chunk a text, finish, usage, [DONE]."""
    parts = [event(delta("", role="assistant")), *(event(delta(text)) for text in texts)]
    if finish is not None:
        parts.append(event(delta(finish=finish)))
    if with_usage:
        parts.append(event(usage(completion=len(texts))))
    if done:
        parts.append(event("[DONE]"))
    return b"".join(parts)


# ------------------------------------------------------------------ steps


def answer(*texts: str, delay_s: float = 0.0) -> Step:
    """A normal streamed reply on a connection that stays open."""
    return stream(reply(*texts), delay_s=delay_s)


def stream(body: bytes, *, every: int | None = None, pause_s: float = 0.0, delay_s: float = 0.0) -> Step:
    """SSE bytes in HTTP chunks of `every` bytes, ended properly; the connection stays open."""

    async def step(wire: Wire, request: Seen) -> None:
        await asyncio.sleep(delay_s)
        if every is None:
            await wire.send(head(chunked=True) + chunk(body) + chunk(b""))
            return
        await wire.send(head(chunked=True))
        for at in range(0, len(body), every):
            await wire.send(chunk(body[at : at + every]))
            await asyncio.sleep(pause_s)
        await wire.send(chunk(b""))

    return step


def paced(pieces: Iterable[tuple[float, bytes]], *, end: bool = True) -> Step:
    """(seconds to wait, SSE bytes) one after the other."""
    listed = list(pieces)

    async def step(wire: Wire, request: Seen) -> None:
        await wire.send(head(chunked=True))
        for wait_s, data in listed:
            await asyncio.sleep(wait_s)
            await wire.send(chunk(data))
        if end:
            await wire.send(chunk(b""))

    return step


def status(
    code: int, body: Any = None, *, content_type: str = "application/json", headers: dict[str, str] | None = None
) -> Step:
    """A whole reply: JSON, or bytes as they are."""

    async def step(wire: Wire, request: Seen) -> None:
        data = b"" if body is None else body if isinstance(body, bytes) else _dump(body)
        await wire.send(head(code, content_type, length=len(data), headers=headers) + data)

    return step


def error(status_code: int, message: str, *, headers: dict[str, str] | None = None, **fields: Any) -> Step:
    """An error in OpenAI's shape."""
    return status(status_code, {"error": {"message": message, **fields}}, headers=headers)


def raw(data: bytes, *, then: str = "close", every: int | None = None, pause_s: float = 0.0) -> Step:
    """Any bytes, then `close` (FIN), `reset` (RST), `stall` (nothing, for a minute) or `keep` (the next request)."""

    async def step(wire: Wire, request: Seen) -> None:
        await wire.send(data, every=every, pause_s=pause_s)
        if then == "stall":
            await asyncio.sleep(60)
        elif then == "reset":
            await asyncio.sleep(0.02)  # let the client read what was sent: a reset throws it away
            wire.reset()
        elif then == "close":
            wire.close()

    return step


def close() -> Step:
    """FIN instead of a reply."""
    return raw(b"")


def reset() -> Step:
    """RST instead of a reply."""
    return raw(b"", then="reset")


def stall() -> Step:
    """No reply at all, for a minute."""
    return raw(b"", then="stall")


def cut(body: bytes, at: int, *, then: str = "close") -> Step:
    """A chunked stream that breaks after `at` bytes of its body."""
    return raw(head(chunked=True) + (chunk(body[:at]) if at else b""), then=then)


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()

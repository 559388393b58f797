"""A server that stops at one stage of an exchange and stays there until it is told to go on; and `kvt` as a process."""

import asyncio
import json
import re
import signal
import socket
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.servers.fault_server import chunk, delta, event, head

CONNECT, HANDSHAKE = "before it accepts", "in the handshake"
WRITING, HEADERS = "while it is written", "before its headers"
FIRST_BYTE, TOKENS, EVENT = "after its headers", "between two tokens", "inside an event"
IN_FLIGHT = (WRITING, HEADERS, FIRST_BYTE, TOKENS, EVENT)  # request n of a sweep waits at the n-th
LARGE = 8 << 20  # bytes of the prompt that no socket's buffers take
PAGES = {"/v1/models": {"data": [{"id": "reference"}]}, "/version": {"version": "1.0"}, "/metrics": None}
PATIENCE_S = 60.0


class StageServer:
    """Answers what a runner asks about the server, and holds what it sends at `stages`.

    `reached[stage]` is set once a request waits there, `answered` counts whole replies by example. `go_on` lets go of
    the requests at some stages, and of all that come to them later.
    """

    def __init__(self, *stages: str, tls: ssl.SSLContext | None = None, refuse: bytes = b"") -> None:
        """`refuse`: the reply to every request until `go_on` is called without stages."""
        self.reached = {stage: asyncio.Event() for stage in stages}
        self._free = {stage: asyncio.Event() for stage in stages}
        self.answered: Counter[int] = Counter()
        self.refuse = refuse
        self._tls, self._met = tls, False
        self._fillers: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._sock = socket.create_server(("127.0.0.1", 0))
        self._sock.setblocking(False)
        self.port: int = self._sock.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/v1"
        self._accepting = self._spawn(self._accept())

    def go_on(self, *stages: str) -> None:
        if not stages:
            self.refuse = b""
        for stage in stages or self._free:
            self._free[stage].set()
        if self._fillers:
            for filler in self._fillers:
                filler.close()
            self._fillers.clear()
            self._sock.listen(64)
            self._accepting = self._spawn(self._accept())

    async def close(self) -> None:
        for sock in (self._sock, *self._fillers):
            sock.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self) -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(self._sock)
            self._spawn(self._serve(sock))

    async def _at(self, stage: str) -> None:
        if stage in self._free and not self._free[stage].is_set():
            self.reached[stage].set()
            await self._free[stage].wait()

    async def _serve(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if self._met and HANDSHAKE in self._free:
            hello = asyncio.Event()
            loop.add_reader(sock, hello.set)
            await hello.wait()
            loop.remove_reader(sock)
            await self._at(HANDSHAKE)
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=self._tls)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                while True:
                    top = (await reader.readuntil(b"\r\n\r\n")).decode()
                    method, path, _ = top.split(" ", 2)
                    await (self._page(writer, path) if method == "GET" else self._chat(reader, writer, top))
            finally:
                transport.abort()

    async def _page(self, writer: asyncio.StreamWriter, path: str) -> None:
        body = json.dumps(PAGES.get(path)).encode()
        if path == "/metrics":  # the last that is asked before the requests
            self._met = True
            if CONNECT in self._free and not self._free[CONNECT].is_set():
                self._stop_accepting()
        writer.write(head(200 if path in PAGES else 404, "application/json", length=len(body)) + body)
        await writer.drain()

    def _stop_accepting(self) -> None:
        """The queue of connections to accept is full: a client's next SYN is dropped, and it tries again."""
        self._accepting.cancel()
        self._sock.listen(0)
        self._fillers = [socket.socket() for _ in range(4)]
        for filler in self._fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
        self._spawn(self._until_connecting({filler.getsockname()[1] for filler in self._fillers}))

    async def _until_connecting(self, fillers: set[int]) -> None:
        while not connecting_to(self.port) - fillers:  # noqa: ASYNC110 - the kernel's table has no event for it
            await asyncio.sleep(0.01)
        self.reached[CONNECT].set()

    async def _chat(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, top: str) -> None:
        (length,) = (int(n) for n in re.findall(r"(?i)content-length: (\d+)", top))
        if length >= LARGE:
            await self._at(WRITING)
        body = await reader.readexactly(length)
        number = int(re.findall(rb"What is (\d+)\?", body)[-1])
        if self.refuse:
            writer.write(self.refuse)
            return
        stage = IN_FLIGHT[number % len(IN_FLIGHT)]
        first, second = chunk(event(delta("a"))), event(delta("b"))
        last = chunk(second[9:] + event(delta(finish="stop")) + event("[DONE]")) + chunk(b"")
        for waits, data in (
            (HEADERS, head(chunked=True)),
            (FIRST_BYTE, first),
            (TOKENS, chunk(second[:9])),
            (EVENT, last),
        ):
            if stage == waits:
                await self._at(stage)
                if reader.at_eof() or writer.is_closing():
                    raise ConnectionError("the client has gone")
            writer.write(data)
            await writer.drain()
        self.answered[number] += 1


def connecting_to(port: int) -> set[int]:
    """Local ports of the sockets of this machine that still wait for 127.0.0.1:`port` to accept them (Linux)."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {int(row[1][9:], 16) for row in rows if int(row[2][9:], 16) == port and row[3] == "02"}


class Kvt:
    """A `kvt` process whose stderr is read as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process, self.err = process, ""
        self._line = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.err += line.decode()
            self._line.set()

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    async def until(self, true: Callable[[], object]) -> None:
        """Return as soon as `true()` is; fails when the process ends before."""
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                assert self._process.returncode is None, self.err
                await asyncio.sleep(0.05)  # opening a database costs more than a look at an event

    async def said(self, text: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while text not in self.err:
                assert not self._reading.done(), self.err
                self._line.clear()
                await self._line.wait()

    async def ended(self, within_s: float) -> tuple[int, str]:
        """(exit code, stdout)"""
        assert self._process.stdout is not None
        async with asyncio.timeout(within_s):
            out = await self._process.stdout.read()
            await self._reading
            return await self._process.wait(), out.decode()

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._reading.cancel()


@asynccontextmanager
async def kvt(*args: str) -> AsyncIterator[Kvt]:
    pipe = asyncio.subprocess.PIPE
    one = Kvt(await asyncio.create_subprocess_exec(sys.executable, "-m", "kvt_async", *args, stdout=pipe, stderr=pipe))
    try:
        yield one
    finally:
        await one.kill()

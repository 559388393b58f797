"""aiohttp with true marks: arrivals are stamped in the transport's read callback, the start at the write.

aiohttp's own clocks start when a coroutine asks for a connection and stop when a coroutine wakes; under load both are
wrong by many milliseconds. Three small subclasses put the stamps where the bytes are. The body is taken out of aiohttp
right there too, so that no coroutine wakes per read: the caller waits once, for the end.
"""

import asyncio
from functools import partial
from time import perf_counter_ns
from typing import Any, cast

from aiohttp import ClientConnectionError, ClientRequest, StreamReader, TCPConnector
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.payload import BytesPayload

from kvt_async.contract.errors import ErrorType
from kvt_async.engine.transport.exchange import Exchange
from kvt_async.engine.transport.kernel_stamps import StampedSocket, socket_factory, stamped_socket
from kvt_async.engine.transport.protocol import KEEPALIVE_S, LINGER_S, bound_reads


class Broken(ClientConnectionError):
    """We ended the exchange ourselves; why stands in its Exchange."""


class StampedHandler(ResponseHandler):
    """One connection. While an exchange is attached, every read is stamped and its body bytes go there."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.exchange: Exchange | None = None
        self.uses = 0
        self._socket: StampedSocket | None = None
        self._reply_body: StreamReader | None = None  # aiohttp's reader of the body of our reply, once its head is here
        self._watchdog: asyncio.TimerHandle | None = None

    def attach(self, exchange: Exchange) -> None:
        """Raises ClientConnectionError when the server already sent something nobody asked for."""
        marks = exchange.marks
        marks.conn_ready_ns, marks.conn_reused = perf_counter_ns(), int(self.uses > 0)
        self.uses += 1
        if len(self):  # a leftover in aiohttp's queue would be read as our reply
            raise ClientConnectionError("the server sent data that nobody asked for")
        self.exchange, self._reply_body = exchange, None
        if self._socket is not None:
            self._socket.watched = True

    def began(self) -> None:
        """The request's first byte is being written."""
        if self.exchange is not None:
            self.exchange.marks.start_ns = perf_counter_ns()
            self._watchdog = self._loop.call_later(self.exchange.timeouts.first_look_s, self._watch)

    def detach(self, exchange: Exchange) -> None:
        if self.exchange is exchange:
            self.exchange = None
            if self._watchdog is not None:
                self._watchdog.cancel()
                self._watchdog = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        writes = cast(asyncio.WriteTransport, transport)  # uvloop's is one, but not by inheritance
        self._socket = stamped_socket(transport)
        bound_reads(transport)
        writes.set_write_buffer_limits(high=0)  # drain() then waits until the kernel has all of it

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if self.transport is not None:
                self.transport.abort()  # an idle connection has nothing to say: it can't be trusted any more
            return
        if data:
            now = perf_counter_ns()
            exchange.received(now, len(data))
            if exchange.marks.status_ns is None and len(exchange.head) < 256:
                exchange.head += data[:256]
        super().data_received(data)
        payload = self._reply_body
        if payload is not None and payload.total_bytes and payload.exception() is None:
            body = _all_of(payload)
            if body:
                try:
                    exchange.body(exchange.arrived_ns, body, self._socket)
                except OverflowError:
                    self._fail(ErrorType.MALFORMED, "the reply is longer than 64 MiB")
                if exchange.done_seen:
                    self._linger(payload)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """aiohttp's parser has read a complete head. The first that is not informational is our reply's."""
        if self.exchange is not None and self._reply_body is None and data[0].code >= 200:
            self.exchange.marks.status_ns = self.exchange.arrived_ns
            self._reply_body = data[1]
        super().feed_data(data, size)

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:  # aiohttp calls this at every read and would run its parser over nothing
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        payload = self._reply_body
        if exc is not None and self.exchange is not None and payload is not None and not payload.is_eof():
            # a body that ends with the connection would pass for whole: a reset must not
            self.exchange.broke(ErrorType.STREAM_CUT, f"the connection broke: {exc}")
        super().connection_lost(exc)

    def _linger(self, payload: StreamReader) -> None:
        if self._watchdog is not None and not payload.is_eof():
            self._watchdog.cancel()
            self._watchdog = self._loop.call_later(LINGER_S, self._fail, None, "no end after [DONE]")

    def _watch(self) -> None:
        """One timer an exchange, moved on when it fires early: timers per read would cost as much as the reads."""
        exchange = self.exchange
        if exchange is None or exchange.marks.start_ns is None:
            return
        limits, now = exchange.timeouts, perf_counter_ns()
        if exchange.body_bytes:
            last, limit, kind, text = exchange.arrived_ns, limits.idle_s, ErrorType.IDLE_TIMEOUT, "nothing more came"
        else:
            last, limit, kind, text = exchange.marks.start_ns, limits.ttfb_s, ErrorType.TTFB_TIMEOUT, "no reply came"
        total_left = limits.total_s - (now - exchange.marks.start_ns) / 1e9
        left = limit - (now - last) / 1e9
        if total_left <= 0:
            self._fail(ErrorType.TOTAL_TIMEOUT, f"not finished within {limits.total_s:g} s")
        elif left <= 0:
            self._fail(kind, f"{text} within {limit:g} s")
        else:
            # a first byte that comes right after this look starts the idle clock: look again no later than that ends
            self._watchdog = self._loop.call_later(min(left, total_left, limits.idle_s) + 0.0005, self._watch)

    def _fail(self, fault: ErrorType | None, text: str) -> None:
        self._watchdog = None
        if self.exchange is not None and fault is not None:
            self.exchange.broke(fault, text)
        broken, payload = Broken(text), self._reply_body
        self.set_exception(broken)
        if payload is not None:
            payload.set_exception(broken)


def _all_of(payload: StreamReader) -> bytes:
    """What waits in aiohttp's reader. Its own way is chunk by chunk, and servers send a chunk an event: joined into one
    beforehand, they cost a tenth."""
    waiting = payload._buffer
    if len(waiting) > 1 and not payload._buffer_offset:
        whole = b"".join(waiting)
        waiting.clear()
        waiting.append(whole)
    return payload.read_nowait()


class StampedBody(BytesPayload):
    """Request bytes that note when they went out."""

    def __init__(self, value: bytes, exchange: Exchange, *, fresh: bool) -> None:
        super().__init__(b"", content_type="application/json")
        self._value, self._size = value, len(value)  # aiohttp warns of bodies over 1 MiB; a long prompt is one
        self.exchange, self.fresh = exchange, fresh
        self.handler: StampedHandler | None = None

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        handler: StampedHandler = writer.protocol  # type: ignore[attr-defined]
        marks = self.exchange.marks
        handler.began()
        await writer.write(self._value, drain=False)  # type: ignore[call-arg]
        marks.headers_sent_ns = perf_counter_ns()  # head and body leave in one write
        await writer.drain()
        marks.body_sent_ns = perf_counter_ns()


class StampedRequest(ClientRequest):
    async def send(self, conn: Connection) -> Any:
        body = self.body
        if isinstance(body, StampedBody) and isinstance(conn.protocol, StampedHandler):
            body.handler = conn.protocol
            conn.protocol.attach(body.exchange)
        return await super().send(conn)


class StampedConnector(TCPConnector):
    """No limit of its own (send/rate_limits.py has it); connections are StampedHandlers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(limit=0, keepalive_timeout=KEEPALIVE_S, socket_factory=socket_factory, **options)
        self._factory = partial(StampedHandler, loop=self._loop)  # type: ignore[assignment]

    async def connect(self, req: ClientRequest, traces: Any, timeout: Any) -> Connection:
        if isinstance(req.body, StampedBody) and req.body.fresh:
            for handler, _ in self._conns.pop(req.connection_key, ()):
                handler.close()  # one pooled connection was found dead: its idle siblings are no better
        return await super().connect(req, traces, timeout)

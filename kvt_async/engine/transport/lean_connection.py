"""One connection of the lean transport: bytes out, stamped bytes in, one exchange at a time.

The read callback does what can't wait (stamp, unframe, keep) and nothing else; one future wakes the caller, at the end.
"""

import asyncio
from time import perf_counter_ns
from typing import cast

from kvt_async.contract.errors import ErrorType
from kvt_async.engine.transport.exchange import EVIDENCE_BYTES, Exchange
from kvt_async.engine.transport.kernel_stamps import StampedSocket, stamped_socket
from kvt_async.engine.transport.lean_http import Body, HeadReader, NotHttpError, UntilClose, at_once, body_of
from kvt_async.engine.transport.protocol import LINGER_S, bound_reads

_ONE_WRITE = 16_384  # bytes of body copied behind its head; a longer one is handed over as it is


class Outbox:
    """Requests that became ready in one turn of the loop, written one after the other at its end.

    Waking a server that sleeps costs as much as the write itself: together they wake it once. A request is stamped when
    it is written, so the turn it waited is in none of its latencies.
    """

    __slots__ = ("_loop", "_ready")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ready: list[tuple[LeanConnection, Exchange, bytes, bytes]] = []

    def put(self, connection: "LeanConnection", exchange: Exchange, head: bytes, body: bytes) -> None:
        if not self._ready:
            self._loop.call_soon(self._write)
        self._ready.append((connection, exchange, head, body))

    def _write(self) -> None:
        ready, self._ready = self._ready, []
        for connection, exchange, head, body in ready:
            connection.write(exchange, head, body)


class LeanConnection(asyncio.Protocol):
    """`reusable`: between two exchanges, open, and nothing unasked has come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self._loop, self._outbox = loop, outbox
        self.uses = 0
        self.idle_since = 0.0
        self.reusable = False
        self._exchange: Exchange | None = None
        self._ended: asyncio.Future[None] | None = None
        self._head: HeadReader | None = None
        self._body: Body | None = None
        self._keep_alive = False
        self._writing_paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._socket: StampedSocket | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but not by inheritance
        bound_reads(transport)
        self._socket = stamped_socket(transport)
        if transport.get_extra_info("sslcontext") is None:  # asyncio's TLS would stay paused for ever
            self._transport.set_write_buffer_limits(high=0)  # writes go to the kernel at once; paused: not all of it
        self.reusable = True

    def begin(self, exchange: Exchange, head: bytes, body: bytes) -> "asyncio.Future[None]":
        """Send at the end of this turn of the loop; resolves when the reply has ended. Then, or when that is no longer
        waited for, call `release`."""
        marks = exchange.marks
        marks.conn_ready_ns, marks.conn_reused = perf_counter_ns(), int(self.uses > 0)
        self.uses += 1
        self.reusable = False
        self._exchange, self._head, self._body = exchange, None, None
        self._ended = ended = self._loop.create_future()
        if self._socket is not None:
            self._socket.watched = True
        self._outbox.put(self, exchange, head, body)
        return ended

    def release(self) -> None:
        """From here on this connection is `reusable` or closed."""
        self._exchange = None
        if not self.reusable:
            self.close()

    def write(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """Called by the outbox. Writes nothing where the exchange ended meanwhile: cancelled, or the server left."""
        if self._exchange is not exchange or exchange.fault is not None:
            return
        marks = exchange.marks
        marks.start_ns = perf_counter_ns()
        if len(body) <= _ONE_WRITE:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        marks.headers_sent_ns = perf_counter_ns()
        if not self._writing_paused:
            marks.body_sent_ns = marks.headers_sent_ns
        self._arm(exchange.timeouts.first_look_s)

    def close(self) -> None:
        self.reusable = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.close()  # an idle connection has nothing to say: it can't be trusted any more
            return
        if exchange.marks.start_ns is None:  # nor has one whose request is not written yet
            self._lost(None)
            self.close()
            return
        now = perf_counter_ns()
        exchange.arrived_ns = now
        exchange.bytes_received += len(data)
        body = self._body
        try:
            if body is None:
                if self._head is None and (whole := at_once(data)) is not None:
                    head, data = whole
                    exchange.status, exchange.headers = head.status, head.headers
                    exchange.whole(now, data, self._socket)
                    self._finish(exchange, reusable=head.keep_alive and not self._writing_paused)
                    return
                begun = self._take_head(exchange, data, now)
                if begun is None:
                    return
                body, data = begun
            if data:
                data = body.feed(data)
            if data:
                exchange.body(now, data, self._socket)
        except NotHttpError as error:
            if exchange.status is None:
                self._fail(ErrorType.MALFORMED, f"the reply is not HTTP ({error})")
            else:
                self._fail(ErrorType.STREAM_CUT, f"the reply's framing is broken: {error}")
        except OverflowError:
            self._fail(ErrorType.MALFORMED, "the reply is longer than 64 MiB")
        else:
            if body.ended:
                self._finish(exchange, reusable=self._keep_alive and not body.rest and not self._writing_paused)
            elif exchange.done_seen:
                self._arm(LINGER_S)

    def _take_head(self, exchange: Exchange, data: bytes, now_ns: int) -> tuple[Body, bytes] | None:
        """The body that follows the head, and what of it is here; None: the head isn't whole. Raises NotHttpError."""
        if self._head is None:
            self._head = HeadReader()
        try:
            taken = self._head.feed(data)
        except NotHttpError:
            exchange.head += data[:EVIDENCE_BYTES]
            raise
        if taken is None:
            exchange.head += data[:EVIDENCE_BYTES]
            return None
        head, data = taken
        exchange.marks.status_ns = now_ns
        exchange.status, exchange.headers = head.status, head.headers
        self._keep_alive = head.keep_alive
        self._body = body_of(head)
        return self._body, data

    def eof_received(self) -> bool | None:
        self._lost(None)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        self._lost(exc)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._exchange is not None and self._exchange.marks.body_sent_ns is None:
            self._exchange.marks.body_sent_ns = perf_counter_ns()

    def _lost(self, error: Exception | None) -> None:
        """The connection ended. A body that ends with it is whole, unless it was broken off."""
        self.reusable = False
        exchange = self._exchange
        if exchange is None or exchange.complete or exchange.fault is not None:
            return
        if exchange.status is None:
            exchange.broke(*exchange.lost_before_status(error))
        elif error is not None:
            exchange.broke(ErrorType.STREAM_CUT, f"the connection broke: {error}")
        elif isinstance(self._body, UntilClose):
            self._finish(exchange, reusable=False)
            return
        else:
            exchange.broke(ErrorType.STREAM_CUT, "the connection closed before the reply's end")
        self._wake()

    def _finish(self, exchange: Exchange, *, reusable: bool) -> None:
        exchange.complete, self.reusable = True, reusable
        self.idle_since = self._loop.time()
        self._exchange = None
        self._wake()

    def _fail(self, fault: ErrorType | None, text: str) -> None:
        if self._exchange is not None and fault is not None:
            self._exchange.broke(fault, text)
        self._wake()

    def _wake(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _arm(self, within_s: float) -> None:
        """Look no later than that. A timer set for an earlier exchange stays: most are never due."""
        due = self._loop.time() + within_s
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._watch)

    def _watch(self) -> None:
        """One timer a connection, moved on when it fires early: timers per read would cost as much as the reads."""
        self._timer = None
        exchange = self._exchange
        if exchange is None or exchange.marks.start_ns is None:
            if self.reusable:
                self.close()  # nobody has used it for as long as a whole exchange may hang
            return
        limits, now = exchange.timeouts, perf_counter_ns()
        total_left = limits.total_s - (now - exchange.marks.start_ns) / 1e9
        if exchange.body_bytes:
            last, limit, kind, text = exchange.arrived_ns, limits.idle_s, ErrorType.IDLE_TIMEOUT, "nothing more came"
        else:
            last, limit, kind, text = exchange.marks.start_ns, limits.ttfb_s, ErrorType.TTFB_TIMEOUT, "no reply came"
        left = limit - (now - last) / 1e9
        linger_left = LINGER_S - (now - last) / 1e9 if exchange.done_seen else left
        if linger_left <= 0 and exchange.done_seen:
            self._fail(None, "no end after [DONE]")
        elif total_left <= 0:
            self._fail(ErrorType.TOTAL_TIMEOUT, f"not finished within {limits.total_s:g} s")
        elif left <= 0:
            self._fail(kind, f"{text} within {limit:g} s")
        else:
            # a first byte that comes right after this look starts the idle clock: look again no later than that ends
            self._arm(min(left, linger_left, total_left, limits.idle_s) + 0.0005)

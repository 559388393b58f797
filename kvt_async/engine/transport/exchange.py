"""What one exchange of a request and its reply was on the wire: bytes, instants, and what broke. No JSON here.

A transport fills an Exchange; reply/classify.py reads it afterwards, off the hot path. Whatever transport is used,
equal wire behaviour gives an equal Exchange and so an equal attempt.
"""

import re
from array import array
from collections.abc import Callable, Mapping
from functools import partial

from msgspec import Struct, field

from kvt_async.contract.errors import ErrorType
from kvt_async.engine.transport.kernel_stamps import StampedSocket
from kvt_async.records import Marks

MAX_REPLY_BYTES = 64 * 1024 * 1024  # a reply beyond this is a fault of the server, not an answer
EVIDENCE_BYTES = 200
FIRST_LOOK = 64 * 1024  # bytes of a body: most replies end below that, and nobody looks at them before
_EDGE = 8 * 1024  # bytes of its beginning and end that are kept of what was taken away: evidence
_DONE_WITHIN = 256  # bytes of a read's end that are searched: a long read costs no more than a short one
_TEXT = re.compile(rb'"(?:content|reasoning_content|reasoning|text)"\s*:\s*"[^"]')
_BEFORE_DONE = tuple(end + data for end in (b"\n", b"\r") for data in (b"data: ", b"data:"))


class ReplyTimeouts(Struct, frozen=True, gc=False):
    """How long one reply may take, in seconds: to its first byte, between two reads, and in all."""

    ttfb_s: float = 120.0
    idle_s: float = 60.0
    total_s: float = 600.0

    @property
    def first_look_s(self) -> float:
        """The soonest that any of them can pass."""
        return min(self.ttfb_s, self.idle_s, self.total_s)


class Stretch(Struct, frozen=True, gc=False):
    """Some of a body's bytes that were taken out of its exchange, as an exchange has them."""

    arrivals: "array[int]"
    pieces: list[bytes]
    arrived_ns: int
    complete: bool  # the body's own end is that of these bytes
    read_bytes: int  # of the body, before these

    def raw_body(self) -> bytes:
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)


class Exchange(Struct, gc=False):
    """Filled as it happens. Of every read the body bytes and, stamped in the transport's read callback, its arrival:
    a number in an array, not an object, for a thousand streams keep hundreds of them each until they are over."""

    marks: Marks = field(default_factory=Marks)
    timeouts: ReplyTimeouts = ReplyTimeouts()
    on_growth: "Callable[[Exchange], None] | None" = None  # called once the body is longer than `look_at`
    arrivals: "array[int]" = field(default_factory=partial(array, "q"))  # ns
    pieces: list[bytes] = field(default_factory=list)
    kernel_ns: dict[int, int] = field(default_factory=dict)  # arrival -> the kernel's stamp, up to the first text
    arrived_ns: int = 0  # the newest read
    bytes_received: int = 0  # all bytes of the reply, head included
    body_bytes: int = 0
    read_bytes: int = 0  # of those, read already and no longer here
    look_at: int = FIRST_LOOK
    opening: bytes = b""  # the first and the last bytes of what is no longer here
    closing: bytes = b""
    head: bytes = b""  # first bytes of the reply, while there is no status line: evidence for what isn't HTTP
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    done_seen: bool = False  # a `data: [DONE]` line came
    complete: bool = False  # the body's own end came: last chunk, content-length, or a clean close that may end it
    fault: ErrorType | None = None  # what broke the exchange; None: nothing did
    fault_text: str = ""
    joined: bytes | None = None  # by raw_body
    ours: str | None = None  # what this machine lacked, where that broke it: no server's fault
    undecodable: str | None = None  # why the body's content encoding can't be undone

    def received(self, now_ns: int, n_bytes: int) -> None:
        self.arrived_ns = now_ns
        self.bytes_received += n_bytes

    def whole(self, now_ns: int, data: bytes, source: StampedSocket | None) -> None:
        """All of the body, which came in the read that brought the status line too."""
        marks = self.marks
        marks.status_ns = marks.first_byte_ns = now_ns
        if source is not None and source.stamp_ns is not None:
            self.kernel_ns[now_ns] = marks.first_byte_kernel_ns = source.stamp_ns
        self.arrivals.append(now_ns)
        self.pieces.append(data)
        self.body_bytes = len(data)

    def body(self, now_ns: int, data: bytes, source: StampedSocket | None = None) -> None:
        """Body bytes of a read. Raises OverflowError when the reply outgrows MAX_REPLY_BYTES.

        `source` may know when the kernel had them; nobody asks it any more once text has come.
        """
        if source is not None and source.watched:
            if source.stamp_ns is not None:
                self.kernel_ns[now_ns] = source.stamp_ns
            source.watched = _TEXT.search(data) is None
        if not self.body_bytes:
            self.marks.first_byte_ns = now_ns
            if self.kernel_ns:
                self.marks.first_byte_kernel_ns = self.kernel_ns.get(now_ns)
        self.arrivals.append(now_ns)
        self.pieces.append(data)
        self.body_bytes += len(data)
        if not self.done_seen and data[-3:] != b"}\n\n":  # as reads of one whole event end
            at = data.rfind(b"[DONE]", -_DONE_WITHIN)
            if at >= 0 and (data.endswith(_BEFORE_DONE, 0, at) or data[:at] in (b"data: ", b"data:")):
                self.done_seen = True
        if self.body_bytes > self.look_at:
            if self.body_bytes > MAX_REPLY_BYTES:
                raise OverflowError
            self.look_at = MAX_REPLY_BYTES
            if self.on_growth is not None:
                self.on_growth(self)

    def broke(self, fault: ErrorType, text: str) -> None:
        """The first thing that broke is what broke the exchange."""
        if self.fault is None:
            self.fault, self.fault_text = fault, text

    def lost_before_status(self, error: BaseException | None) -> tuple[ErrorType, str]:
        """What a connection that ended before a status line came is."""
        where = "inside the reply's head" if self.bytes_received else "before the first byte of a reply"
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "closed by the server"
        return ErrorType.CONNECTION, f"the connection was lost {where}: {reason}"

    @property
    def stale(self) -> bool:
        """A pooled connection was closed by the server before anything of the reply came: send again at once."""
        return (
            self.fault is ErrorType.CONNECTION
            and bool(self.marks.conn_reused)
            and self.bytes_received == 0
            and self.status is None
        )

    def raw_body(self) -> bytes:
        """All body bytes so far but those that were taken."""
        joined = self.joined
        if joined is None or len(joined) != self.body_bytes - self.read_bytes:
            self.joined = joined = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        return joined

    def edge(self, *, last: bool = False) -> bytes:
        """The first or the last bytes of the body: all of it, or more than evidence shows."""
        if not self.read_bytes:
            return self.raw_body()
        return self.closing + self.raw_body() if last else self.opening

    def take(self, n_bytes: int) -> Stretch:
        """So many of the bytes that are here, the oldest ones: they are the caller's from now on. An edge of what was
        taken stays, for evidence."""
        pieces, arrivals, taken = self.pieces, self.arrivals, self.raw_body()[:n_bytes]
        nth, left = 0, n_bytes
        while left and left >= len(pieces[nth]):
            left -= len(pieces[nth])
            nth += 1
        parted = nth + bool(left)
        stretch = Stretch(arrivals[:parted], pieces[:parted], self.arrived_ns, self.complete, self.read_bytes)
        self.pieces, self.arrivals = pieces[nth:], arrivals[nth:]
        if left:
            stretch.pieces[-1], self.pieces[0] = pieces[nth][:left], pieces[nth][left:]
        self.opening = self.opening or taken[:_EDGE]
        self.closing = (self.closing + taken[-_EDGE:])[-_EDGE:]
        self.read_bytes, self.joined = self.read_bytes + n_bytes, None
        return stretch

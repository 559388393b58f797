"""HTTP/1.1 replies -> heads and body bytes, wherever the network cuts them. Pure: bytes in, bytes out.

Strict where leniency would be a guess: lines end in CRLF, chunk sizes are hex digits, a reply has one framing. What it
doesn't know it refuses by name.
"""

import re
from dataclasses import dataclass
from typing import Protocol

MAX_HEAD = 65_536
MAX_LINE = 8_190
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n\0]*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*)")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")
_START = b"HTTP/1."
_LAST = b"\r\n0\r\n\r\n"  # the end of a chunk, and the chunk of nothing that ends a body


class NotHttpError(Exception):
    """Bytes that no HTTP/1.1 server sends, or that we don't know; the text says what."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of a reply. `length` None with `chunked` False: the body ends with the connection."""

    status: int
    headers: dict[str, str]  # names in lower case; of equal names the last; never changed
    chunked: bool
    length: int | None
    keep_alive: bool


def read_head(head: bytes) -> Head:
    """`head` without the blank line that ends it. Raises NotHttpError."""
    first, *lines = head.split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None or len(first) > MAX_LINE:
        raise NotHttpError("no HTTP/1.1 status line")
    fields: list[tuple[str, str]] = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None or len(line) > MAX_LINE:
            raise NotHttpError("a header line is none, or longer than 8,190 bytes")
        name, value = field.groups()
        fields.append((name.decode("ascii").lower(), value.rstrip(b" \t").decode("utf-8", "surrogateescape")))
    headers, status = dict(fields), int(status_line[2])
    if status == 101:
        raise NotHttpError("it switches to a protocol that nobody asked for")
    tokens = {token.strip() for name, value in fields if name == "connection" for token in value.lower().split(",")}
    chunked, length = _framing(fields, status)
    keep_alive = "close" not in tokens and (status_line[1] == b"1" or "keep-alive" in tokens)
    return Head(status, headers, chunked, length, keep_alive)


def _framing(fields: list[tuple[str, str]], status: int) -> tuple[bool, int | None]:
    codings = [value for name, value in fields if name == "transfer-encoding"]
    lengths = {value for name, value in fields if name == "content-length"}
    if codings and lengths:
        raise NotHttpError("it has both a transfer encoding and a length")
    if codings and [coding.strip().lower() for coding in codings] != ["chunked"]:
        raise NotHttpError("its transfer encoding is not chunked")
    if len(lengths) > 1 or any(not (v.isascii() and v.isdigit() and len(v) < 16) for v in lengths):
        raise NotHttpError("its content length is no number")
    if status in (204, 304):
        return False, 0
    return bool(codings), int(lengths.pop()) if lengths else None


_known: dict[bytes, Head] = {}  # a server's heads are alike but for their date


def at_once(data: bytes) -> tuple[Head, bytes] | None:
    """Head and body of a reply that is one read: a head seen before, one chunk and the end, as short streams come.

    None: it is anything else, which HeadReader and a Body read.
    """
    end = data.find(b"\r\n\r\n")
    head = _known.get(data[:end])
    if head is None or not head.chunked or head.status < 200:
        return None
    start = end + 4
    eol = data.find(b"\r\n", start, start + 18)
    size = _plain_size(data[start : max(eol, start)])
    stop = eol + 2 + size
    if size and stop + len(_LAST) == len(data) and data.endswith(_LAST):
        return head, data[eol + 2 : stop]
    return None


class HeadReader:
    """Feed it the first reads of a reply."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head once it is whole, informational ones passed over, and what came after it. Raises NotHttpError."""
        if self._pending:
            data = self._pending + data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > MAX_HEAD or data[:7] != _START[: len(data)]:
                    raise NotHttpError("no HTTP/1.1 status line" if len(data) <= MAX_HEAD else "its head has no end")
                self._pending = data
                return None
            raw, data = data[:end], data[end + 4 :]
            head = _known.get(raw)
            if head is None:
                if end > MAX_HEAD:
                    raise NotHttpError("its head is longer than 64 KiB")
                head = read_head(raw)
                if len(_known) >= 64:
                    _known.clear()
                if end <= 2048:
                    _known[raw] = head
            if head.status >= 200:
                return head, data


class Body(Protocol):
    """Takes a body out of its framing. `rest`: bytes after its end, which nobody asked for."""

    ended: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes:
        """Raises NotHttpError where the framing is broken."""
        ...


def body_of(head: Head) -> "Body":
    if head.chunked:
        return Chunked()
    return UntilClose() if head.length is None else Counted(head.length)


class UntilClose:
    """Ends with the connection, which the reader of it can't see."""

    __slots__ = ("ended", "rest")

    def __init__(self) -> None:
        self.ended, self.rest = False, b""

    def feed(self, data: bytes) -> bytes:
        return data


class Counted:
    """Content-Length."""

    __slots__ = ("_left", "ended", "rest")

    def __init__(self, length: int) -> None:
        self._left, self.ended, self.rest = length, length == 0, b""

    def feed(self, data: bytes) -> bytes:
        if len(data) > self._left:
            data, self.rest = data[: self._left], data[self._left :]
        self._left -= len(data)
        self.ended = self._left == 0
        return data


class Chunked:
    """Chunks: size line, data, CRLF; a chunk of nothing and perhaps trailers end it."""

    __slots__ = ("_left", "_partial", "_state", "ended", "rest")
    SIZE, DATA, AFTER, TRAILERS = range(4)

    def __init__(self) -> None:
        self._state, self._left = self.SIZE, 0
        self._partial = b""  # of a line whose end has not come
        self.ended, self.rest = False, b""

    def feed(self, data: bytes) -> bytes:
        if self._state == 0 and not self._partial:  # most reads are one whole chunk, short replies that and the end
            eol = data.find(b"\r\n", 0, 18)
            size = _plain_size(data[: max(eol, 0)])
            stop = eol + 2 + size
            if size and stop + 2 == len(data) and data.endswith(b"\r\n"):
                return data[eol + 2 : stop]
            if size and stop + len(_LAST) == len(data) and data.endswith(_LAST):
                self.ended = True
                return data[eol + 2 : stop]
        if self._partial:
            data, self._partial = self._partial + data, b""
        pos, end, parts = 0, len(data), []
        while pos < end and not self.ended:
            if self._state == self.DATA:
                piece = data[pos : pos + self._left]
                parts.append(piece)
                pos += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._state = self.AFTER
            elif self._state == self.AFTER:
                if not b"\r\n".startswith(data[pos : pos + 2]):
                    raise NotHttpError("a chunk is longer than its size")
                if end - pos < 2:
                    break
                pos, self._state = pos + 2, self.SIZE
            else:
                eol = data.find(b"\r\n", pos, pos + MAX_LINE)
                if eol < 0:
                    if end - pos >= MAX_LINE:
                        raise NotHttpError("a chunk's size line has no end")
                    break
                self._line(data[pos:eol])
                pos = eol + 2
                stop = pos + self._left
                if self._state == self.DATA and data[stop : stop + 2] == b"\r\n":  # all of it is here
                    parts.append(data[pos:stop])
                    pos, self._state, self._left = stop + 2, self.SIZE, 0
        if self.ended:
            self.rest = data[pos:]
        else:
            self._partial = data[pos:]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _line(self, line: bytes) -> None:
        if self._state == self.TRAILERS:
            self.ended = not line
            return
        self._left = _size(line)
        self._state = self.DATA if self._left else self.TRAILERS


def _plain_size(line: bytes) -> int:
    """A chunk's size where its line is digits and nothing else, else 0."""
    try:
        return int(line, 16) if line.isalnum() and b"x" not in line.lower() else 0  # int takes 0x1f too
    except ValueError:
        return 0


def _size(line: bytes) -> int:
    found = _SIZE.fullmatch(line)
    if found is None:
        raise NotHttpError("a chunk's size is no hex number")
    return int(found[1], 16)

"""HTTP/1.1 replies -> heads and body bytes, wherever the network cuts them. Pure: bytes in, bytes out.

Strict where leniency would be a guess: chunk sizes are hex digits, a reply has one framing. Heads may end their lines
in LF alone, and "chunked" may be said twice, as by two proxies. What it doesn't know it refuses by name.
"""

import re
from collections.abc import Callable
from typing import Protocol, TypeVar

from msgspec import Struct

MAX_HEAD = 65_536
MAX_LINE = 8_190
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n\0]*)?")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")
_CRLF = re.compile(rb"\r\n")
_START = b"HTTP/1."
_LAST = b"\r\n0\r\n\r\n"  # the end of a chunk, and the chunk of nothing that ends a body
_END = [b"0", b"", b""]  # the same, split at its line ends
_REMEMBERED = 512
_NONE = -1 << 40  # no size that anything has
_V = TypeVar("_V")


class NotHttpError(Exception):
    """Bytes that no HTTP/1.1 server sends, or that we don't know; the text says what."""


class _Memory(dict[bytes, _V]):
    """What lines were read as: a server sends nearly the same ones with every reply, and few sizes of chunks."""

    def __init__(self, read: Callable[[bytes], _V]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, line: bytes) -> _V:
        read = self._read(line)
        if len(self) >= _REMEMBERED:
            self.clear()
        if len(line) <= 256:
            self[line] = read
        return read


class Head(Struct, frozen=True, gc=False):
    """Status and headers of a reply. `length` None with `chunked` False: the body ends with the connection."""

    status: int
    headers: dict[str, str]  # names in lower case; of equal names the last; never changed
    chunked: bool
    length: int | None
    keep_alive: bool


def read_head(head: bytes) -> Head:
    """`head` without the blank line that ends it. Raises NotHttpError."""
    first, *lines = head.split(b"\r\n")
    version, status = _STATUSES[first]
    fields = [*map(_FIELDS.__getitem__, lines)]
    headers = dict(fields)
    connection = headers.get("connection")
    if len(headers) < len(fields):  # a name came twice
        _check_repeated(fields)
        connection = ",".join(value for name, value in fields if name == "connection")
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if length is not None:
            raise NotHttpError("it has both a transfer encoding and a length")
        if coding != "chunked" and {token.strip() for token in coding.lower().split(",")} != {"chunked"}:
            raise NotHttpError("its transfer encoding is not chunked")
    elif length is not None and not (length.isascii() and length.isdigit() and len(length) < 16):
        raise NotHttpError("its content length is no number")
    keep_alive = version == 1
    if connection:
        tokens = {token.strip() for token in connection.lower().split(",")}
        keep_alive = "close" not in tokens and (keep_alive or "keep-alive" in tokens)
    if status in (204, 304):
        return Head(status, headers, False, 0, keep_alive)
    return Head(status, headers, coding is not None, None if length is None else int(length), keep_alive)


def _check_repeated(fields: list[tuple[str, str]]) -> None:
    """Raises NotHttpError where lines that say how long a body is were sent twice, and not alike."""
    if len({value.lower() for name, value in fields if name == "transfer-encoding"}) > 1:
        raise NotHttpError("its transfer encoding is not chunked")
    if len({value for name, value in fields if name == "content-length"}) > 1:
        raise NotHttpError("its content length is no number")


def _status(line: bytes) -> tuple[int, int]:
    """Minor version and status."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None or len(line) > MAX_LINE:
        raise NotHttpError("no HTTP/1.1 status line")
    if match[2] == b"101":
        raise NotHttpError("it switches to a protocol that nobody asked for")
    return int(match[1]), int(match[2])


def _field(line: bytes) -> tuple[str, str]:
    """Name in lower case, and value."""
    name, colon, value = line.partition(b":")
    if not colon or len(line) > MAX_LINE or 13 in value or 10 in value or 0 in value:  # CR, LF, NUL
        raise NotHttpError("a header line is none, or longer than 8,190 bytes")
    return _NAMES[name], value.decode("utf-8", "surrogateescape").strip(" \t")


def _name(name: bytes) -> str:
    if _NAME.fullmatch(name) is None:
        raise NotHttpError("a header line is none, or longer than 8,190 bytes")
    return name.decode("ascii").lower()


def _plain_size(line: bytes) -> int:
    """A chunk's size where its line is digits and nothing else; _NONE: it isn't, or the chunk ends the body."""
    try:
        return (int(line, 16) or _NONE) if line.isalnum() and b"x" not in line.lower() else _NONE  # int takes 0x1f too
    except ValueError:
        return _NONE


_STATUSES, _FIELDS, _NAMES, _SIZES = _Memory(_status), _Memory(_field), _Memory(_name), _Memory(_plain_size)


def at_once(data: bytes) -> tuple[Head, bytes] | None:
    """Head and body of a reply that is one read: a head, plain chunks and the end, as short streams come.

    None: it is anything else, which HeadReader and a Body read.
    """
    if not data.endswith(_LAST):
        return None
    end = data.find(b"\r\n\r\n")
    if end > MAX_HEAD or not data.startswith(_START):
        return None
    try:
        head = read_head(data[:end])
    except NotHttpError:
        return None  # said by whoever reads it byte by byte
    body = _whole_chunks(data[end + 4 :]) if head.chunked and head.status >= 200 else None
    return (head, body[0]) if body is not None and body[0] and body[1] else None


def _whole_chunks(data: bytes) -> tuple[bytes, bool] | None:
    """What is in data that is plain chunks, and whether their end too; None: it is anything else.

    Split at every CRLF it is sizes and contents in turns, if no content holds one: then they would not fit.
    """
    parts = _CRLF.split(data)  # in half the time of bytes.split
    ended = parts[-3:] == _END
    last = -3 if ended else -1
    contents = parts[1:last:2]
    if [*map(_SIZES.__getitem__, parts[:last:2])] != [*map(len, contents)] or parts[-1]:
        return None
    return b"".join(contents), ended


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
            loose = data.find(b"\n\n", 0, end if end >= 0 else len(data))
            if loose >= 0 and data.startswith(_START):  # its lines end in LF alone
                data = data[: loose + 2].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + data[loose + 2 :]
                end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > MAX_HEAD or data[:7] != _START[: len(data)]:
                    raise NotHttpError("no HTTP/1.1 status line" if len(data) <= MAX_HEAD else "its head has no end")
                self._pending = data
                return None
            if end > MAX_HEAD:
                raise NotHttpError("its head is longer than 64 KiB")
            head, data = read_head(data[:end]), data[end + 4 :]
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
        if self._state == 0 and not self._partial:
            eol = data.find(b"\r\n", 0, 18)
            if eol > 0 and data.endswith(b"\r\n"):
                if eol + 4 + _SIZES[data[:eol]] == len(data):  # most reads are one whole chunk
                    return data[eol + 2 : -2]
                if (found := _whole_chunks(data)) is not None:
                    body, self.ended = found
                    return body
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


def _size(line: bytes) -> int:
    match = _SIZE.fullmatch(line)
    if match is None:
        raise NotHttpError("a chunk's size is no hex number")
    return int(match[1], 16)

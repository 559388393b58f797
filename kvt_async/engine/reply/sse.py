"""Bytes -> server-sent events, wherever the network cuts them. Knows neither HTTP nor JSON.

Follows the event stream grammar of the HTML standard: only CR, LF and CRLF end a line (U+2028 and its kin, which models
do emit, are text), one optional space after the colon, several `data` lines join with LF, comments and unknown fields
are skipped, a leading byte order mark is dropped. Beyond the standard, a field `error` is an event of that name. Lines
may be of any length; time is linear in the bytes fed.
"""

Event = tuple[bytes, bytes]
"""(data, event name); the name is empty where the server gave none."""

_BOM = b"\xef\xbb\xbf"


class SseDecoder:
    """Feed it reads in order; each call returns the events completed by that read.

    `at_start`: the first read begins the stream; else it begins an event, and no byte order mark can lead it.
    """

    __slots__ = ("_after_cr", "_data", "_name", "_partial", "_start")

    def __init__(self, *, at_start: bool = True) -> None:
        self._partial: list[bytes] = []  # pieces of a line whose end has not come
        self._data: list[bytes] = []  # `data` lines of the event being read
        self._name = b""
        self._after_cr = False  # the last read ended in CR: an LF that comes next belongs to it
        # What may still turn out to be a byte order mark; None: past it.
        self._start: bytes | None = b"" if at_start else None

    def feed(self, read: bytes) -> list[Event]:
        if self._start is not None:
            read = self._strip_bom(read)
        if self._after_cr and read:
            self._after_cr = False
            if read[0] == 0x0A:
                read = read[1:]
        if b"\r" in read:
            self._after_cr = read[-1] == 0x0D
            read = read.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in read:
            if read:
                self._partial.append(read)
            return []
        if self._partial:
            self._partial.append(read)
            read = b"".join(self._partial)
        events: list[Event] = []
        if not self._data and not self._name:  # at the start of an event: most are one `data` line and a blank one
            *blocks, rest = read.split(b"\n\n")
            one_line = read.count(b"\n") == 2 * len(blocks) + rest.count(b"\n")
            if one_line:
                events = [(block[6:], b"") for block in blocks if block[:6] == b"data: "]
            if len(events) != len(blocks):
                events = []
                for block in blocks:
                    events += self._take([*block.split(b"\n"), b""])
            read = rest
        *lines, tail = read.split(b"\n")
        self._partial = [tail] if tail else []
        return events + self._take(lines) if lines else events

    def flush(self) -> list[Event]:
        """The event that a clean end of stream left without its blank line, if there is one.

        The standard drops it; servers that forget the last blank line after `[DONE]` are common enough to read it.
        """
        lines = [b"".join(self._partial), b""] if self._partial else [b""]
        self._partial = []
        return self._take(lines)

    def _take(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        data = self._data
        for line in lines:
            if not line:
                if data:
                    events.append((data[0] if len(data) == 1 else b"\n".join(data), self._name))
                    data = []
                self._name = b""
            elif line.startswith(b"data: "):
                data.append(line[6:])
            elif line.startswith(b"data:"):
                data.append(line[5:])
            elif line == b"data":
                data.append(b"")
            elif line.startswith(b"event:"):
                self._name = line[6:].removeprefix(b" ")
            elif line.startswith(b"error:"):  # no field of the standard: llama.cpp's until 2025
                self._name = b"error"
                data.append(line[6:].removeprefix(b" "))
        self._data = data
        return events

    def _strip_bom(self, read: bytes) -> bytes:
        head = (self._start or b"") + read
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._start = head
            return b""
        self._start = None
        return head.removeprefix(_BOM)

"""Events of one stream, read one by one: the meaning of a stream, and the only reader that must be right.

A stream is bytes in pieces, each with the instant at which it arrived. An event belongs to the piece that completed it.
fast_events.py reads the same events sooner, and hands whatever it doesn't know to this reader.
"""

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from time import perf_counter_ns

from kvt_async.engine.reply.payload import UnreadableError, json_or_none, parse_json
from kvt_async.engine.reply.sse import SseDecoder
from kvt_async.engine.reply.transcript import Transcript
from kvt_async.engine.transport.exchange import Exchange, Stretch

SLICE_NS = 300_000  # of reading, before other streams get their turn
_FAILURE = re.compile(rb"error|exception|fail|abort", re.IGNORECASE)  # in an event's name


class Events:
    """What was read of a stream so far: its transcript, how many events it had, and when [DONE] came.

    Nothing after [DONE] counts.
    """

    __slots__ = ("done_ns", "exchange", "first_event_ns", "n_events", "source", "transcript")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.source: Exchange | Stretch = exchange  # whose bytes are being read
        self.transcript = Transcript()
        self.n_events = 0
        self.first_event_ns: int | None = None
        self.done_ns: int | None = None

    def one_by_one(self, pos: int = 0) -> Iterator[bool]:
        """Read whatever the grammar allows from byte `pos` of the source, which is the start of an event.

        Yields True where it has worked for SLICE_NS and there is more, and False at the end. Raises UnreadableError.
        """
        since_ns = perf_counter_ns()
        for payload, name, at_ns in decoded(self.source, pos):
            if self._is_done(payload, name, at_ns):
                break
            if perf_counter_ns() - since_ns > SLICE_NS:
                yield True
                since_ns = perf_counter_ns()
        yield False

    def _is_done(self, payload: bytes, name: bytes, at_ns: int) -> bool:
        """Read all of an event; whether it was [DONE]. Raises UnreadableError."""
        self._came(1, at_ns)
        if name and _FAILURE.search(name):
            error = json_or_none(payload) or payload.decode("utf-8", "replace") or f"event: {name.decode()}"
            self.transcript.error = self.transcript.error or error
            return False
        bare = payload.strip()
        try:
            return self._add(bare, at_ns)
        except UnreadableError:
            if b"\n" not in bare:
                raise
        return any(self._add(line.strip(), at_ns) for line in bare.split(b"\n"))  # events that no blank line parts

    def _came(self, n_events: int, first_ns: int) -> None:
        if self.first_event_ns is None:
            self.first_event_ns = first_ns
        self.n_events += n_events

    def _add(self, data: bytes, at_ns: int) -> bool:
        if data == b"[DONE]":
            self.done_ns = at_ns
            return True
        if data:
            self.transcript.add((parse_json(data),), (at_ns,))
        return False


def decoded(source: Exchange | Stretch, pos: int) -> Iterator[tuple[bytes, bytes, int]]:
    """(data, event name, arrival of the piece that completed it), from byte `pos` of the source."""
    decoder, passed = SseDecoder(at_start=pos == source.read_bytes == 0), 0
    for at_ns, data in zip(source.arrivals, source.pieces, strict=True):
        skip, passed = max(0, pos - passed), passed + len(data)
        if skip < len(data):
            for payload, name in decoder.feed(data[skip:] if skip else data):
                yield payload, name, at_ns
    if source.complete:  # only a clean end completes an event that lacks its blank line
        for payload, name in decoder.flush():
            yield payload, name, source.arrived_ns


class Arrivals:
    """When neighbouring events arrived: each when the piece that holds its last byte did."""

    __slots__ = ("_arrivals", "_ends", "_only")

    def __init__(self, source: Exchange | Stretch) -> None:
        self._arrivals = source.arrivals
        self._only: int | None = None  # where all bytes came in one piece
        if len(self._arrivals) == 1:
            self._only = self._arrivals[0]
        else:
            self._ends = array("q", accumulate(map(len, source.pieces)))

    def each(self, pos: int, middles: Sequence[bytes], around: int) -> list[int]:
        """Of neighbouring events from byte `pos` of the source on, each of its middle and `around` bytes more."""
        if self._only is not None:
            return [self._only] * len(middles)
        arrivals, ends, instants = self._arrivals, self._ends, []
        nth = bisect_left(ends, pos + 1)
        for middle in middles:
            pos += len(middle) + around
            while ends[nth] < pos:
                nth += 1
            instants.append(arrivals[nth])
        return instants

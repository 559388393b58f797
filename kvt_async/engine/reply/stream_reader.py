"""A stream's bytes -> its transcript and marks. Done after its last byte: work between the bytes of one stream shows up
in the latencies of all others."""

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from time import perf_counter_ns

import orjson

from kvt_async.contract.formulas.chunk_encoding import encode_arrivals
from kvt_async.engine.reply.event_template import Shape, learn, texts_of
from kvt_async.engine.reply.payload import UnreadableError, json_or_none, parse_json
from kvt_async.engine.reply.sse import SseDecoder
from kvt_async.engine.reply.transcript import Transcript
from kvt_async.engine.transport.exchange import Exchange
from kvt_async.records import Marks

SLICE_NS = 300_000  # of reading, before other streams get their turn
SLICE_BYTES = 65_536  # of events of the known shape, read together: about as long
LEAST_BYTES = 2_048
BATCH = 5  # events read whole at a time: a reply of one token has no more
SHORT_BYTES = 4_096  # read whole at one go: about where learning the shape of the stream begins to pay
LEARN_AFTER = 2  # text chunks; finding the shape of a stream costs as much as reading a few events whole
_PLAIN = re.compile(rb"(?:data: \{[^\n]*\n\n){1,%d}" % BATCH)  # one line of data and a blank one
_FAILURE = re.compile(rb"error|exception|fail|abort", re.IGNORECASE)  # in an event's name
_START = b"data: "
_BETWEEN = b"\n\n" + _START
_LAST_LINE = b"data: [DONE]"
_DONE = _LAST_LINE + b"\n\n"
_ENDING = [_LAST_LINE, b"", b""]
_TRANSCRIBED = tuple(name for name in Marks.__struct_fields__ if hasattr(Transcript, name))  # marks that it takes


class Reading:
    """Events of one stream into its transcript, up to [DONE]; nothing after it counts.

    Call `goes_on` until it is False, giving the loop a turn between: it reads for about SLICE_NS.
    """

    done_ns: int | None = None
    unreadable: UnreadableError | None = None  # what ended the reading; what came before it counts
    _arrival_of: "_Arrivals | None" = None
    _one_by_one: Iterator[bool] | None = None
    _pos = 0
    _shape: Shape | None = None
    _run_bytes = SLICE_BYTES

    def __init__(self, exchange: Exchange) -> None:
        self.transcript = Transcript()
        self._exchange = exchange
        self._event_ns: list[int] = []  # arrival of every event: of the read that completed it

    def goes_on(self) -> bool:
        """Read on; whether there is more."""
        body = self._exchange.raw_body()
        try:
            if self._one_by_one is not None:
                return next(self._one_by_one)
            if not self._pos and len(body) <= SHORT_BYTES and self._short(body):
                return False
            return self._many(body)
        except UnreadableError as error:
            self.unreadable = error
            return False

    def decode(self, pos: int = 0) -> Iterator[bool]:
        """Whatever the grammar allows, from byte `pos` of the body, which is the start of an event."""
        since_ns = perf_counter_ns()
        for payload, name, at_ns in _events(self._exchange, pos):
            if self._whole(payload, name, at_ns):
                break
            if perf_counter_ns() - since_ns > SLICE_NS:
                yield True
                since_ns = perf_counter_ns()
        yield False

    def fill(self, *, store_chunks: bool) -> None:
        """The marks that only reading could tell."""
        exchange, transcript, events = self._exchange, self.transcript, self._event_ns
        try:
            transcript.settle()
        except UnreadableError as error:
            self.unreadable = self.unreadable or error
        marks = exchange.marks
        marks.n_events, marks.done_ns = len(events), self.done_ns
        if events:
            marks.first_event_ns = events[0]
        for name in _TRANSCRIBED:
            setattr(marks, name, getattr(transcript, name))
        arrivals = transcript.chunk_ns
        marks.n_text_chunks = len(arrivals)
        if arrivals:
            first = arrivals[0]
            marks.first_text_coalesced = int(len(arrivals) > 1 and arrivals[1] == first)
            marks.first_text_kernel_ns = exchange.kernel_ns.get(first)
            start = marks.start_ns
            if store_chunks and start is not None:
                if first == arrivals[-1]:
                    offsets = [(first - start) // 1000] * len(arrivals)
                else:
                    offsets = [(at_ns - start) // 1000 for at_ns in arrivals]
                marks.chunks = encode_arrivals(offsets, transcript.chunk_chars)

    def _short(self, body: bytes) -> bool:
        """Read a short reply at one go. False, and nothing read: it is not one line of data and a blank one a time."""
        lines = body.split(b"\n")
        if lines[-3:] != _ENDING or any(lines[1::2]) or b"\r" in body:
            return False
        lines = lines[:-3:2]
        try:
            events = [orjson.loads(line[6:]) for line in lines if line.startswith(_START)]
        except orjson.JSONDecodeError:
            return False
        if len(events) != len(lines):
            return False
        if len(self._exchange.arrivals) == 1:
            arrivals = [self._exchange.arrivals[0]] * (len(lines) + 1)
        else:
            arrivals = _Arrivals(self._exchange).each(0, [*lines, _LAST_LINE], 2)
        try:
            self.transcript.add(events, arrivals)
        except UnreadableError:
            self.transcript = Transcript()  # one by one it is known where it ended
            return False
        self._event_ns, self.done_ns = arrivals, arrivals[-1]
        return True

    def _many(self, body: bytes) -> bool:
        """Neighbouring events together; whether there are more of them."""
        pos = self._pos
        arrival_of = self._arrival_of
        if arrival_of is None:
            if not body.startswith(_START) or b"\r" in body:
                self._one_by_one = self.decode(0)
                return next(self._one_by_one)
            arrival_of = self._arrival_of = _Arrivals(self._exchange)
        since_ns = perf_counter_ns()
        while pos < len(body):
            shape = self._shape
            known = shape is not None and body.startswith(shape.start, pos)
            after = self._run(body, pos, shape, arrival_of) if known and shape is not None else pos
            if after == pos:
                after = self._batch(body, pos, arrival_of)
            if self.done_ns is not None:
                return False
            if after == pos:  # not one line of data and a blank one: the decoder's business
                self._one_by_one = self.decode(pos)
                return next(self._one_by_one)
            pos = self._pos = after
            if perf_counter_ns() - since_ns > SLICE_NS:
                break
        return pos < len(body)

    def _run(self, body: bytes, pos: int, shape: Shape, arrival_of: "_Arrivals") -> int:
        """Read neighbouring events of the known shape together, from the one at `pos`; where they end, or `pos`."""
        lines = body[pos : pos + self._run_bytes].split(b"\n")
        lines = lines[: len(lines) - 1 : 2]  # a blank one follows each
        start, after = shape.start, shape.after
        while lines and not (lines[-1].startswith(start) and lines[-1].endswith(after)):
            lines.pop()  # what ends the stream, or the run's last bytes
        head, tail = len(start), -len(after)
        strings = [line[head:tail] for line in lines]
        run = shape.around(strings)
        if not body.startswith(run, pos):  # there are others among them
            self._run_bytes = max(LEAST_BYTES, self._run_bytes // 4)
            good = (line.startswith(start) and line.endswith(after) for line in lines)
            del strings[next((n for n, is_good in enumerate(good) if not is_good), 0) :]
            run = shape.around(strings)
        elif self._run_bytes < SLICE_BYTES:
            self._run_bytes *= 2
        texts = texts_of(strings) if strings and body.startswith(run, pos) else None
        if texts is None:
            return pos
        arrivals = arrival_of.each(pos, strings, len(start) + len(after) + 2)
        self._event_ns += arrivals
        self.transcript.add_run(texts, arrivals)
        return pos + len(run)

    def _batch(self, body: bytes, pos: int, arrival_of: "_Arrivals") -> int:
        """Read the next few events whole, from the one at `pos`; where they end, or `pos` if that isn't plain."""
        plain = _PLAIN.match(body, pos)
        if plain is not None:
            payloads = body[pos + 6 : plain.end() - 2].split(_BETWEEN)
            arrivals = arrival_of.each(pos, payloads, 8)
            self._event_ns += arrivals
            self.transcript.add(map(parse_json, payloads), arrivals)
            pos = plain.end()
            if self._shape is None and len(self.transcript.chunk_ns) >= LEARN_AFTER:
                self._shape = learn(payloads[-1], parse_json(payloads[-1]))
        if body.startswith(_DONE, pos):
            self.done_ns = arrival_of.each(pos, [_DONE], 0)[0]
            pos += len(_DONE)
            self._event_ns.append(self.done_ns)
        return pos

    def _whole(self, payload: bytes, name: bytes, at_ns: int) -> bool:
        """Read all of an event; True: it was [DONE]. Raises UnreadableError."""
        self._event_ns.append(at_ns)
        if name and _FAILURE.search(name):
            error = json_or_none(payload) or payload.decode("utf-8", "replace") or f"event: {name.decode()}"
            self.transcript.error = self.transcript.error or error
            return False
        bare = payload.strip()
        try:
            return self._said(bare, at_ns)
        except UnreadableError:
            if b"\n" not in bare:
                raise
        return any(self._said(line.strip(), at_ns) for line in bare.split(b"\n"))  # events that no blank line parts

    def _said(self, data: bytes, at_ns: int) -> bool:
        if data == b"[DONE]":
            self.done_ns = at_ns
            return True
        if data:
            self.transcript.add((parse_json(data),), (at_ns,))
        return False


class _Arrivals:
    """When the events came: each when the read that holds its last byte did. `only`: all of them in one read."""

    __slots__ = ("_arrivals", "_ends", "only")

    def __init__(self, exchange: Exchange) -> None:
        self._arrivals = exchange.arrivals
        self.only: int | None = None
        if len(self._arrivals) == 1:
            self.only = self._arrivals[0]
        else:
            self._ends = array("q", accumulate(map(len, exchange.pieces)))

    def each(self, pos: int, middles: Sequence[bytes], around: int) -> list[int]:
        """Of neighbouring events from byte `pos` of the body on, each of its middle and `around` bytes more."""
        if self.only is not None:
            return [self.only] * len(middles)
        arrivals, ends, found = self._arrivals, self._ends, []
        nth = bisect_left(ends, pos + 1)
        for middle in middles:
            pos += len(middle) + around
            while ends[nth] < pos:
                nth += 1
            found.append(arrivals[nth])
        return found


def _events(exchange: Exchange, pos: int) -> Iterator[tuple[bytes, bytes, int]]:
    """(data, event name, arrival of the read that completed it), from byte `pos` of the body."""
    decoder, passed = SseDecoder(), 0
    for at_ns, data in zip(exchange.arrivals, exchange.pieces, strict=True):
        skip, passed = max(0, pos - passed), passed + len(data)
        if skip < len(data):
            for payload, name in decoder.feed(data[skip:] if skip else data):
                yield payload, name, at_ns
    if exchange.complete:  # only a clean end completes an event that lacks its blank line
        for payload, name in decoder.flush():
            yield payload, name, exchange.arrived_ns

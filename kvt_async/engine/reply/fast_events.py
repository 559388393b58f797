"""The events of a stream, sooner: many at a time where they are plain, else one by one.

Three readers, and each gives exactly what `Events.one_by_one` gives; a fuzzer compares them wherever the network cuts
(tests/engine/test_stream_reader.py). What none of them knows goes to `one_by_one`, from that event on to the end.

- `_short`: a whole reply of up to SHORT_BYTES, one line of data and a blank one for each event, parsed at one go.
- `_run`: neighbouring events of a shape that was learned from this stream (event_template.py): only their texts are
  parsed, at 0.65 us an event.
- `_batch`: a few plain events, parsed whole; it is from these that the shape is learned.
"""

import re
from collections.abc import Iterator
from time import perf_counter_ns

import orjson

from kvt_async.engine.reply.event_template import Shape, learn, texts_of
from kvt_async.engine.reply.events import SLICE_NS, Arrivals, Events
from kvt_async.engine.reply.payload import UnreadableError, parse_json
from kvt_async.engine.reply.transcript import Transcript

SLICE_BYTES = 65_536  # of events of the known shape, read together: about as long as SLICE_NS
LEAST_BYTES = 2_048
BATCH = 5  # events read whole at a time: a reply of one token has no more
SHORT_BYTES = 4_096  # read whole at one go: about where learning the shape of the stream begins to pay
LEARN_AFTER = 2  # text chunks; finding the shape of a stream costs as much as reading a few events whole
_PLAIN = re.compile(rb"(?:data: \{[^\n]*\n\n){1,%d}" % BATCH)  # one line of data and a blank one
_START = b"data: "
_BETWEEN = b"\n\n" + _START
_DONE = _START + b"[DONE]\n\n"
_ENDING = b"\n\n" + _DONE


class FastEvents(Events):
    """Events that are read sooner; call `goes_on` until it is False. Every reply makes one of these, so what few need
    is a default of the class."""

    unreadable: UnreadableError | None = None  # what ended the reading; what came before it counts
    _arrival_of: Arrivals | None = None
    _rest: Iterator[bool] | None = None  # events from where no faster reader knows them
    _pos = 0
    _shape: Shape | None = None
    _run_bytes = SLICE_BYTES

    def goes_on(self) -> bool:
        """Read for about SLICE_NS; whether there is more."""
        if self.done_ns is not None or self.unreadable is not None:
            return False
        try:
            if self._rest is not None:
                return next(self._rest)
            body = self.source.raw_body()
            if not self._pos and self.source is self.exchange and len(body) <= SHORT_BYTES and self._short(body):
                return False
            return self._many(body)
        except UnreadableError as error:
            self.unreadable = error
            return False

    def _short(self, body: bytes) -> bool:
        """Read a short reply at one go. False, and nothing read: it is not one line of data and a blank one a time."""
        if not (body.startswith(_START) and body.endswith(_ENDING)) or 13 in body:  # CR
            return False
        payloads = body[len(_START) : -len(_ENDING)].split(_BETWEEN)
        if body.count(b"\n") != 2 * len(payloads) + 2:  # one of them is not one line
            return False
        try:
            events = [*map(orjson.loads, payloads)]
        except orjson.JSONDecodeError:
            return False
        exchange = self.exchange
        if len(exchange.arrivals) == 1:
            arrivals = [exchange.arrivals[0]] * (len(payloads) + 1)
        else:
            arrivals = Arrivals(exchange).each(0, [*payloads, b"[DONE]"], len(_START) + 2)
        try:
            self.transcript.add(events, arrivals)
        except UnreadableError:
            self.transcript = Transcript()  # one by one it is known where it ended
            return False
        self._came(len(arrivals), arrivals[0])
        self.done_ns = arrivals[-1]
        return True

    def _many(self, body: bytes) -> bool:
        """Read neighbouring events together; whether there are more of them."""
        pos = self._pos
        arrival_of = self._arrival_of
        if arrival_of is None:
            if not body.startswith(_START) or b"\r" in body:
                return self._from_here_one_by_one(0)
            arrival_of = self._arrival_of = Arrivals(self.source)
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
                return self._from_here_one_by_one(pos)
            pos = self._pos = after
            if perf_counter_ns() - since_ns > SLICE_NS:
                break
        return pos < len(body)

    def _from_here_one_by_one(self, pos: int) -> bool:
        self._rest = self.one_by_one(pos)
        return next(self._rest)

    def _run(self, body: bytes, pos: int, shape: Shape, arrival_of: Arrivals) -> int:
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
        self._came(len(arrivals), arrivals[0])
        self.transcript.add_run(texts, arrivals)
        return pos + len(run)

    def _batch(self, body: bytes, pos: int, arrival_of: Arrivals) -> int:
        """Read the next few events whole, from the one at `pos`; where they end, or `pos` if that isn't plain."""
        plain = _PLAIN.match(body, pos)
        if plain is not None:
            payloads = body[pos + 6 : plain.end() - 2].split(_BETWEEN)
            arrivals = arrival_of.each(pos, payloads, 8)
            self._came(len(arrivals), arrivals[0])
            self.transcript.add(map(parse_json, payloads), arrivals)
            pos = plain.end()
            if self._shape is None and self.transcript.n_chunks >= LEARN_AFTER:
                self._shape = learn(payloads[-1], parse_json(payloads[-1]))
        if body.startswith(_DONE, pos):
            self.done_ns = arrival_of.each(pos, [_DONE], 0)[0]
            pos += len(_DONE)
            self._came(1, self.done_ns)
        return pos

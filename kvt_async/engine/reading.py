"""A stream's bytes -> its transcript and marks. Done after its last byte: work between the bytes of one stream shows up
in the latencies of all others."""

import asyncio
from collections.abc import Iterator

from kvt_async.contract.chunks import encode_chunks
from kvt_async.engine.shape import Shape, learn, texts_of
from kvt_async.engine.sse import Event, SseDecoder
from kvt_async.engine.transcript import Transcript, json_or_none, parse_json
from kvt_async.engine.wire import Exchange

SLICE = 64  # events read before other streams get their turn: a fifth of a millisecond
LEARN_AFTER = 2  # text chunks; finding the shape of a stream costs as much as reading a few events whole


class Reading:
    """Events of one stream into its transcript, up to [DONE]; nothing after it counts."""

    def __init__(self) -> None:
        self.transcript = Transcript()
        self.done_ns: int | None = None
        self.first_event_ns: int | None = None
        self.n_events = 0
        self.in_first_text_read = 0  # events in the read that brought the first text
        self._shape: Shape | None = None

    async def read(self, exchange: Exchange) -> None:
        """Every read in order, other streams having their turn. Raises UnreadableError; what came before it counts."""
        since_pause = 0
        for at_ns, events in _by_read(exchange):
            for start in range(0, len(events), SLICE):
                part = events[start : start + SLICE]
                self.take(part, at_ns)
                since_pause += len(part)
                if since_pause >= SLICE:
                    since_pause = 0
                    await asyncio.sleep(0)
            if self.done_ns is not None:
                return

    def take(self, events: list[Event], at_ns: int) -> None:
        """Events of one read. Raises UnreadableError."""
        if self.done_ns is not None or not events:
            return
        if self.first_event_ns is None:
            self.first_event_ns = at_ns
        arrivals = self.transcript.chunk_ns
        had_text = bool(arrivals)
        self.n_events += len(events)
        run: list[bytes] = []  # JSON strings of neighbouring events of the known shape
        try:
            shape = self._shape
            for payload, name in events:
                if (
                    shape is not None
                    and payload.startswith(shape.before)
                    and payload.endswith(shape.after)
                    and len(payload) >= shape.least
                    and not name
                ):
                    run.append(payload[len(shape.before) : shape.text_ends])
                    continue
                self._run(run, at_ns)
                if self._whole(payload, name, at_ns):
                    return
                shape = self._shape
            self._run(run, at_ns)
        finally:
            if arrivals and (not had_text or arrivals[0] == at_ns):
                self.in_first_text_read += len(events)

    def _run(self, strings: list[bytes], at_ns: int) -> None:
        if not strings:
            return
        texts, shape = texts_of(strings), self._shape
        assert shape is not None
        if texts is not None:
            self.transcript.add_texts(texts, at_ns)
        else:  # one of them is not what it looked like: read each whole
            for string in strings:
                self._whole(shape.before + string + shape.after, b"", at_ns)
        strings.clear()

    def _whole(self, payload: bytes, name: bytes, at_ns: int) -> bool:
        """Read all of an event; True: it was [DONE]."""
        if name == b"error":
            error = json_or_none(payload) or payload.decode("utf-8", "replace")
            self.transcript.error = self.transcript.error or error
            return False
        bare = payload.strip()
        if bare == b"[DONE]":
            self.done_ns = at_ns
            return True
        if bare:
            event = parse_json(bare)
            self.transcript.add(event, at_ns)
            if self._shape is None and len(self.transcript.chunk_ns) >= LEARN_AFTER and payload is bare:
                self._shape = learn(payload, event)
        return False

    def fill(self, exchange: Exchange, *, store_chunks: bool) -> None:
        """The marks that only reading could tell."""
        marks, transcript = exchange.marks, self.transcript
        marks.n_events, marks.done_ns = self.n_events, self.done_ns
        marks.first_event_ns = self.first_event_ns
        marks.first_reasoning_ns = transcript.first_reasoning_ns
        marks.first_content_ns = transcript.first_content_ns
        marks.first_tool_ns = transcript.first_tool_ns
        marks.last_delta_ns = transcript.last_delta_ns
        marks.finish_ns, marks.usage_ns = transcript.finish_ns, transcript.usage_ns
        arrivals = transcript.chunk_ns
        marks.n_text_chunks = len(arrivals)
        if arrivals:
            marks.first_text_coalesced = int(self.in_first_text_read > 1)
            marks.first_text_kernel_ns = exchange.kernel_ns.get(arrivals[0])
            start = marks.start_ns
            if store_chunks and start is not None:
                offsets = [(at_ns - start) // 1000 for at_ns in arrivals]
                marks.chunks = encode_chunks(zip(offsets, transcript.chunk_chars, strict=True))


def _by_read(exchange: Exchange) -> Iterator[tuple[int, list[Event]]]:
    """(arrival ns, the events completed by that read)."""
    decoder = SseDecoder()
    for at_ns, data in exchange.reads:
        yield at_ns, decoder.feed(data)
    if exchange.complete:  # only a clean end completes an event that lacks its blank line
        yield exchange.arrived_ns, decoder.flush()

"""A stream's bytes -> its transcript and marks. Done after its last byte: work between the bytes of one stream shows up
in the latencies of all others. A long stream is read in stretches while it runs: its bytes could not all be kept."""

from collections.abc import Iterator

from kvt_async.contract.formulas.chunk_encoding import encode_arrivals
from kvt_async.engine.reply.fast_events import FastEvents
from kvt_async.engine.reply.payload import UnreadableError
from kvt_async.engine.reply.transcript import Transcript
from kvt_async.records import Marks

_TRANSCRIBED = tuple(name for name in Marks.__struct_fields__ if hasattr(Transcript, name))
"""Marks that are the transcript's, by name: a new one is named there and in Marks alone."""


class Reading(FastEvents):
    """One stream, read up to [DONE], and its marks.

    Call `goes_on` until it is False, giving the loop a turn between. Of a stream that is not over yet, call `reads_on`
    like that, as often as more of it has come, and at its end `last_stretch`, before `goes_on`.
    """

    bug: Exception | None = None  # what `reads_on` ran into; `goes_on` raises it
    _stretch: Iterator[bool] | None = None

    def goes_on(self) -> bool:
        if self.bug is not None:
            raise self.bug
        return super().goes_on()

    def reads_on(self) -> bool:
        """Read for about SLICE_NS of the whole events that have come; whether there are more of them."""
        if self._stretch is None:
            self._stretch = self._read_stretch()
        try:
            is_more = next(self._stretch, False)
        except Exception as error:
            self.bug, is_more = error, False
        if not is_more:
            self._stretch = None
        return is_more

    def last_stretch(self) -> None:
        """The stream is over: what is left of it is `goes_on`'s."""
        while self._stretch is not None:
            self.reads_on()
        exchange = self.exchange
        self._begin(exchange.body_bytes - exchange.read_bytes)

    def _read_stretch(self) -> Iterator[bool]:
        exchange = self.exchange
        unread = exchange.raw_body()
        # Only a blank line ends an event; what follows the last one is the beginning of another.
        end = max(unread.rfind(b"\n\n") + 2, unread.rfind(b"\n\r\n") + 3)
        if end < 3:
            return
        self._begin(end)
        while self.goes_on():
            yield True
        self.source, self._rest, self._arrival_of = exchange, None, None  # let go of its bytes
        transcript = self.transcript
        transcript.pack(exchange.marks.start_ns or 0)
        if exchange.kernel_ns and transcript.packed is not None and transcript.n_chunks:
            first_ns = transcript.packed.first_ns  # nobody asks for the stamps of later ones
            exchange.kernel_ns = {at_ns: stamp for at_ns, stamp in exchange.kernel_ns.items() if at_ns == first_ns}

    def _begin(self, n_bytes: int) -> None:
        self.source = self.exchange.take(n_bytes)
        self._pos, self._rest, self._arrival_of = 0, None, None

    def decode(self) -> Iterator[bool]:
        """Read the whole stream one by one: what `goes_on` must agree with. Raises UnreadableError."""
        return self.one_by_one()

    def fill(self, *, store_chunks: bool) -> None:
        """The marks that only reading could tell."""
        exchange, transcript = self.exchange, self.transcript
        try:
            transcript.settle()
        except UnreadableError as error:
            self.unreadable = self.unreadable or error
        marks = exchange.marks
        marks.n_events, marks.done_ns, marks.first_event_ns = self.n_events, self.done_ns, self.first_event_ns
        for name in _TRANSCRIBED:
            setattr(marks, name, getattr(transcript, name))
        marks.n_text_chunks = transcript.n_chunks
        if not marks.n_text_chunks:
            return
        start = marks.start_ns
        if (packed := transcript.packed) is not None:
            transcript.pack(packed.start_ns)
            first, coalesced = packed.first_ns, packed.second_ns == packed.first_ns
            if store_chunks and start is not None:
                marks.chunks = packed.encoded()
        else:
            arrivals = transcript.chunk_ns
            first, coalesced = arrivals[0], len(arrivals) > 1 and arrivals[1] == arrivals[0]
            if store_chunks and start is not None:
                if first == arrivals[-1]:
                    offsets = [(first - start) // 1000] * len(arrivals)
                else:
                    offsets = [(at_ns - start) // 1000 for at_ns in arrivals]
                marks.chunks = encode_arrivals(offsets, transcript.chunk_chars)
        marks.first_text_coalesced = int(coalesced)
        marks.first_text_kernel_ns = exchange.kernel_ns.get(first)

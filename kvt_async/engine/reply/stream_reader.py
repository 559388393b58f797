"""A stream's bytes -> its transcript and marks. Done after its last byte: work between the bytes of one stream shows up
in the latencies of all others."""

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

    Call `goes_on` until it is False, giving the loop a turn between.
    """

    def decode(self) -> Iterator[bool]:
        """Read the whole stream one by one: what `goes_on` must agree with. Raises UnreadableError."""
        return self.one_by_one()

    def fill(self, *, store_chunks: bool) -> None:
        """The marks that only reading could tell."""
        exchange, transcript, arrived_ns = self.exchange, self.transcript, self.arrived_ns
        try:
            transcript.settle()
        except UnreadableError as error:
            self.unreadable = self.unreadable or error
        marks = exchange.marks
        marks.n_events, marks.done_ns = len(arrived_ns), self.done_ns
        if arrived_ns:
            marks.first_event_ns = arrived_ns[0]
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

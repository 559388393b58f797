"""Replies that are read while they still come, because their bytes are too many to keep.

An event of one token is some 200 bytes, and 500 streams of 30,000 tokens would be 3 GB. So a stream that has grown long
is read in stretches, a slice of time a turn of the loop; most replies never are, and are read after their last byte.
"""

import asyncio
from collections import deque

from kvt_async.engine.reply.classify import reading_of
from kvt_async.engine.reply.stream_reader import Reading
from kvt_async.engine.transport.exchange import FIRST_LOOK, Exchange

MOST_UNREAD = 128 * 1024  # bytes of one stream
FLOOD = 2 * MOST_UNREAD  # so many come faster than turns of the loop: read at once, which holds the server back
_SPREAD = 0.618034  # golden: neighbours are far from each other, so that streams that began together take turns


class LongReplies:
    """Their readings, each from its first stretch to its end. Use inside of one running loop."""

    def __init__(self) -> None:
        self._readings: dict[int, Reading] = {}
        self._due: deque[Reading] = deque()
        self._n = 0

    def grown(self, exchange: Exchange) -> None:
        """What an Exchange calls: its body is longer than `look_at`."""
        reading = self._readings.get(id(exchange))
        if reading is None:
            if exchange.status is None:  # the head is here, and whoever waits for it has not had its turn
                exchange.look_at = exchange.body_bytes + FIRST_LOOK // 4
                return
            if "content-encoding" in exchange.headers or (reading := reading_of(exchange)) is None:
                return
            self._readings[id(exchange)] = reading
            self._n += 1
            exchange.look_at = FIRST_LOOK + int(self._n * _SPREAD % 1 * (MOST_UNREAD - FIRST_LOOK))
            if exchange.body_bytes <= exchange.look_at:
                return
        unread = exchange.body_bytes - exchange.read_bytes
        if unread >= FLOOD:
            while reading.reads_on():
                pass
            exchange.look_at = exchange.body_bytes + MOST_UNREAD
            return
        exchange.look_at = exchange.read_bytes + FLOOD
        if not self._due:
            asyncio.get_running_loop().call_soon(self._turn)
        self._due.append(reading)

    def ended(self, exchange: Exchange) -> Reading | None:
        """The reading of an exchange that is over, if it was begun."""
        reading = self._readings.pop(id(exchange), None)
        if reading is not None:
            reading.last_stretch()
        return reading

    def _turn(self) -> None:
        """A slice of the oldest that is due; then everything else that waits for the loop."""
        reading = self._due.popleft()
        exchange = reading.exchange
        if self._readings.get(id(exchange)) is reading:  # else it ended meanwhile
            if reading.reads_on():
                self._due.append(reading)
            else:
                exchange.look_at = exchange.body_bytes + MOST_UNREAD
        if self._due:
            asyncio.get_running_loop().call_soon(self._turn)

"""Replies that are read while they still come, because their bytes are too many to keep.

An event of one token is some 200 bytes, and 500 streams of 30,000 tokens would be 3 GB. So a stream that has grown long
is read in stretches, a slice of time a turn of the loop; most replies never are, and are read after their last byte.
"""

import asyncio
from collections import deque
from time import perf_counter_ns

from kvt_async.engine.reply.classify import reading_of
from kvt_async.engine.reply.stream_reader import Reading
from kvt_async.engine.transport.exchange import FIRST_LOOK, Exchange

MOST_UNREAD = 64 * 1024  # bytes of one stream, or a little more
FLOOD = 2 * MOST_UNREAD  # so many come faster than turns of the loop: read at once, which holds the server back
SHARE = 0.1  # of the loop's time that reading ahead may take, and a slice a turn at least
_SPREAD = 0.618034  # golden: neighbours are far from each other, so that streams that began together take turns


class LongReplies:
    """Their readings, each from its first stretch to its end. Use inside of one running loop."""

    def __init__(self) -> None:
        self._readings: dict[int, Reading] = {}
        self._due: deque[Reading] = deque()
        self._n = 0
        self._since_ns = 0  # when this turn of the loop began, as far as we know

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
            exchange.look_at = exchange.body_bytes + int(self._n * _SPREAD % 1 * MOST_UNREAD)
            if exchange.body_bytes < FLOOD:
                return
        unread = exchange.body_bytes - exchange.read_bytes
        if unread >= FLOOD:
            while reading.reads_on():
                pass
            _look_later(exchange)
            return
        exchange.look_at = exchange.read_bytes + FLOOD
        if not self._due:
            self._since_ns = perf_counter_ns()
            asyncio.get_running_loop().call_soon(self._turn)
        self._due.append(reading)

    def ended(self, exchange: Exchange) -> Reading | None:
        """The reading of an exchange that is over, if it was begun."""
        reading = self._readings.pop(id(exchange), None)
        if reading is not None:
            reading.last_stretch()
        return reading

    def _turn(self) -> None:
        """A slice of the oldest that is due, of more where turns are long; then everything else that waits."""
        began_ns = perf_counter_ns()
        until_ns = began_ns + SHARE * (began_ns - self._since_ns)
        while self._due:
            reading = self._due.popleft()
            exchange = reading.exchange
            if self._readings.get(id(exchange)) is reading:  # else it ended meanwhile
                if reading.reads_on():
                    self._due.appendleft(reading)
                else:
                    _look_later(exchange)
            if perf_counter_ns() >= until_ns:
                break
        if self._due:
            self._since_ns = perf_counter_ns()
            asyncio.get_running_loop().call_soon(self._turn)


def _look_later(exchange: Exchange) -> None:
    """An event that is longer than all that may wait is not looked for again and again."""
    unread = exchange.body_bytes - exchange.read_bytes
    exchange.look_at = exchange.body_bytes + max(MOST_UNREAD, unread)

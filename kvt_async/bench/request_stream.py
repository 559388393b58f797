"""Requests of a workload that streams, made in blocks while earlier ones are sent: flat memory, whatever the trace.

Nothing of a window is there before it begins but its first blocks; each request's rows are stored as it starts, so that
what has no row was never begun, and a resumed stage goes on with what has no outcome.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from kvt_async.bench.arrivals import offsets_ns, shaped_offsets_ns
from kvt_async.bench.prepared_requests import BodyFile, Maker, PlannedRequest
from kvt_async.bench.sending_window import Arrival
from kvt_async.bench.stage import Left, Stage
from kvt_async.clock import utc_now
from kvt_async.contract.bench_settings import MOST_REQUESTS

BLOCK = 32  # requests made together
AHEAD = 4  # blocks that are made before they are due


@dataclass(frozen=True, slots=True)
class WindowNumbers:
    """Numbers of a window's requests in the order of sending, without a list of them: warm-up, measured, and for a
    closed loop by duration whatever comes after."""

    warm_up: range
    measured: Sequence[int]
    more: range

    @classmethod
    def of(cls, stage: Stage, left: Left | None) -> "WindowNumbers":
        measured, free = stage.numbers(left)
        used = free + stage.n_warm_up
        more = range(used, MOST_REQUESTS) if stage.n_measured is None else range(0)
        return cls(range(free, used), measured, more)

    def __len__(self) -> int:
        return len(self.warm_up) + len(self.measured) + len(self.more)

    def __getitem__(self, place: int) -> tuple[int, bool]:
        """(number of the request, whether it is measured)."""
        if place < len(self.warm_up):
            return self.warm_up[place], False
        place -= len(self.warm_up)
        if place < len(self.measured):
            return int(self.measured[place]), True
        return self.more[place - len(self.measured)], True


class RequestStream(AbstractAsyncContextManager["RequestStream"]):
    """`async with RequestStream(...) as stream:` makes the first blocks; `arrivals` gives all, in the order of sending.

    Raises ConfigError where a row of the trace can't be read.
    """

    def __init__(self, maker: Maker, left: Left | None, session_id: str, nth: int = 0, of: int = 1) -> None:
        """`nth`, `of`: this process sends every place `nth`, `nth + of`, ... of the window."""
        self._maker, self._left, self._session_id = maker, left, session_id
        self._numbers = WindowNumbers.of(maker.stage, left)
        self._places = range(nth, len(self._numbers), of)
        self._blocks: deque[Future[list[Arrival]]] = deque()
        self._thread = ThreadPoolExecutor(1, "kvt-planner")

    async def __aenter__(self) -> "RequestStream":
        try:
            for _ in range(AHEAD):
                self._plan_next()
            await asyncio.gather(*(asyncio.wrap_future(block) for block in self._blocks))
        except BaseException:
            self._thread.shutdown(wait=False, cancel_futures=True)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def arrivals(self) -> AsyncGenerator[Arrival, None]:
        """Every request that this process sends; it brings its rows, unless they are stored already."""
        while self._blocks:
            block = await asyncio.wrap_future(self._blocks.popleft())
            self._plan_next()
            for arrival in block:
                yield arrival

    def _plan_next(self) -> None:
        places, self._places = self._places[:BLOCK], self._places[BLOCK:]
        if places:
            self._blocks.append(self._thread.submit(self._block, places))

    def _block(self, places: range) -> list[Arrival]:
        """In the planner's thread, which alone reads the trace."""
        arrivals: list[Arrival] = []
        with BodyFile() as bodies:
            maker = replace(self._maker, bodies=bodies)
            for is_measured in (False, True):  # what warms up comes first in a window
                mine = [place for place in places if self._numbers[place][1] is is_measured]
                planned = maker.plan([self._numbers[place][0] for place in mine], measured=is_measured)
                arrivals += [self._arrival(maker, *pair) for pair in zip(mine, planned, strict=True)]
        return arrivals

    def _arrival(self, maker: Maker, place: int, planned: PlannedRequest) -> Arrival:
        left, offset_ns = self._left, self._offset_ns(place, planned)
        is_stored = left is not None and planned.seq in left.stored
        rows = () if is_stored else tuple(maker.rows(planned, offset_ns, self._session_id, utc_now()))
        attempts = 0 if left is None else left.attempts.get(planned.seq, 0)
        return Arrival(maker.request(planned, attempts), planned.measured, offset_ns, rows)

    def _offset_ns(self, place: int, planned: PlannedRequest) -> int | None:
        """When it is due, from the window's start; None in closed loop."""
        load = self._maker.stage.load
        if load.speed is not None:
            assert planned.at_s is not None
            return round((planned.at_s - self._first_at_s) / load.speed * 1e9)
        return None if self._due_ns is None else int(self._due_ns[place])

    @cached_property
    def _first_at_s(self) -> float:
        """When the trace asked for the first request of the window: what is left of a stage begins at once."""
        return self._maker.workload.at_s(self._numbers[0][0])

    @cached_property
    def _due_ns(self) -> NDArray[np.int64] | None:
        stage = self._maker.stage
        if not stage.load.is_open:
            return None
        if stage.load.shape is not None:
            return np.array(stage.offsets_ns(0, self._left), dtype=np.int64)
        key = (stage.seed, stage.repeat)
        if stage.load.shape is None:
            return offsets_ns(stage.load, len(self._numbers), key)
        seqs, _ = stage.numbers(self._left)
        return shaped_offsets_ns(stage.load, stage.n_warm_up, seqs, key, resumes=self._left is not None)

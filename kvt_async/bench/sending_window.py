"""One window of a stage: the requests of one session, sent by a schedule or by slots, until the last has ended.

Warm-up hands over without draining: its requests are simply the first. What is measured afterwards meets a server that
is as busy as the load keeps it.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from kvt_async.bench.loop_places import LoopPlaces
from kvt_async.bench.timer import Timer
from kvt_async.clock import utc_now
from kvt_async.records import Attempt, Outcome, Request
from kvt_async.session.progress import Watcher
from kvt_async.session.session import ServerSession
from kvt_async.store.columns import Row, rows_of_attempt, rows_of_outcome, unstorable

CATCH_UP = 16  # overdue requests started in one turn of the loop: replies are read between two such bursts


class Following(Protocol):
    """The requests that wait for the end of another: a conversation's later turns."""

    @property
    def n_left(self) -> int:
        """How many are still to come."""
        ...

    async def after(self, outcome: Outcome) -> "Arrival | None":
        """The next one, once the one before was answered; None: that one was the last."""
        ...

    async def lost(self) -> tuple[list[Row], list[Outcome]]:
        """Rows and outcomes of all that are left, for the one before has failed; none is left then."""
        ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a window. `rows`: to be stored as it starts (closed loop by duration plans as it goes).
    `think_ns`: of one that follows another, from the end of that one on."""

    request: Request
    measured: bool
    offset_ns: int | None = None
    rows: Sequence[Row] = ()
    following: Following | None = None
    think_ns: int = 0


@dataclass(slots=True)
class Tally:
    """What happened in the window: columns of bench_window_ends, and what a person watching sees."""

    measured_from_ns: int | None = None
    measured_to_ns: int | None = None
    n_sent: int = 0
    n_measured: int = 0
    n_late: int = 0
    late_max_ms: float = 0.0
    n_held: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    cut: bool = False  # requests were left when `most_s` was over


@dataclass(slots=True)
class Window:
    """`open_loop` or `closed_loop` sends; both return when every request they started has ended or been given up."""

    server: ServerSession
    watcher: Watcher
    tally: Tally
    _draining: bool = False
    _begun: bool = False  # all that the schedule or a place begins
    _unsent: int = 0  # conversations under way with turns that are still to be sent
    _all_sent: asyncio.Event = field(default_factory=asyncio.Event)
    _alarm: Timer = field(default_factory=Timer)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def open_loop(self, arrivals: AsyncIterator[Arrival], start_ns: int, max_in_flight: int | None) -> None:
        """Start each arrival `offset_ns` after `start_ns`, whatever the server does; a cap that binds is counted."""
        slots, burst = asyncio.Semaphore(max_in_flight) if max_in_flight else None, 0
        with self._alarm:
            async with self._limited_drain(), asyncio.TaskGroup() as group:
                async for arrival in arrivals:
                    assert arrival.offset_ns is not None
                    due_ns = start_ns + arrival.offset_ns
                    burst = burst + 1 if due_ns <= time.perf_counter_ns() else 0
                    if burst % CATCH_UP == CATCH_UP - 1:
                        await asyncio.sleep(0)
                    await self._until(due_ns)
                    if not await self._may_start(slots):
                        break
                    self._note_due(arrival, due_ns)
                    self._keep(group.create_task(self._converse(arrival, due_ns, slots)))
                self._nothing_more()

    async def closed_loop(
        self,
        arrivals: AsyncIterator[Arrival],
        concurrency: int,
        duration_s: float | None,
        most_s: float | None = None,
        places: LoopPlaces | None = None,
    ) -> None:
        """Keep `concurrency` requests in flight until the requests end, or `duration_s` after the first measured one;
        `most_s`: the same of a window whose requests should have ended by then; `places`: which of them may send. A
        conversation keeps its place until its last turn has ended."""
        tally, turn = self.tally, asyncio.Lock()

        async def work(place: int) -> None:
            while not self.server.stop.is_set():
                if places is not None and not await self._has_place(places, place):
                    return
                async with turn:
                    arrival = await anext(arrivals, None)
                now, begun = time.perf_counter_ns(), tally.measured_from_ns
                if self.server.stop.is_set():
                    return
                passed_s = 0.0 if begun is None else (now - begun) / 1e9
                if arrival is not None and most_s is not None and passed_s > most_s:
                    tally.cut, arrival = True, None
                if arrival is None or (duration_s is not None and passed_s > duration_s):
                    tally.measured_to_ns = tally.measured_to_ns or now  # from here on a slot stays empty
                    self._nothing_more()
                    return
                self._note(arrival, now)
                if places is not None and arrival.measured:
                    places.begun.set()
                await self._converse(arrival, None, None)
                if places is not None:
                    places.gave_back(place)

        with self._alarm:
            async with self._limited_drain(), asyncio.TaskGroup() as group:
                for n in range(concurrency):
                    self._keep(group.create_task(work(n), name=f"slot-{n}"))

    async def _has_place(self, places: LoopPlaces, place: int) -> bool:
        """Wait until this place is one of the load's; False: it never will be, or the window stops."""
        while True:
            begun = self.tally.measured_from_ns
            wait_s = places.wait_s(place, None if begun is None else (time.perf_counter_ns() - begun) / 1e9)
            if wait_s == 0 or math.isinf(wait_s):
                return wait_s == 0
            await self._unless_stopped(places.begun.wait() if math.isnan(wait_s) else asyncio.sleep(wait_s))
            if self.server.stop.is_set():
                return False

    def _note(self, arrival: Arrival, at_ns: int) -> None:
        tally = self.tally
        tally.n_sent += 1
        if arrival.measured:
            tally.n_measured += 1
            tally.measured_from_ns = tally.measured_from_ns or at_ns
            if arrival.offset_ns is not None:
                tally.measured_to_ns = at_ns

    def _note_due(self, arrival: Arrival, due_ns: int) -> None:
        """The same of one that had an instant to start at."""
        self._note(arrival, due_ns)
        late_ms = (time.perf_counter_ns() - due_ns) / 1e6
        self.tally.late_max_ms = max(self.tally.late_max_ms, late_ms)
        self.tally.n_late += late_ms > self.server.settings.bench.late_ms

    async def _may_start(self, slots: asyncio.Semaphore | None) -> bool:
        """Wait for room under the cap; False: the window stops."""
        if slots is not None:
            self.tally.n_held += slots.locked()
            await self._unless_stopped(slots.acquire())
        return not self.server.stop.is_set()

    async def _converse(self, arrival: Arrival, due_ns: int | None, slots: asyncio.Semaphore | None) -> None:
        """Send a request and, one after the other, those that follow it."""
        following = arrival.following
        if following is None:
            await self._send(arrival, due_ns, slots)
            return
        self._unsent, is_last = self._unsent + 1, False
        try:
            while True:
                is_last = following.n_left == 0
                if is_last:
                    self._last_turn()
                outcome = await self._send(arrival, due_ns, slots)
                if is_last or outcome is None or outcome.last is None or outcome.reply is None:
                    return
                later = await following.after(outcome)
                assert later is not None
                arrival, ended_ns = later, outcome.last.marks.end_ns or time.perf_counter_ns()
                due_ns = ended_ns + arrival.think_ns
                await self._until(due_ns)
                if not await self._may_start(slots):
                    return
                self._note_due(arrival, due_ns)
        finally:
            if not is_last:
                self._last_turn()

    def _last_turn(self) -> None:
        self._unsent -= 1
        self._nothing_more(begun=self._begun)

    def _nothing_more(self, *, begun: bool = True) -> None:
        """Nothing more begins, or one conversation less has something to send."""
        self._begun = begun
        if self._begun and self._unsent == 0:
            self._all_sent.set()

    async def _send(self, arrival: Arrival, due_ns: int | None, slots: asyncio.Semaphore | None) -> Outcome | None:
        """None: its time was up, and it has failed."""
        request, tally = arrival.request, self.tally
        if arrival.rows:
            await self.server.store.submit(arrival.rows)
        tally.in_flight += 1
        tally.peak_in_flight = max(tally.peak_in_flight, tally.in_flight)
        try:
            outcome = await self.server.sender.send(
                request, self._record, scheduled_ns=due_ns or time.perf_counter_ns(), intended_ns=due_ns
            )
        except asyncio.CancelledError:
            if self._draining:  # its time was up: an outcome, unlike an interruption
                row: Row = ("give_ups", (request.request_id, request.series_idx, "time_exhausted", utc_now()))
                await self.server.store.submit([row])
                return None
            raise
        finally:
            tally.in_flight -= 1
            if slots is not None:
                slots.release()
        if outcome.last is not None:
            self.watcher.attempted(request, outcome.last)
        rows, lost = rows_of_outcome(outcome, self.server.session_id, utc_now()), list[Outcome]()
        if outcome.reply is None and outcome.give_up is not None and arrival.following is not None:
            more, lost = await arrival.following.lost()
            rows += more  # on disk together with what they were lost by
        if rows:
            committed = await self.server.store.submit(rows)
            committed.add_done_callback(lambda future: self._committed(future, outcome, lost))
        return outcome

    async def _record(self, request: Request, attempt: Attempt) -> None:
        self.watcher.attempted(request, attempt)
        await self.server.store.submit(rows_of_attempt(request, attempt, self.server.session_id, utc_now()))

    def _committed(self, future: "asyncio.Future[None]", outcome: Outcome, lost: Sequence[Outcome]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        server = self.server
        error = server.store.refused.pop(outcome.request.request_id, None)
        failure = unstorable(outcome, error) if error is not None else None
        if failure is not None:
            server.store.offer(rows_of_outcome(failure, server.session_id, utc_now()), at_once=True)
        for each in (failure or outcome, *lost):
            self.watcher.saved(each)

    async def _until(self, due_ns: int) -> None:
        if due_ns - time.perf_counter_ns() > 50_000_000:
            await self._unless_stopped(self._alarm.until(due_ns))
        else:
            await self._alarm.until(due_ns)

    async def _unless_stopped(self, waiting: Coroutine[Any, Any, object]) -> None:
        """Wait, but no longer than until `stop` is set."""
        tasks = {asyncio.create_task(waiting), asyncio.create_task(self.server.stop.wait())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def _limited_drain(self) -> AsyncIterator[None]:
        """While the block runs: bench.drain_s after the last request was sent, those still open are ended."""

        async def limit(seconds: float) -> None:
            await self._all_sent.wait()
            await asyncio.sleep(seconds)
            self._draining = True
            for task in list(self._tasks):
                task.cancel()

        drain_s = self.server.settings.bench.drain_s
        limiting = asyncio.create_task(limit(drain_s)) if drain_s is not None else None
        try:
            yield
        finally:
            if limiting is not None:
                limiting.cancel()

"""One window of a stage: the requests of one session, sent by a schedule or by slots, until the last has ended.

Warm-up hands over without draining: its requests are simply the first. What is measured afterwards meets a server that
is as busy as the load keeps it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from kvt_async.bench.timer import Timer
from kvt_async.clock import utc_now
from kvt_async.records import Attempt, Outcome, Request
from kvt_async.session.progress import Watcher
from kvt_async.session.session import ServerSession
from kvt_async.store.columns import Row, rows_of_attempt, rows_of_outcome, unstorable

CATCH_UP = 16  # overdue requests started in one turn of the loop: replies are read between two such bursts


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a window. `rows`: to be stored as it starts (closed loop by duration plans as it goes)."""

    request: Request
    measured: bool
    offset_ns: int | None = None
    rows: Sequence[Row] = ()


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
    _all_sent: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def open_loop(self, arrivals: AsyncIterator[Arrival], start_ns: int, max_in_flight: int | None) -> None:
        """Start each arrival `offset_ns` after `start_ns`, whatever the server does; a cap that binds is counted."""
        tally, slots = self.tally, asyncio.Semaphore(max_in_flight) if max_in_flight else None
        burst = 0
        with Timer() as alarm:
            async with self._limited_drain(), asyncio.TaskGroup() as group:
                async for arrival in arrivals:
                    assert arrival.offset_ns is not None
                    due_ns = start_ns + arrival.offset_ns
                    burst = burst + 1 if due_ns <= time.perf_counter_ns() else 0
                    if burst % CATCH_UP == CATCH_UP - 1:
                        await asyncio.sleep(0)
                    await self._until(alarm, due_ns)
                    if slots is not None:
                        tally.n_held += slots.locked()
                        await self._unless_stopped(slots.acquire())
                    if self.server.stop.is_set():
                        break
                    self._note(arrival, due_ns)
                    late_ms = (time.perf_counter_ns() - due_ns) / 1e6
                    tally.late_max_ms = max(tally.late_max_ms, late_ms)
                    tally.n_late += late_ms > self.server.settings.bench.late_ms
                    self._keep(group.create_task(self._send(arrival, due_ns, slots)))
                self._all_sent.set()

    async def closed_loop(
        self,
        arrivals: AsyncIterator[Arrival],
        concurrency: int,
        duration_s: float | None,
        most_s: float | None = None,
    ) -> None:
        """Keep `concurrency` requests in flight until the requests end, or `duration_s` after the first measured one;
        `most_s`: the same of a window whose requests should have ended by then."""
        tally, turn = self.tally, asyncio.Lock()

        async def work() -> None:
            while not self.server.stop.is_set():
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
                    self._all_sent.set()
                    return
                self._note(arrival, now)
                await self._send(arrival, None, None)

        async with self._limited_drain(), asyncio.TaskGroup() as group:
            for n in range(concurrency):
                self._keep(group.create_task(work(), name=f"slot-{n}"))

    def _note(self, arrival: Arrival, at_ns: int) -> None:
        tally = self.tally
        tally.n_sent += 1
        if arrival.measured:
            tally.n_measured += 1
            tally.measured_from_ns = tally.measured_from_ns or at_ns
            if arrival.offset_ns is not None:
                tally.measured_to_ns = at_ns

    async def _send(self, arrival: Arrival, due_ns: int | None, slots: asyncio.Semaphore | None) -> None:
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
                return
            raise
        finally:
            tally.in_flight -= 1
            if slots is not None:
                slots.release()
        if outcome.last is not None:
            self.watcher.attempted(request, outcome.last)
        if rows := rows_of_outcome(outcome, self.server.session_id, utc_now()):
            committed = await self.server.store.submit(rows)
            committed.add_done_callback(lambda future: self._committed(future, outcome))

    async def _record(self, request: Request, attempt: Attempt) -> None:
        self.watcher.attempted(request, attempt)
        await self.server.store.submit(rows_of_attempt(request, attempt, self.server.session_id, utc_now()))

    def _committed(self, future: "asyncio.Future[None]", outcome: Outcome) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        server = self.server
        error = server.store.refused.pop(outcome.request.request_id, None)
        failure = unstorable(outcome, error) if error is not None else None
        if failure is not None:
            server.store.offer(rows_of_outcome(failure, server.session_id, utc_now()), at_once=True)
        self.watcher.saved(failure or outcome)

    async def _until(self, alarm: Timer, due_ns: int) -> None:
        if due_ns - time.perf_counter_ns() > 50_000_000:
            await self._unless_stopped(alarm.until(due_ns))
        else:
            await alarm.until(due_ns)

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

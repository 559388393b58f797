"""A stage sent by several processes (`limits.processes`), as their parent sees it.

    WindowOrder -> each plans its part -> Planned -> rows stored -> Go (one instant) -> News ... -> Ended -> pooled

Every process takes every n-th place of the window: planned starts of an open loop, and of a closed one its share of the
requests in flight. What comes out is one window of one session, as if one process had sent it: the processes of a
machine share CLOCK_MONOTONIC. Only how well the client did is told for each of them.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from kvt_async.bench.bench_progress import StageProgress
from kvt_async.bench.conversations.conversation_schedule import (
    conversation_places,
    further_conversations,
    shares_of,
    stored_replies,
)
from kvt_async.bench.conversations.conversation_workload import ConversationWorkload, conversations_of
from kvt_async.bench.sending_window import Tally
from kvt_async.bench.stage import Left, Stage
from kvt_async.bench.stage_run import end_row, open_window, stage_sampler
from kvt_async.bench.window_messages import Ended, Go, News, Planned, StreamedPart, WindowOrder, WindowPlace
from kvt_async.bench.workload import Workload
from kvt_async.contract.bench_settings import MOST_REQUESTS
from kvt_async.contract.errors import LocalError
from kvt_async.contract.vocabulary import EndReason
from kvt_async.records import Json
from kvt_async.senders.notices import Tripped, Unable
from kvt_async.senders.pooled_health import health_line, pooled_health
from kvt_async.senders.sender_pool import SenderPool
from kvt_async.senders.sender_process import SenderProcess
from kvt_async.senders.shares import whole_shares
from kvt_async.session.client_health import keep_health
from kvt_async.session.live_feed import feed
from kvt_async.session.servers import beside
from kvt_async.session.session import ServerSession
from kvt_async.store.columns import Row
from kvt_async.store.reader import Reader

MODULE = "kvt_async.bench.window_sender"
LEAD_NS = 150_000_000  # between the window's row on disk and its start: all processes have to hear of it
_SPANS = """
SELECT min(t.scheduled_ns), max(ifnull(t.end_ns, t.scheduled_ns)) FROM attempts a
JOIN telemetry t USING (request_id, attempt_idx) JOIN requests r USING (request_id)
WHERE r.run_id = ? AND a.session_id = ? GROUP BY a.request_id
"""
Message = TypeVar("Message")


@asynccontextmanager
async def window_senders(server: ServerSession, workload: Workload, n: int) -> AsyncIterator["WindowSenders"]:
    """`n` processes that send to this server while the block runs."""
    pool = SenderPool(server, MODULE, n)
    try:
        await pool.start()
        yield WindowSenders(server, pool, workload)
    finally:
        await pool.close()


@dataclass(frozen=True, slots=True)
class WindowSenders:
    """The sender processes of one server, and what they do of each of its stages."""

    server: ServerSession
    pool: SenderPool
    workload: Workload

    async def send(self, stage: Stage, left: Left | None, head: Sequence[Row] = (), shown: Json | None = None) -> Json:
        """What `run_stage` does, with all processes; a window whose process died is no whole one, and says LOCAL."""
        server, talks = self.server, conversations_of(self.workload)
        orders = self._orders(stage, left, shown) if talks is None else self._talks(talks, stage, left, shown)
        for process, order in zip(self.pool.processes, orders, strict=True):
            process.wire.send(order)
        rows = [row for process in self.pool.processes for row in (await self._next(process, Planned)).rows]
        await server.store.save([*head, *rows])
        sampler = stage_sampler(server, stage)
        await sampler.take("before")
        progress, ended = PooledProgress(stage, left, self.pool.n, server.log), list[Ended | None]()
        progress.server_now = sampler.now
        server.interrupts.draining = True
        start_ns = await open_window(server, stage, left, LEAD_NS)
        self.pool.tell(Go(start_ns))
        shown_live = progress.show(server.options.shows_nothing)
        try:
            async with beside(sampler.during(), shown_live, feed(server, progress), self.pool.halted_by(server.stop)):
                ended = await self.pool.all_ended(lambda i: self._heard(i, progress))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not server.interrupts.hit or task is None:
                raise
            task.uncancel()  # Ctrl-C: what has ended is kept, and the window gets its end
        finally:
            server.interrupts.draining = False
        await self.pool.take_over()
        await sampler.take("after")
        tally = progress.pooled(is_open=stage.load.is_open)
        tally.peak_in_flight = _peak(server.reader, stage.run.run_id, server.session_id)
        client = progress.client_health()
        if client:
            counts = {
                "run_id": stage.run.run_id,
                "done": progress.done,
                "failed": progress.failed,
                "errors": dict(progress.errors),
            }
            await keep_health(server, client, counts, stage=stage.name)
            server.say(f"{stage.name}: {health_line(client)}")
        return end_row(
            server, stage, tally, max((end.drained_ns for end in ended if end), default=time.perf_counter_ns()), client
        )

    def _orders(self, stage: Stage, left: Left | None, shown: Json | None) -> list[WindowOrder]:
        n, load = self.pool.n, stage.load
        if stage.streams:
            last_s = stage.seconds_left(left)
            order = WindowOrder(stage, (), shown, load.concurrency, stage.max_in_flight, last_s, range(0))
            return [replace(_part(order, i, n), streamed=StreamedPart(i, n, left)) for i in range(n)]
        measured, free = stage.numbers(left)
        numbers = [*range(free, free + stage.n_warm_up), *measured]
        attempts = left.attempts if left else {}
        places = [
            WindowPlace(
                seq, at >= stage.n_warm_up, offset_ns, attempts.get(seq, 0), left is not None and at >= stage.n_warm_up
            )
            for at, (seq, offset_ns) in enumerate(zip(numbers, stage.offsets_ns(len(numbers), left), strict=True))
        ]
        more = range(free + stage.n_warm_up, MOST_REQUESTS)
        order = WindowOrder(stage, places, shown, load.concurrency, stage.max_in_flight, stage.seconds_left(left), more)
        return [replace(_part(order, i, n), places=places[i::n]) for i in range(n)]

    def _talks(
        self, talks: ConversationWorkload, stage: Stage, left: Left | None, shown: Json | None
    ) -> list[WindowOrder]:
        """Every n-th conversation to a process, whole."""
        n, plan = self.pool.n, talks.plan(stage.repeat)
        places = conversation_places(stage, plan, left)
        replies = stored_replies(self.server.reader, stage.run.run_id, places, talks) if left is not None else {}
        more = further_conversations(plan, stage, left, places)
        order = WindowOrder(
            stage, places, shown, stage.load.concurrency, stage.max_in_flight, stage.seconds_left(left), more, replies
        )
        return [replace(_part(order, i, n), places=part) for i, part in enumerate(shares_of(places, plan, n))]

    async def _next(self, process: SenderProcess, kind: type[Message]) -> Message:
        """The next message, which is of this kind. Raises what the process failed with, or that it is gone."""
        message = await process.wire.receive()
        if isinstance(message, Unable):
            raise message.error
        if not isinstance(message, kind):
            raise LocalError(
                f"{process.name} ended ({await process.end_of_life()}) before it sent anything",
                where="limits.processes",
                do="Run the same command again: everything that was answered is kept.",
            )
        return message

    async def _heard(self, i: int, progress: "PooledProgress") -> Ended | None:
        """Take what process `i` says until its part is over; None: it is gone, and all others are to stop."""
        process, breaker = self.pool.processes[i], self.server.sender.breaker
        while True:
            match await process.wire.receive():
                case News() as news:
                    progress.take(i, news)
                case Ended(news) as end:
                    progress.take(i, news)
                    return end
                case Unable(error):
                    raise error
                case Tripped(reason, ending) if not breaker.tripped.is_set():
                    breaker.reason, breaker.ending = reason, ending
                    breaker.tripped.set()
                case None:
                    if not breaker.tripped.is_set():
                        breaker.reason = f"{process.name} ended in the middle of a stage: {await process.end_of_life()}"
                        breaker.ending = EndReason.LOCAL
                        breaker.tripped.set()
                    return None


def _part(order: WindowOrder, i: int, n: int) -> WindowOrder:
    """Process `i`'s share of the places in flight, of the cap, and of what comes after the places."""
    in_flight = None if order.concurrency is None else whole_shares(order.concurrency, n)[i]
    cap = None if order.max_in_flight is None else whole_shares(order.max_in_flight, n)[i]
    return replace(order, concurrency=in_flight, max_in_flight=cap, more=order.more[i::n])


class PooledProgress(StageProgress):
    """What all processes of a window have done so far."""

    def __init__(self, stage: Stage, left: Left | None, n_processes: int, log: Any) -> None:
        super().__init__(stage, left, Tally(), log)
        self._news: list[News | None] = [None] * n_processes

    def take(self, i: int, news: News) -> None:
        """The newest of process `i`."""
        self._news[i] = news
        newest, tally = self._known, self._tally
        self.done, self.failed = sum(one.done for one in newest), sum(one.failed for one in newest)
        self.output_tokens = sum(one.output_tokens for one in newest)
        self.errors.clear()
        for one in newest:
            self.errors.update(one.errors)
        self.heard(news.ttft_ms)
        for name in ("n_sent", "n_measured", "n_late", "n_held", "in_flight"):
            setattr(tally, name, sum(getattr(one.tally, name) for one in newest))

    def pooled(self, *, is_open: bool) -> Tally:
        """The window's: from the first measured request of any process to the last due one of any (open loop), or to
        the first place of any that stayed empty (closed)."""
        tally, parts = self._tally, [one.tally for one in self._known]
        begun = [part.measured_from_ns for part in parts if part.measured_from_ns is not None]
        until = [part.measured_to_ns for part in parts if part.measured_to_ns is not None]
        tally.measured_from_ns = min(begun, default=None)
        tally.measured_to_ns = (max if is_open else min)(until, default=None)
        tally.late_max_ms = max((part.late_max_ms for part in parts), default=0.0)
        tally.cut = any(part.cut for part in parts)
        return tally

    def client_health(self) -> Json:
        """Health of all: `pooled_health`."""
        return pooled_health([None if one is None else one.client for one in self._news])

    @property
    def _known(self) -> list[News]:
        return [one for one in self._news if one is not None]


def _peak(reader: Reader, run_id: str, session_id: str) -> int:
    """Most requests of all processes in flight at once, from their stored instants."""
    spans = np.array(reader.rows(_SPANS, run_id, session_id), dtype=np.float64).reshape(-1, 2)
    starts, ends = np.sort(spans[:, 0]), np.sort(spans[:, 1])
    if not len(starts):
        return 0
    return int((np.arange(1, len(starts) + 1) - np.searchsorted(ends, starts, side="right")).max())

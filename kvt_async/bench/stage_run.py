"""One stage in one session: prompts made, schedule stored, requests sent, samples and window written."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import orjson

from kvt_async.bench.bench_progress import StageProgress
from kvt_async.bench.conversations.conversation_schedule import (
    ConversationSchedule,
    conversation_places,
    further_conversations,
    stored_replies,
)
from kvt_async.bench.conversations.conversation_workload import conversations_of
from kvt_async.bench.loop_places import LoopPlaces
from kvt_async.bench.prepared_requests import BLOCK, BodyFile, Maker, PlannedRequest
from kvt_async.bench.request_stream import RequestStream
from kvt_async.bench.scrape import Sampler, metrics_urls
from kvt_async.bench.sending_window import Arrival, Tally, Window
from kvt_async.bench.stage import Left, Stage
from kvt_async.bench.workload import Workload
from kvt_async.clock import utc_now
from kvt_async.contract.bench_settings import MOST_REQUESTS, Bench
from kvt_async.contract.vocabulary import EndReason
from kvt_async.records import Json
from kvt_async.session.client_health import keep_health
from kvt_async.session.live_feed import feed
from kvt_async.session.servers import beside, first_error
from kvt_async.session.session import ServerSession
from kvt_async.store.columns import Row, rows_of_give_ups
from kvt_async.store.reader import Reader

LEAD_NS = 50_000_000  # open loop: between the window's row on disk and the first instant of its schedule


async def run_stage(
    server: ServerSession,
    workload: Workload,
    stage: Stage,
    left: Left | None,
    head: Sequence[Row] = (),
    shown: Json | None = None,
) -> Json:
    """Send what is left of a stage; everything is committed when this returns. `left` None: its first window.

    `head`: rows to be stored together with the schedule: a stage is there with all of its requests, or not at all.

    The row of `bench_window_ends` is returned, not written: whether a stop rule held is known only from the stored
    facts.
    """
    bench, store = server.settings.bench, server.store
    async with AsyncExitStack() as making:
        maker = Maker(server.settings, workload, stage, making.enter_context(BodyFile()), shown)
        places = _places(bench, stage, left)
        if workload.streams:
            stream = await making.enter_async_context(RequestStream(maker, left, server.session_id))
            await store.save(head)
            arrivals = stream.arrivals()
        else:
            schedule = await _schedule(maker, left, server.reader, places)
            await store.save([*head, *schedule.rows(server.session_id)])
            arrivals = schedule.arrivals(server.session_id)
        duration_s = stage.seconds_left(left)
        sampler = stage_sampler(server, stage)
        await sampler.take("before")
        tally = Tally()
        progress = StageProgress(stage, left, tally, server.log)
        progress.server_now = sampler.now
        start_ns = await open_window(server, stage, left, LEAD_NS if stage.load.is_open else 0)
        window, health = Window(server, progress, tally), progress.health
        health.start()
        server.interrupts.draining = True
        try:
            async with AsyncExitStack() as stack:
                shown_live = progress.show(server.options.shows_nothing)
                await stack.enter_async_context(
                    beside(health.watch(), shown_live, sampler.during(), feed(server, progress))
                )
                stack.push_async_callback(arrivals.aclose)
                if stage.load.is_open:
                    await window.open_loop(arrivals, start_ns, stage.max_in_flight)
                else:
                    in_flight = stage.load.concurrency or 1
                    most_s = bench.max_s if bench.requests == "auto" and duration_s is None else None
                    await window.closed_loop(arrivals, in_flight, duration_s, most_s, places)
        except BaseExceptionGroup as errors:
            raise first_error(errors) from errors
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not server.interrupts.hit or task is None:
                raise
            task.uncancel()  # Ctrl-C: what has ended is kept, and the window gets its end
        finally:
            drained_ns = time.perf_counter_ns()
            server.interrupts.draining = False
            health.stop()
        if settled := await server.sender.witness.last_word():
            await store.save(rows_of_give_ups(settled, utc_now()))
        await store.flush()
        await sampler.take("after")
        client = health.row()
        counts = {
            "run_id": stage.run.run_id,
            "done": progress.done,
            "failed": progress.failed,
            "errors": dict(progress.errors),
        }
        await keep_health(server, client, counts, stage=stage.name)
        return end_row(server, stage, tally, drained_ns, client)


class Schedule(Protocol):
    """What one window of a stage sends."""

    @property
    def n(self) -> int:
        """How many requests are planned."""
        ...

    def rows(self, session_id: str) -> list[Row]:
        """The rows of requests that are not stored yet."""
        ...

    def arrivals(self, session_id: str) -> AsyncGenerator[Arrival, None]: ...


@dataclass(frozen=True, slots=True)
class RequestSchedule:
    """Of requests that have nothing to do with each other: the warm-up, and the measured ones that are left."""

    maker: Maker
    stage: Stage
    left: Left | None  # of a stage that has a window already
    warm_up: list[PlannedRequest]
    measured: list[PlannedRequest]
    first_free: int  # the first place of the workload that nobody has
    duration_s: float | None  # a closed loop by duration goes on for so long; None: it ends with its requests
    places: LoopPlaces | None  # of a closed loop whose places come and go, or end its warm-up

    @property
    def n(self) -> int:
        return len(self.planned)

    @property
    def planned(self) -> list[PlannedRequest]:
        """All of them, in the order of sending."""
        return [*self.warm_up, *self.measured]

    @property
    def offsets_ns(self) -> list[int | None]:
        """When each of them is due, from the window's start; None in closed loop."""
        return self.stage.offsets_ns(len(self.warm_up) + len(self.measured), self.left)

    def rows(self, session_id: str) -> list[Row]:
        """A resumed stage has those of its measured requests already."""
        now = utc_now()
        rows: list[Row] = []
        for planned, offset in zip(self.planned, self.offsets_ns, strict=True):
            if self.left is None or not planned.measured:
                rows += self.maker.rows(planned, offset, session_id, now)
        return rows

    async def arrivals(self, session_id: str) -> AsyncGenerator[Arrival, None]:
        """Requests in the order of the schedule. A warm-up by places goes on until every one has been used; a closed
        loop by duration as long as it is asked."""
        attempts, free, places = self.left.attempts if self.left else {}, self.first_free, self.places
        planned = zip(self.planned, self.offsets_ns, strict=True)
        for request, offset in islice(planned, len(self.warm_up)):
            yield Arrival(self.maker.request(request, attempts.get(request.seq, 0)), False, offset)
        if places is not None and not places.is_warm:
            more = further_arrivals(self.maker, range(free, MOST_REQUESTS), session_id, measured=False)
            async with aclosing(more) as warming:
                while not places.is_warm:
                    yield await anext(warming)
                    free += 1
        for request, offset in planned:
            yield Arrival(self.maker.request(request, attempts.get(request.seq, 0)), True, offset)
        if self.duration_s is None:
            return
        async with aclosing(further_arrivals(self.maker, range(free, MOST_REQUESTS), session_id)) as further:
            async for arrival in further:
                yield arrival


async def _schedule(maker: Maker, left: Left | None, reader: Reader, loop_places: LoopPlaces | None) -> Schedule:
    stage = maker.stage
    if (talks := conversations_of(maker.workload)) is not None:
        plan = talks.plan(stage.repeat)
        places = conversation_places(stage, plan, left)
        replies = stored_replies(reader, stage.run.run_id, places, talks) if left is not None else {}
        further = further_conversations(plan, stage, left, places)
        schedule = ConversationSchedule(maker, talks, places, replies, further)
        await asyncio.to_thread(schedule.prepare)
        return schedule
    seqs, free = stage.numbers(left)
    measured = await asyncio.to_thread(maker.plan, seqs, measured=True)
    warm_up = await asyncio.to_thread(maker.plan, range(free, free + stage.n_warm_up), measured=False)
    return RequestSchedule(
        maker=maker,
        stage=stage,
        left=left,
        warm_up=warm_up,
        measured=measured,
        first_free=free + stage.n_warm_up,
        duration_s=stage.seconds_left(left),
        places=loop_places,
    )


def stage_sampler(server: ServerSession, stage: Stage) -> Sampler:
    """Reads the metrics pages of a stage's servers into the store."""
    bench = server.settings.bench
    return Sampler(
        get_text=server.sender.pages.get_text,
        urls=metrics_urls(stage.run.level.endpoints, bench.metrics_url),
        every_s=bench.scrape_interval_s,
        session_id=server.session_id,
        run_id=stage.run.run_id,
        save=lambda row: server.store.insert("server_samples", row),
    )


async def open_window(server: ServerSession, stage: Stage, left: Left | None, lead_ns: int) -> int:
    """Write the window's row; return its start, `lead_ns` from now: a closed loop, which has no schedule to wait for,
    begins at once."""
    start_ns = time.perf_counter_ns() + lead_ns
    await server.store.insert(
        "bench_windows",
        {
            "run_id": stage.run.run_id,
            "session_id": server.session_id,
            "window_idx": left.n_windows if left else 0,
            "start_ns": start_ns,
            "started_at": utc_now(),
            "n_planned": len(stage.numbers(left)[0]) if stage.n_measured is not None else None,
            "duration_s": stage.seconds_left(left),
        },
    )
    return start_ns


def _places(bench: Bench, stage: Stage, left: Left | None) -> LoopPlaces | None:
    """Where the places of a closed loop come and go, or end its warm-up; None: they are all there all the time."""
    load, times = stage.load, bench.warm_up.places
    if load.is_open or (load.shape is None and times is None):
        return None
    passed_s = 0.0 if load.shape is None else load.shape.seconds - (stage.seconds_left(left) or 0.0)
    return LoopPlaces(load.concurrency or 1, load.shape, passed_s, None if times is None else math.ceil(times))


async def further_arrivals(
    maker: Maker, seqs: range, session_id: str, *, measured: bool = True
) -> AsyncGenerator[Arrival, None]:
    """Requests with these numbers, planned as they are asked for; each brings its rows."""
    size = 2 * BLOCK
    ahead = asyncio.create_task(asyncio.to_thread(maker.plan, seqs[:BLOCK], measured=measured))
    seqs = seqs[BLOCK:]
    try:
        while True:
            block = await ahead
            ahead = asyncio.create_task(asyncio.to_thread(maker.plan, seqs[:size], measured=measured))
            seqs = seqs[size:]
            for planned in block:
                yield Arrival(
                    maker.request(planned), measured, None, tuple(maker.rows(planned, None, session_id, utc_now()))
                )
    finally:
        await asyncio.wait([ahead])  # a thread can't be cancelled; its bodies' file must outlive it


def end_row(server: ServerSession, stage: Stage, tally: Tally, drained_ns: int, client: Json) -> Json:
    breaker, reason = server.sender.breaker, EndReason.FINISHED
    if breaker.tripped.is_set():
        reason = EndReason.LOCAL if breaker.ending == EndReason.LOCAL else EndReason.SERVER
    if server.interrupts.hit:
        reason = EndReason.INTERRUPTED
    return {
        "run_id": stage.run.run_id,
        "session_id": server.session_id,
        "measured_from_ns": tally.measured_from_ns,
        "measured_to_ns": tally.measured_to_ns,
        "drained_ns": drained_ns,
        "n_sent": tally.n_sent,
        "n_measured": tally.n_measured,
        "n_late": tally.n_late,
        "late_max_ms": tally.late_max_ms,
        "n_held": tally.n_held,
        "peak_in_flight": tally.peak_in_flight,
        "reason": EndReason.STOP_RULE if tally.cut and reason == EndReason.FINISHED else reason,
        "stop_rule": f"bench.max_s ({server.settings.bench.max_s:g} s) was over" if tally.cut else None,
        "client_json": orjson.dumps(client).decode(),
        "ended_at": utc_now(),
    }

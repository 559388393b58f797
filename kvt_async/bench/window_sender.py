"""A sender process of a bench: sends its part of each window, on the clock that all of them share.

Started by bench/window_senders.py, which says what to send and when; what it stores lies in a database of its own until
the window is over. It ends when its parent does: what is in flight then is broken off, as if it had been killed too.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing, closing
from dataclasses import dataclass, field

from kvt_async.bench.bench_progress import StageProgress
from kvt_async.bench.conversations.conversation_schedule import ConversationSchedule
from kvt_async.bench.conversations.conversation_workload import conversations_of
from kvt_async.bench.load_sender import load_sender
from kvt_async.bench.prepared_requests import BodyFile, Maker, PlannedRequest
from kvt_async.bench.request_stream import RequestStream
from kvt_async.bench.sending_window import Arrival, Tally, Window
from kvt_async.bench.stage_run import Schedule, further_arrivals
from kvt_async.bench.timer import Timer
from kvt_async.bench.window_messages import Ended, Go, News, Planned, WindowOrder
from kvt_async.bench.workload import Workload, load_workload
from kvt_async.clock import utc_now
from kvt_async.contract.load import known_secrets
from kvt_async.contract.paths import RunPaths
from kvt_async.engine.send.sender import Sender
from kvt_async.senders.notices import Enlistment, Halt, Tripped
from kvt_async.senders.sender_program import run_sender, secrets_of
from kvt_async.senders.wire import Wire
from kvt_async.session.interrupts import Interrupts
from kvt_async.session.invocation import CommandOptions
from kvt_async.session.run_log import RunLog
from kvt_async.session.servers import beside, first_error
from kvt_async.session.session import ServerSession
from kvt_async.store.columns import Row, rows_of_give_ups
from kvt_async.store.lock import hold
from kvt_async.store.reader import Reader
from kvt_async.store.writer import Writer

NEWS_EVERY_S = 0.5
NEWEST_TTFTS = 256  # of one piece of news


async def work(wire: Wire, me: Enlistment) -> None:
    """Send window after window until the parent is gone or wants no more."""
    workload = await asyncio.to_thread(load_workload, me.settings)
    with RunLog(me.log, secrets_of(me.settings)) as log:
        async with load_sender(me.settings, me.endpoints) as sender:
            window = WindowPart(wire, me, workload, sender, log)
            while isinstance(order := await wire.receive(), WindowOrder):
                with hold(me.db, me.command, utc_now()):
                    ended = await window.send(order)
                if ended is not None:
                    wire.send(ended)


@dataclass(slots=True)
class WindowPart:
    """Sends its part of one window after the other, all over the connections of one Sender."""

    wire: Wire
    me: Enlistment
    workload: Workload
    sender: Sender
    log: RunLog
    _ttfts_told: int = 0
    _broken_off: bool = False
    _sending: "asyncio.Task[None] | None" = None
    _interrupts: Interrupts = field(default_factory=lambda: Interrupts(0, lambda _: None))

    async def send(self, order: WindowOrder) -> Ended | None:
        """None: the window never began. Everything of it is committed when this returns."""
        settings, stage = self.me.settings, order.stage
        async with AsyncExitStack() as making:
            maker = Maker(settings, self.workload, stage, making.enter_context(BodyFile()), order.shown)
            stream: RequestStream | None = None
            if (part := order.streamed) is not None:
                stream = RequestStream(maker, part.left, self.me.session_id, part.nth, part.of)
                await making.enter_async_context(stream)
            schedule = await asyncio.to_thread(_prepared, maker, order)
            rows = schedule.rows(self.me.session_id)
            secrets = known_secrets(settings)
            async with Writer(self.me.db, settings.db.flush_interval_s, secrets=secrets, is_scratch=True) as store:
                self.wire.send(Planned(rows))
                if not isinstance(go := await self.wire.receive(), Go):
                    return None
                with closing(Reader(self.me.db)) as reader:
                    server = ServerSession(
                        settings=settings,
                        options=CommandOptions(quiet=True),
                        paths=RunPaths(self.me.db.parent, self.me.db),
                        reader=reader,
                        say=lambda _: None,
                        log=self.log,
                        store=store,
                        session_id=self.me.session_id,
                        interrupts=self._interrupts,
                        sender=self.sender,
                        runs=(stage.run,),
                    )
                    arrivals = schedule.arrivals(server.session_id) if stream is None else stream.arrivals()
                    return await self._window(order, server, arrivals, go)

    async def _window(
        self, order: WindowOrder, server: ServerSession, arrivals: AsyncGenerator[Arrival, None], go: Go
    ) -> Ended:
        tally = Tally()
        progress = StageProgress(order.stage, None, tally, self.log)
        window, health, self._ttfts_told = Window(server, progress, tally), progress.health, 0
        health.start()
        try:
            async with (
                beside(health.watch(), self._listen(server), self._tell(progress, tally), self._watch_breaker(server)),
                aclosing(arrivals),
            ):
                self._sending = asyncio.create_task(_sent(window, order, server, arrivals, go.start_ns))
                try:
                    await self._sending
                except asyncio.CancelledError:
                    if not self._broken_off:
                        raise
        except BaseExceptionGroup as errors:
            raise first_error(errors) from errors
        finally:
            drained_ns = time.perf_counter_ns()
            health.stop()
        if settled := await self.sender.witness.last_word():
            await server.store.save(rows_of_give_ups(settled, utc_now()))
        await server.store.flush()
        if self.sender.breaker.tripped.is_set():
            self.wire.send(Tripped(self.sender.breaker.reason, self.sender.breaker.ending))
        return Ended(self._news(progress, tally), drained_ns)

    async def _listen(self, server: ServerSession) -> None:
        """What the parent says while the window lasts; without a parent nothing goes on."""
        while True:
            message = await self.wire.receive()
            self._interrupts.hit = True
            server.stop.set()
            self.sender.halt()
            if message is None or (isinstance(message, Halt) and message.at_once):
                self._broken_off = True
                assert self._sending is not None
                self._sending.cancel()
                return

    async def _tell(self, progress: StageProgress, tally: Tally) -> None:
        while True:
            await asyncio.sleep(NEWS_EVERY_S)
            self.wire.send(self._news(progress, tally))

    async def _watch_breaker(self, server: ServerSession) -> None:
        breaker = self.sender.breaker
        await breaker.tripped.wait()
        server.stop.set()
        self.wire.send(Tripped(breaker.reason, breaker.ending))

    def _news(self, progress: StageProgress, tally: Tally) -> News:
        health = progress.health
        n = min(health.stamped - self._ttfts_told, NEWEST_TTFTS, len(health.ttft_ms))
        self._ttfts_told = health.stamped
        newest = list(health.ttft_ms)[-n:] if n else []
        return News(
            tally, progress.done, progress.failed, progress.output_tokens, dict(progress.errors), newest, health.row()
        )


@dataclass(frozen=True, slots=True)
class PartSchedule:
    """A process's part of a window whose requests have nothing to do with each other; see stage_run.Schedule."""

    maker: Maker
    order: WindowOrder
    planned: Sequence[PlannedRequest]

    @property
    def n(self) -> int:
        return len(self.planned)

    def rows(self, session_id: str) -> list[Row]:
        now, rows = utc_now(), list[Row]()
        for place, request in zip(self.order.places, self.planned, strict=True):
            if not place.stored:
                rows += self.maker.rows(request, place.offset_ns, session_id, now)
        return rows

    async def arrivals(self, session_id: str) -> AsyncGenerator[Arrival, None]:
        for place, request in zip(self.order.places, self.planned, strict=True):
            yield Arrival(self.maker.request(request, place.attempts_before), place.measured, place.offset_ns)
        if self.order.duration_s is not None:
            async with aclosing(further_arrivals(self.maker, self.order.more, session_id)) as further:
                async for arrival in further:
                    yield arrival


def _prepared(maker: Maker, order: WindowOrder) -> Schedule:
    """Everything that can be made before the window begins; warm-up comes first in it."""
    if (talks := conversations_of(maker.workload)) is not None:
        schedule = ConversationSchedule(maker, talks, order.places, order.replies, order.more)
        schedule.prepare()
        return schedule
    warm_up = maker.plan([place.seq for place in order.places if not place.measured], measured=False)
    measured = maker.plan([place.seq for place in order.places if place.measured], measured=True)
    return PartSchedule(maker, order, [*warm_up, *measured])


async def _sent(
    window: Window, order: WindowOrder, server: ServerSession, arrivals: AsyncGenerator[Arrival, None], start_ns: int
) -> None:
    if order.concurrency is None:
        await window.open_loop(arrivals, start_ns, order.max_in_flight)
        return
    with Timer() as alarm:
        await alarm.until(start_ns)  # all places of all processes begin together
    bench = server.settings.bench
    most_s = bench.max_s if bench.requests == "auto" and order.duration_s is None else None
    await window.closed_loop(arrivals, order.concurrency, order.duration_s, most_s)


if __name__ == "__main__":
    run_sender(work)

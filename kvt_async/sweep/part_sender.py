"""A sender process of a sweep: sends its part of each task, with limits that are its share of the invocation's.

Started by sweep/part_senders.py, which has prepared, met and checked the server. What it stores lies in a database of
its own until the parent takes it over. It ends when its parent does: what is in flight then is broken off, as if it had
been killed too.
"""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from kvt_async.clock import utc_now
from kvt_async.contract.load import known_secrets
from kvt_async.contract.paths import RunPaths
from kvt_async.engine.send.adaptive_concurrency import START
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Json
from kvt_async.senders.notices import Enlistment, Halt, TooMany, Tripped
from kvt_async.senders.sender_program import run_sender, secrets_of
from kvt_async.senders.shares import whole_shares
from kvt_async.senders.wire import Wire
from kvt_async.session.interrupts import Interrupts
from kvt_async.session.invocation import CommandOptions
from kvt_async.session.progress import Progress
from kvt_async.session.run_log import RunLog
from kvt_async.session.servers import beside
from kvt_async.session.session import ServerSession
from kvt_async.store.lock import hold
from kvt_async.store.reader import Reader
from kvt_async.store.writer import Writer
from kvt_async.sweep.part_messages import Announced, PartEnded, PartNews, PartOrder
from kvt_async.sweep.places import Places
from kvt_async.sweep.plan import pending
from kvt_async.sweep.request_builder import RequestBuilder
from kvt_async.sweep.sending import send
from kvt_async.sweep.warm_up import warm_up

NEWS_EVERY_S = 0.5
NEWEST_TTFTS = 256  # of one piece of news


async def work(wire: Wire, me: Enlistment) -> None:
    """Send part after part until the parent is gone or wants no more."""
    with RunLog(me.log, secrets_of(me.settings)) as log:
        async with Sender(me.settings, endpoints=me.endpoints) as sender:
            sender.dispatcher.slots.begin_with(whole_shares(START, me.n)[me.i])
            part = SentPart(wire, me, sender, log)
            while isinstance(order := await wire.receive(), PartOrder | TooMany):
                if isinstance(order, PartOrder):
                    with hold(me.db, me.command, utc_now()):
                        ended = await part.send(order)
                    wire.send(ended)


@dataclass(slots=True)
class SentPart:
    """Sends one part after the other, all over the connections and within the limits of one Sender."""

    wire: Wire
    me: Enlistment
    sender: Sender
    log: RunLog
    _interrupts: Interrupts = field(default_factory=lambda: Interrupts(0, lambda _: None))
    _ttfts_told: int = 0
    _is_broken_off: bool = False
    _sending: "asyncio.Task[list[Json]] | None" = None

    async def send(self, order: PartOrder) -> PartEnded:
        """Everything of it is committed when this returns."""
        me, settings = self.me, order.settings
        limits = me.settings.limits
        places = Places(limits.concurrency)
        slots = self.sender.dispatcher.slots
        slots.on_cut = lambda: self.wire.send(TooMany())
        writer = Writer(
            me.db,
            settings.db.flush_interval_s,
            urgent=places.are_wanted,
            batch=max(1, places.n // 2),
            secrets=known_secrets(settings),
            is_scratch=True,
        )
        async with writer as store:
            own = [me.db] if settings.workload.history == "own" else []  # its answers make prompts
            with closing(Reader(me.group_db, beside=own)) as reader:
                server = ServerSession(
                    settings=settings.model_copy(update={"limits": limits}),
                    options=CommandOptions(quiet=True),
                    paths=RunPaths(me.group_db.parent, me.group_db),
                    reader=reader,
                    say=self._say,
                    log=self.log,
                    store=store,
                    session_id=me.session_id,
                    interrupts=self._interrupts,
                    sender=self.sender,
                    runs=order.runs,
                )
                progress, self._ttfts_told = Progress(server, pending(order.done)), 0
                probes: list[Json] = []
                async with beside(self._listen(), self._tell(progress)):
                    self._sending = asyncio.create_task(self._sent(order, server, places, progress))
                    try:
                        probes = await self._sending
                    except asyncio.CancelledError:
                        if not self._is_broken_off:
                            raise
        if (breaker := self.sender.breaker).tripped.is_set():
            self.wire.send(Tripped(breaker.reason, breaker.ending))
        return PartEnded(self._news(progress), probes)

    async def _sent(self, order: PartOrder, server: ServerSession, places: Places, progress: Progress) -> list[Json]:
        """Rows of the warm-up, once all is sent."""
        builder = RequestBuilder.of_dataset(server.settings, server.reader, order.dataset_id)
        builder, probes = replace(builder, shown=order.shown), []
        if order.warm_up:
            probes.append(await warm_up(server, builder, order.warm_up))
        await send(server, builder, places, order.done, progress)
        return probes

    async def _listen(self) -> None:
        """What the parent says meanwhile; without a parent nothing goes on."""
        while True:
            message = await self.wire.receive()
            if isinstance(message, TooMany):
                slots = self.sender.dispatcher.slots
                tell, slots.on_cut = slots.on_cut, None  # the others know
                slots.refused()
                slots.on_cut = tell
                continue
            self._interrupts.hit = True
            self._interrupts.stop.set()
            if message is None or (isinstance(message, Halt) and message.at_once):
                self._is_broken_off = True
                assert self._sending is not None
                self._sending.cancel()
                return

    async def _tell(self, progress: Progress) -> None:
        while True:
            await asyncio.sleep(NEWS_EVERY_S)
            self.wire.send(self._news(progress))

    def _say(self, line: str) -> None:
        """The parent itself says why all stop."""
        if not line.startswith("stopping: "):
            self.wire.send(Announced(line))

    def _news(self, progress: Progress) -> PartNews:
        return PartNews(
            done=list(progress.done),
            failed=list(progress.failed),
            retries=progress.retries,
            output_tokens=progress.output_tokens,
            in_flight=progress.in_flight,
            failures=dict(progress.failures),
            errors=dict(progress.errors),
            ttft_ms=self._newest(progress),
            client=progress.client_health(),
        )

    def _newest(self, progress: Progress) -> Sequence[float]:
        health = progress.health
        n = min(health.stamped - self._ttfts_told, NEWEST_TTFTS, len(health.ttft_ms))
        self._ttfts_told = health.stamped
        return list(health.ttft_ms)[-n:] if n else []


if __name__ == "__main__":
    run_sender(work)

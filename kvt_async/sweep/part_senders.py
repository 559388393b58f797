"""A sweep sent by several processes (`limits.processes`), as their parent sees it.

    PartOrder -> each sends its part of a task -> PartNews ... -> PartEnded -> facts taken over, health pooled

The parent has prepared, met the server and asked the canary; its session is theirs. Each process has its share of the
invocation's limits, and whole contexts to send, dealt anew each time: with how many processes a sweep is continued
doesn't matter. A process that dies is replaced; what it had in flight is sent again, as after any kill.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from kvt_async.contract.vocabulary import EndReason
from kvt_async.records import Json
from kvt_async.senders.notices import TooMany, Tripped, Unable
from kvt_async.senders.pooled_health import pooled_health
from kvt_async.senders.sender_pool import SenderPool
from kvt_async.session.client_health import keep_health
from kvt_async.session.experiment_rows import marked_stored
from kvt_async.session.live_feed import feed
from kvt_async.session.progress import Progress
from kvt_async.session.servers import watched
from kvt_async.session.session import ServerSession
from kvt_async.sweep.part_messages import Announced, PartEnded, PartNews, PartOrder
from kvt_async.sweep.parts import dealt, units_of, without
from kvt_async.sweep.plan import pending
from kvt_async.sweep.request_builder import RequestBuilder

MODULE = "kvt_async.sweep.part_sender"
MOST_RENEWED = 3  # processes of one server that are replaced; more die of something that won't go away


@asynccontextmanager
async def part_senders(server: ServerSession, n: int) -> AsyncIterator["PartSenders"]:
    """`n` processes that send to this server while the block runs."""
    pool = SenderPool(server, MODULE, n)
    try:
        await pool.start()
        yield PartSenders(server, pool)
    finally:
        await pool.close()


@dataclass(slots=True)
class PartSenders:
    """The sender processes of one server."""

    server: ServerSession
    pool: SenderPool
    _n_renewed: int = 0
    _probes: list[Json] = field(default_factory=list)

    def progress(self, server: ServerSession, done: Sequence[bytearray]) -> "PooledParts":
        """What will be known of all processes while they send what is pending."""
        return PooledParts(server, pending(done), self.pool.n)

    async def send(
        self,
        server: ServerSession,
        builder: RequestBuilder,
        done: Sequence[bytearray],
        progress: "PooledParts",
        warm_up: Sequence[int],
        unsettled: Callable[[], Sequence[bytearray]],
    ) -> None:
        """Send what is pending of a task at the levels of `server`. The facts of all are in the group's database when
        this returns; where it raises, once the processes are closed.

        `warm_up`: entries whose prompts are sent once before; `unsettled`: `done` as it is stored now.
        """
        units = await asyncio.to_thread(units_of, server.reader, builder.dataset_id)
        seed = server.settings.sampling.seed
        masks, part_of = await asyncio.to_thread(dealt, units, done, self.pool.n, seed)
        runs = tuple(marked_stored(server.reader, server.group, server.runs))
        orders = [
            PartOrder(
                settings=builder.settings,
                dataset_id=builder.dataset_id,
                runs=runs,
                done=mask,
                warm_up=[seq for seq in warm_up if part_of[seq] == i],
                shown=dict(builder.shown),
            )
            for i, mask in enumerate(masks)
        ]
        for process, order in zip(self.pool.processes, orders, strict=True):
            process.wire.send(order)
        server.interrupts.draining = True
        show = progress.show(server.options.shows_nothing)
        try:
            async with watched(server, show, feed(server, progress), self.pool.halted_by(server.stop)):
                await self.pool.all_ended(lambda i: self._heard(i, orders[i], progress, unsettled))
        finally:
            server.interrupts.settle()
            await keep_health(server, progress.client_health(), progress.figures())
        began = time.monotonic()
        n = await self.pool.take_over()
        server.log("taken_over", outcomes=n, seconds=time.monotonic() - began)
        for row in self._probes:
            await server.store.insert("probes", row)
        self._probes.clear()

    async def _heard(
        self, i: int, order: PartOrder, progress: "PooledParts", unsettled: Callable[[], Sequence[bytearray]]
    ) -> None:
        """Take what process `i` says until its part is over: by itself, because all stop, or in its successor."""
        server, breaker = self.server, self.server.sender.breaker
        process = self.pool.processes[i]
        while True:
            match await process.wire.receive():
                case PartNews() as news:
                    progress.take(i, news)
                case PartEnded(news, probes):
                    progress.take(i, news)
                    self._probes += probes
                    return
                case Announced(line):
                    server.say(line)
                case Unable(error):
                    raise error
                case TooMany() as word:
                    self.pool.tell(word, but=i)
                case Tripped(reason, ending) if not breaker.tripped.is_set():
                    breaker.reason, breaker.ending = reason, ending
                    breaker.tripped.set()
                case None:
                    end = f"{process.name} ended: {await process.end_of_life()}"
                    if server.stop.is_set() or server.interrupts.hit or breaker.tripped.is_set():
                        return
                    if self._n_renewed == MOST_RENEWED:
                        breaker.reason, breaker.ending = f"{end}, after {MOST_RENEWED} others", EndReason.LOCAL
                        breaker.tripped.set()
                        return
                    self._n_renewed += 1
                    server.say(f"warning: {end}; another one goes on with what it had left")
                    process = await self.pool.renew(i)
                    progress.renew(i)
                    left = without(order.done, await asyncio.to_thread(unsettled))
                    process.wire.send(replace(order, done=left, warm_up=()))


class PooledParts(Progress):
    """What all processes have done of a task so far."""

    def __init__(self, server: ServerSession, totals: Sequence[int], n: int) -> None:
        super().__init__(server, totals)
        self._news: list[PartNews | None] = [None] * n
        self._gone: list[PartNews] = []  # of processes that were replaced

    @property
    def in_flight(self) -> int:
        return sum(one.in_flight for one in self._news if one is not None)

    def client_health(self) -> Json:
        """`pooled_health` of all processes; until one of them has told anything, this process's own."""
        return pooled_health([None if one is None else one.client for one in self._news]) or super().client_health()

    def renew(self, i: int) -> None:
        """Process `i` is another one from now on, which counts from 0."""
        if (news := self._news[i]) is not None:
            self._gone.append(news)
            self._news[i] = None

    def take(self, i: int, news: PartNews) -> None:
        """The newest of process `i`."""
        self._news[i] = news
        known = [*self._gone, *(one for one in self._news if one is not None)]
        self.done = [sum(counts) for counts in zip(*(one.done for one in known), strict=True)]
        self.failed = [sum(counts) for counts in zip(*(one.failed for one in known), strict=True)]
        self.retries = sum(one.retries for one in known)
        self.output_tokens = sum(one.output_tokens for one in known)
        for total, parts in ((self.failures, [o.failures for o in known]), (self.errors, [o.errors for o in known])):
            total.clear()
            for part in parts:
                total.update(part)
        self.heard(news.ttft_ms)

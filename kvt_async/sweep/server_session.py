"""A session with a server: everything between the first byte sent and the last row written."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.formulas.prompt_counts import is_short
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import CanaryVerdict
from kvt_async.engine.request.chat_body import PATHS
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Json, Run
from kvt_async.session import canary as canaries
from kvt_async.session import handshake
from kvt_async.session.canary_prompts import choose, lookups, shortest
from kvt_async.session.client_health import Health
from kvt_async.session.experiment_rows import add_generation, add_runs
from kvt_async.session.interrupts import Interrupts
from kvt_async.session.probes import Asking, patiently, refuse, refuse_all_failed
from kvt_async.session.progress import Progress
from kvt_async.session.run_log import RunLog
from kvt_async.session.server_check import Meeting
from kvt_async.store.columns import Row, rows_of_give_ups
from kvt_async.store.reader import Reader
from kvt_async.store.writer import Writer
from kvt_async.sweep.pending import Group
from kvt_async.sweep.pipeline import WORKERS_PER_PLACE, Pipeline, send_all
from kvt_async.sweep.places import Line
from kvt_async.sweep.plan import pending, steps
from kvt_async.sweep.prompt_check import has_own_tokenizer
from kvt_async.sweep.request_builder import Builder
from kvt_async.sweep.request_source import Feed
from kvt_async.sweep.warm_up import warm_up
from kvt_async.ways.levels import label
from kvt_async.ways.registry import way_of
from kvt_async.ways.way import StartedServer


@dataclass(slots=True)
class Live:
    """What the steps of a session share; `say` prints a line for people, `log` writes one for machines."""

    settings: Settings
    reader: Reader
    store: Writer
    sender: Sender
    interrupts: Interrupts
    session_id: str
    dataset_id: str
    runs: Sequence[Run]
    say: Callable[[str], None]
    log: RunLog
    quiet: bool = False
    launched: StartedServer | None = None  # the server of these levels, where kvt started it
    progress: Progress | None = None  # once sending has begun
    stop: asyncio.Event = field(default_factory=asyncio.Event)  # of this server's requests: the breaker, or Ctrl-C

    @property
    def meeting(self) -> Meeting:
        """Who serves these levels."""
        return Meeting(
            self.settings, self.reader, self.store, self.sender, self.session_id, self.runs, self.say, self.log,
            self.launched,
        )  # fmt: skip

    async def meet_server(self, builder: Builder, generation: int) -> list[Json]:
        """Reach it and learn who it is. Raises ServerError, ConfigError, DriftError."""
        if not await handshake.check_server(self.sender, self.settings, self.meeting.endpoints, self.say):
            await self._ask_once(builder)
        return await self.meeting.who(generation)

    async def register(self, found: Sequence[Json], shown: Mapping[str, Json], group: Group) -> None:
        """Write the generation, the missing rows of `runs`, who serves them and what it says of its budgets: now the
        group owes these levels."""
        await add_generation(self.store, self.reader, self.settings, group.contract, group.generation)
        await add_runs(
            self.store,
            self.settings,
            self.runs,
            dataset_id=self.dataset_id,
            generation=group.generation,
            template_version=group.template_version,
            engine_name=handshake.engine_name(found[0]),
        )
        await self.meeting.keep("start", found, shown)

    async def _ask_once(self, builder: Builder) -> None:
        """A server that lists other models, or none, may take any name, or be none: does it answer the shortest prompt?

        Raises ConfigError when it refuses it, ServerError when it doesn't answer.
        """
        level, entry = self.runs[0].level, shortest(self.reader, self.dataset_id)
        decoding = self.settings.decoding.model_copy(update={"max_tokens": 1})
        body = builder.body(entry, level, self.settings.model_copy(update={"decoding": decoding}))
        path = PATHS[self.settings.prompt.endpoint]
        attempt = await patiently(self.sender.probe, level.endpoints[0], path, body)
        refuse(attempt, label(level), self.settings)
        refuse_all_failed([attempt])

    async def canary(
        self, builder: Builder, *, allow_dead_knob: bool, spread: canaries.Spread | None, sent: Sequence[str]
    ) -> CanaryVerdict | None:
        """The verdict; None: none yet, or the levels are not of the kind it can judge. Raises DeadKnobError.

        `spread`: of launched levels; `sent`: labels of levels that have answers already.
        """
        levels = [run.level for run in self.runs]
        asking = Asking(builder, self.sender.probe, self.store, self.session_id)
        entries = [*choose(self.reader, self.dataset_id), *lookups()]
        if spread is not None:
            found = await spread.visit(self.settings, levels, entries, asking)
        else:
            pair = canaries.pair(levels) if way_of(levels[0].apply_via).canary == "within" else None
            found = await canaries.run_canary(self.settings, pair, entries, asking) if pair is not None else None
        if found is None:
            return None
        self.log("canary", verdict=found.verdict, reason=found.reason)
        cut = next((count for count in found.counts if is_short(*count)), None)
        if cut is not None and has_own_tokenizer(self.reader, self.dataset_id):
            self.say(f"warning: the server read {cut[0]:,} tokens of a prompt of {cut[1]:,}: it cuts prompts")
        if (sentence := canaries.check(found, allow=allow_dead_knob, sent=sent)) is not None:
            self.say(f"warning: {sentence}")
        return found.verdict

    async def warm(self, builder: Builder, done: Sequence[bytearray]) -> None:
        """engine.warm_up: prefill, for the prompts that some level still needs."""
        if self.settings.engine.warm_up != "prefill":
            return
        seqs = [seq for seq in range(len(done[0])) if any(not mask[seq] for mask in done)]
        await warm_up(
            self.settings, [run.level for run in self.runs], seqs, self.dataset_id, builder, self.reader,
            self.sender.probe, self.store, self.session_id, self.interrupts.stop, self.say,
        )  # fmt: skip

    async def open_try_series(self, chosen: Sequence[int] | None) -> None:
        """--retry-failed: a new try series for every failure, or those among `chosen` entries."""
        wanted = None if chosen is None else {str(seq) for seq in chosen}
        for run in self.runs:
            failed = self.reader.failed(run.run_id) if run.stored else []
            rows: list[Row] = [
                ("try_series", (request_id, series_idx + 1, self.session_id, utc_now()))
                for request_id, series_idx in failed
                if wanted is None or request_id.rpartition(":")[2] in wanted
            ]
            if rows:
                await self.store.save(rows)

    async def send(self, builder: Builder, done: Sequence[bytearray]) -> None:
        """Send what is pending. Returns when all is saved, or sending has stopped: see interrupts and the breaker."""
        health = Health()
        progress = self.progress = Progress(
            [run.level for run in self.runs],
            [run.run_id for run in self.runs],
            pending(done),
            health,
            lambda: self.sender.in_flight,
            self.log,
        )
        for endpoint, body in await asyncio.to_thread(self._answered_before, builder):
            self.sender.remember(endpoint, PATHS[self.settings.prompt.endpoint], body)
        feed = Feed(self.reader, self.store, self.dataset_id, self.runs, builder)
        limits = self.settings.limits
        order = steps(done, [run.level.repeat_idx > 0 for run in self.runs], limits.order, self.settings.sampling.seed)
        workers = limits.concurrency * WORKERS_PER_PLACE
        line = Line(limits.concurrency, workers, self.store)
        pipe = Pipeline(self.sender.send, self.store, line, progress, self.stop, self.session_id, utc_now)
        health.start()
        self.interrupts.draining = True
        try:
            async with (
                beside(
                    health.watch(),
                    progress.show(self.quiet),
                    self._watch_breaker(),
                    self._watch_interrupts(),
                    self._watch_launched(),
                ),  # fmt: skip
                aclosing(feed.requests(order)) as requests,
            ):
                await send_all(requests, pipe, workers=workers)
                if settled := await self.sender.last_word():
                    await self.store.save(rows_of_give_ups(settled, utc_now()))
                    progress.settled(settled)
        finally:
            self.interrupts.settle()
            health.stop()
            await self._keep_health(health.row(), progress)

    def _answered_before(self, builder: Builder) -> list[tuple[str, bytes]]:
        """Of each endpoint that earlier sessions had an answer from, a request that was answered."""
        found: dict[str, bytes] = {}
        for run in self.runs:
            if run.stored and not found.keys() >= set(run.level.endpoints):
                sql = "SELECT request_id FROM responses WHERE request_id > ? AND request_id < ? LIMIT 1"
                request_id = self.reader.value(sql, f"{run.run_id}:", f"{run.run_id};")
                if request_id is not None:
                    seq = int(request_id.rpartition(":")[2])
                    body = builder.body(self.reader.entries(self.dataset_id, [seq])[seq], run.level, self.settings)
                    found = dict.fromkeys(run.level.endpoints, body) | found
        return list(found.items())

    async def _keep_health(self, row: Json, progress: Progress) -> None:
        self.log("client", **row)
        detail = {**row.pop("detail"), **progress.figures()}
        fixed = {"session_id": self.session_id, "created_at": utc_now(), "detail_json": orjson.dumps(detail).decode()}
        if self.store.broken is None:
            await self.store.insert("client_health", {**fixed, **row})

    async def _watch_breaker(self) -> None:
        await self.sender.breaker.tripped.wait()
        self.say(f"stopping: {self.sender.breaker.reason}")
        self.stop.set()

    async def _watch_launched(self) -> None:
        """A server that kvt started and that ended is gone for certain: no need to find out by failing requests."""
        if self.launched is not None:
            self.sender.breaker.reason = await self.launched.ended()
            self.sender.breaker.tripped.set()
            self.sender.halt()

    async def _watch_interrupts(self) -> None:
        await self.interrupts.stop.wait()
        self.stop.set()
        self.sender.halt()


@asynccontextmanager
async def beside(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run them while the block runs, then end them. One that fails fails the block at its end."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error

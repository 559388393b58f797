"""One invocation of `kvt run` or `kvt sweep`, once its config has been checked: resume, session, servers, end."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvt_async.contract.load import known_secrets
from kvt_async.contract.vocabulary import EndReason
from kvt_async.data.tasks import tasks_of
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Json, Run
from kvt_async.senders.shares import sender_count_of_limits
from kvt_async.session.canary import Questions, visit
from kvt_async.session.canary_prompts import choose, lookups
from kvt_async.session.experiment_rows import marked_stored
from kvt_async.session.invocation import CommandOptions, Invocation
from kvt_async.session.launched_canary import Spread
from kvt_async.session.progress import Progress
from kvt_async.session.server_check import lacks, part, show_evidence
from kvt_async.session.servers import on_servers
from kvt_async.session.session import ServerSession, Session, run_session
from kvt_async.store.writer import Writer
from kvt_async.sweep import dry_run
from kvt_async.sweep.pending import SweepGroup, SweepTask, unsettled
from kvt_async.sweep.places import Places
from kvt_async.sweep.plan import pending
from kvt_async.sweep.prompt_check import has_own_tokenizer, prompts_read
from kvt_async.sweep.prompt_order import order_note
from kvt_async.sweep.request_builder import RequestBuilder
from kvt_async.sweep.run_summary import RunReport, count, resume_lines
from kvt_async.sweep.sending import meet_server, open_try_series, register, send
from kvt_async.sweep.turn_order import read_conversations
from kvt_async.sweep.warm_up import warm_up
from kvt_async.ways.registry import way_of

if TYPE_CHECKING:
    from kvt_async.sweep.part_senders import PartSenders


@dataclass(frozen=True, slots=True)
class SweepOptions(CommandOptions):
    """Options of `kvt run` and `kvt sweep`."""

    prepare_first: bool = True
    config: str | None = None
    limit: int | None = None
    retry_failed: bool = False


class SweepInvocation:
    """`go` sends what is to be sent and says what came of it; the rest is what its session does on its servers."""

    def __init__(self, invocation: Invocation, options: SweepOptions, group: SweepGroup) -> None:
        self.invocation, self.options, self.group = invocation, options, group
        self.settings, self.reader, self.say = invocation.settings, invocation.reader, invocation.say
        self.report = RunReport(invocation.group, group.generation, str(invocation.paths.db))
        self.report.shard = str(options.shard) if options.shard else None
        self.report.notes = list(group.notes)
        for note in () if options.dry_run else group.notes:
            self.say(f"note: {note}")
        self._done: dict[str, bytearray] = {}  # by run: 1 for each answer of which nothing is to be sent
        self._planned: dict[str, int] = {}  # by run: answers in this plan
        self._read(group.runs)
        self._spread: Spread | None = None
        self._places = Places(self.settings.limits.concurrency)
        self.processes = sender_count_of_limits(self.settings)

    async def go(self) -> RunReport:
        report, runs = self.report, self.group.runs
        if self.options.dry_run:
            plan = dry_run.estimate(self.invocation, self.group, self._done, self._planned)
            report.plan = {**plan, "notes": report.notes}
            return report
        self._count()
        todo = sum(pending(self._pending(runs))) + self._tried_again
        killed = self.reader.killed_sessions(self.invocation.group)
        for line in resume_lines(
            report.responses, report.failures, todo, killed, retry_failed=self.options.retry_failed
        ):
            self.say(line)
        if todo == 0:
            self.say("nothing to send")
            report.reason = self._finished()
            return report
        settings = self.settings
        seed = settings.sampling.seed if settings.limits.order == "interleaved" else None
        writer = Writer(
            self.invocation.paths.db,
            settings.db.flush_interval_s,
            urgent=self._places.are_wanted,
            batch=max(1, self._places.n // 2),  # while one half is saved the other is under way
            secrets=known_secrets(settings),
        )
        try:
            notes = tasks_of(settings).notes
            await run_session(self.invocation, writer, report, self._on_servers, order_seed=seed, notes=notes)
        finally:
            self._count()
        return report

    async def _on_servers(self, session: Session) -> EndReason:
        """The session's reason to end."""
        runs, way = self.group.runs, way_of(self.settings.kv.apply.via)
        servers = way.groups(self.settings, runs)
        if way.canary == "across" and any(0 in self._done[run.run_id] for run in runs if not run.level.serves_full):
            levels = [run.level for run in self.group.tasks[0].runs]
            self._spread = Spread.over(self.invocation, self.group.generation, levels)
        if self._spread is not None:
            servers = self._spread.early(servers)
        reason = await on_servers(session, servers, self)
        return self._finished() if reason == EndReason.FINISHED else reason

    def owes(self, runs: Sequence[Run]) -> bool:
        """Whether requests are pending, failures are tried again, or the canary has to ask this server."""
        asks = self._spread is not None and self._spread.needs([run.level for run in runs])
        return asks or sum(pending(self._pending(runs))) + self._tried_again > 0

    def sender(self, endpoints: Sequence[str]) -> Sender:
        return Sender(self.settings, endpoints=endpoints)

    async def restarted(self, session: Session, runs: Sequence[Run]) -> tuple[Session, Sequence[Run]]:
        """Go on in the same session; what was saved before the server died is not sent again."""
        runs = marked_stored(self.reader, self.invocation.group, runs)
        self._read(runs)
        return session, runs

    async def serve(self, server: ServerSession) -> EndReason:
        """Task after task, each at every level that this server serves, so that a prefill serves its levels."""
        group, report = self.group, self.report
        parts = [
            (task, replace(server, runs=tuple(run for run in server.runs if run.dataset_id == task.dataset_id)))
            for task in group.tasks
        ]
        first, builder = group.tasks[0], self._builder(group.tasks[0])
        identities = await meet_server(server, builder, group.generation)
        evidence = await show_evidence(server)
        if self.options.retry_failed:
            for task, part_of_server in parts:
                await open_try_series(part_of_server, task, self.options.limit)
            self._read(server.runs)
        if self._spread is not None:
            self._count()
        entries = [*choose(self.reader, first.dataset_id), *lookups()]
        questions = Questions(builder, entries, are_counted=has_own_tokenizer(self.reader, first.dataset_id))
        report.canary = await visit(server, self._spread, questions, report.answered_levels) or report.canary
        await register(server, group, identities, evidence)
        async with self._senders(server) as senders:
            for task, part_of_server in parts:
                self._say_order(task, part_of_server, identities)
                if part_of_server.runs and server.ending == EndReason.FINISHED:
                    await self._send(part_of_server, replace(self._builder(task), shown=evidence), senders)
        for sentence in (*lacks(server), *await part(server, identities, evidence)):
            report.notes.append(sentence)
            self.say(f"warning: {sentence}")
        if server.ending == EndReason.FINISHED:
            self._count()
        return server.ending

    def _say_order(self, task: SweepTask, server: ServerSession, identities: Mapping[str, Json]) -> None:
        """Say, once, where the order of requests makes the server's prefix cache useless."""
        sql = "SELECT token_len FROM manifest_entries WHERE dataset_id = ? ORDER BY seq"
        lengths = [row[0] for row in self.reader.rows(sql, task.dataset_id)]
        note = order_note(task.settings, server.runs, self._pending(server.runs), lengths, identities.values())
        if note and note not in self.report.notes:
            self.report.notes.append(note)
            self.say(f"note: {note}")

    def _builder(self, task: SweepTask) -> RequestBuilder:
        return RequestBuilder.of_dataset(task.settings, self.reader, task.dataset_id)

    @asynccontextmanager
    async def _senders(self, server: ServerSession) -> "AsyncIterator[PartSenders | None]":
        """The processes that send to this server while the block runs; None: this one does."""
        if self.processes == 1:
            yield None
            return
        from kvt_async.sweep.part_senders import part_senders

        self.say(f"{self.processes} processes send, each with its share of the limits")
        async with part_senders(server, self.processes) as senders:
            yield senders

    async def _send(self, server: ServerSession, builder: RequestBuilder, senders: "PartSenders | None") -> None:
        done, report = self._pending(server.runs), self.report
        if not any(pending(done)):
            return
        owed: list[int] = []
        if self.settings.engine.warm_up == "prefill":
            samples = builder.settings.decoding.samples
            seqs = {place // samples for mask in done for place, is_settled in enumerate(mask) if not is_settled}
            if builder.own_prompts is not None and (talks := read_conversations(self.reader, builder.dataset_id)):
                seqs = {talks.first[seq] for seq in seqs}  # later prompts are made of answers that are not there yet
            owed = sorted(seqs)
        if owed and senders is None:
            await server.store.insert("probes", await warm_up(server, builder, owed))
        progress, began = Progress(server, pending(done)), time.monotonic()
        try:
            if senders is None:
                await send(server, builder, self._places, done, progress)
            else:
                progress = pooled = senders.progress(server, done)
                await senders.send(server, builder, done, pooled, owed, lambda: self._reread(server.runs))
        finally:
            report.elapsed_s += time.monotonic() - began
            report.sent += sum(progress.done) + sum(progress.failed)
            report.retries += progress.retries
            report.client = progress.client_health()

    def _reread(self, runs: Sequence[Run]) -> list[bytearray]:
        """What is settled of these runs now."""
        self._read(marked_stored(self.reader, self.invocation.group, runs))
        return self._pending(runs)

    def _finished(self) -> EndReason:
        """The reason to end of a session that sent all it should: what stands as failed, or was not read, says so."""
        counts = prompts_read(self.reader, self.group.runs, history=self.settings.workload.history)
        self.report.read_short = counts.sentence
        if self.report.read_short:
            self.say(f"warning: {self.report.read_short}")
        return EndReason.FAILURES if self.report.failures or self.report.read_short else EndReason.FINISHED

    def _read(self, runs: Sequence[Run]) -> None:
        """Read what is settled of these runs, and how many answers each has in this plan."""
        for task in self.group.tasks:
            own = [run for run in runs if run.dataset_id == task.dataset_id]
            for run, mask, n in zip(
                own, *unsettled(self.reader, task, own, self.options.limit, self.group.part), strict=True
            ):
                self._done[run.run_id], self._planned[run.run_id] = mask, n

    def _pending(self, runs: Sequence[Run]) -> list[bytearray]:
        return [self._done[run.run_id] for run in runs]

    @property
    def _tried_again(self) -> int:
        return self.report.failures if self.options.retry_failed else 0

    def _count(self) -> None:
        samples = {task.dataset_id: task.samples for task in self.group.tasks}
        count(self.report, self.reader, self.group.runs, self._planned, samples)

"""One invocation of `kvt run` or `kvt sweep`, once its config has been checked: resume, session, server, end."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kvt_async.contract.errors import ServerError
from kvt_async.contract.load import known_secrets
from kvt_async.contract.paths import RunPaths
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import EndReason
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Run
from kvt_async.session import canary as canaries
from kvt_async.session.close import Invoked, run_session
from kvt_async.session.experiment_rows import command_line, open_session
from kvt_async.session.interrupts import Interrupts
from kvt_async.session.run_log import RunLog
from kvt_async.store.reader import Reader
from kvt_async.store.writer import Writer
from kvt_async.sweep import dry_run
from kvt_async.sweep.pending import Group, unsettled
from kvt_async.sweep.plan import pending
from kvt_async.sweep.prompt_check import prompts_read
from kvt_async.sweep.request_builder import Builder
from kvt_async.sweep.run_summary import RunReport, count, resume_lines
from kvt_async.sweep.server_session import Live
from kvt_async.ways.levels import Levels, label
from kvt_async.ways.registry import way_of
from kvt_async.ways.way import StartedServer


@dataclass(frozen=True, slots=True)
class Options(Invoked):
    """Of a sweep."""

    prepare_first: bool = True
    config: str | None = None
    limit: int | None = None
    retry_failed: bool = False


class Invocation:
    """`go` sends what is to be sent and says what came of it."""

    def __init__(
        self, settings: Settings, options: Options, paths: RunPaths, levels: Levels, reader: Reader, group: Group,
        dataset_id: str, say: Callable[[str], None], log: RunLog,
    ) -> None:  # fmt: skip
        self.settings, self.options, self.paths, self.levels = settings, options, paths, levels
        self.reader, self.group, self.dataset_id, self.say, self.log = reader, group, dataset_id, say, log
        self.report = RunReport(settings.experiment.exp_group_id, group.generation, str(paths.db))
        self.report.notes = list(levels.notes)
        for note in () if options.dry_run else levels.notes:
            say(f"note: {note}")

    async def go(self) -> RunReport:
        done, planned = self._plan()
        report, runs = self.report, self.group.runs
        if self.options.dry_run:
            plan = dry_run.estimate(self.reader, self.settings, runs, done, planned, self.dataset_id)
            report.plan = {**plan, "notes": report.notes}
            return report
        count(report, self.reader, runs, planned)
        todo = sum(pending(done))
        again = report.failures if self.options.retry_failed else 0
        killed = self.reader.killed_sessions(self.settings.experiment.exp_group_id)
        for line in resume_lines(
            report.responses, report.failures, todo + again, killed, retry_failed=self.options.retry_failed
        ):
            self.say(line)
        if todo + again == 0:
            self.say("nothing to send")
            report.reason = self._finished()
            return report
        try:
            await self._session(done, planned)
        finally:
            count(report, self.reader, runs, planned)
        return report

    async def _session(self, done: Sequence[bytearray], planned: Sequence[int]) -> None:
        settings, group, report = self.settings, self.group, self.report
        async with Writer(self.paths.db, settings.db.flush_interval_s, secrets=known_secrets(settings)) as store:
            seed = settings.sampling.seed if settings.limits.order == "interleaved" else None
            report.session_id = await open_session(store, settings, group.generation, seed)
            self.log("session", session_id=report.session_id, command=command_line(settings))
            work = self._launched if way_of(settings.kv.apply.via).restarts else self._served
            await run_session(
                store, self.log, report, settings.limits.grace_s, self.say,
                lambda interrupts: work(store, interrupts, group.runs, done, planned),
            )  # fmt: skip

    async def _launched(
        self, store: Writer, interrupts: Interrupts, runs: Sequence[Run], done: Sequence[bytearray],
        planned: Sequence[int],
    ) -> EndReason:  # fmt: skip
        """A server for each group of levels, started anew a few times if it dies under them."""
        masks = {run.run_id: mask for run, mask in zip(runs, done, strict=True)}
        pair = canaries.pair([run.level for run in runs])
        spread = self._spread(pair, runs, masks)
        servers = way_of(self.settings.kv.apply.via).groups(self.settings, runs)
        for some in spread.early(servers) if spread is not None else servers:
            todo = [masks[run.run_id] for run in some]
            ask = spread is not None and spread.needs([run.level for run in some])
            if not ask and sum(pending(todo)) + (self.report.failures if self.options.retry_failed else 0) == 0:
                continue
            reason = await self._one_server(store, interrupts, some, todo, planned, spread)
            if reason in (EndReason.SERVER, EndReason.REFUSED, EndReason.LOCAL, EndReason.INTERRUPTED):
                return reason
        return self._finished()

    def _spread(
        self, pair: canaries.Pair | None, runs: Sequence[Run], masks: dict[str, bytearray]
    ) -> canaries.Spread | None:
        """The canary of launched levels; None: nothing for it to judge is still to be sent."""
        if pair is None or not any(0 in masks[run.run_id] for run in runs if not run.level.is_full):
            return None
        group = self.settings.experiment.exp_group_id
        return canaries.Spread(pair, canaries.known_verdict(self.reader, group, self.group.generation, pair.harsh))

    async def _one_server(
        self, store: Writer, interrupts: Interrupts, some: Sequence[Run], todo: Sequence[bytearray],
        planned: Sequence[int], spread: canaries.Spread | None,
    ) -> EndReason:  # fmt: skip
        """The session's reason to end, after a few new starts of a server that died."""
        folder = self.paths.run_dir / "launch"
        way = way_of(self.settings.kv.apply.via)
        for restart in range(way.restarts + 1):
            reason, died = EndReason.SERVER, False
            try:
                async with way.serve(self.settings, some[0].level, folder, self.say) as process:
                    assert process is not None
                    self.log("launched", level=label(some[0].level), restart=restart, log=str(process.log))
                    try:
                        reason = await self._served(store, interrupts, some, todo, planned, process, spread)
                    finally:
                        died = process.died
            except ServerError:
                if not died or restart == way.restarts:
                    raise
            if reason != EndReason.SERVER or restart == way.restarts:
                return reason
            self.say(f"the launched server died; starting it again ({restart + 1} of {way.restarts})")
            some = self._stored(some)
            todo = unsettled(self.reader, some, self.dataset_id, self._limited())[0]
        raise AssertionError("unreachable: the last start returns or raises")

    def _stored(self, runs: Sequence[Run]) -> list[Run]:
        """The same runs, those marked that have their row by now."""
        rows = self.reader.rows("SELECT run_id FROM runs WHERE exp_group_id = ?", self.settings.experiment.exp_group_id)
        there = {row[0] for row in rows}
        return [replace(run, stored=run.run_id in there) for run in runs]

    async def _served(
        self, store: Writer, interrupts: Interrupts, runs: Sequence[Run], done: Sequence[bytearray],
        planned: Sequence[int], launched: StartedServer | None = None, spread: canaries.Spread | None = None,
    ) -> EndReason:  # fmt: skip
        assert self.report.session_id is not None
        async with Sender(self.settings, endpoints=[url for run in runs for url in run.level.endpoints]) as sender:
            live = Live(
                self.settings, self.reader, store, sender, interrupts, self.report.session_id, self.dataset_id,
                runs, self.say, self.log, self.options.quiet or self.options.as_json, launched,
            )  # fmt: skip
            return await self._with_server(live, done, planned, spread)

    async def _with_server(
        self, live: Live, done: Sequence[bytearray], planned: Sequence[int], spread: canaries.Spread | None = None
    ) -> EndReason:
        """The session's reason to end."""
        options, group, report = self.options, self.group, self.report
        builder = Builder.of_dataset(self.settings, self.reader, self.dataset_id)
        start = await live.meet_server(builder, group.generation)
        shown = await live.meeting.evidence()
        builder = replace(builder, shown=shown)
        if options.retry_failed:
            await live.open_try_series(self._limited())
            done, _ = unsettled(self.reader, live.runs, self.dataset_id, self._limited())
        if spread is not None:
            count(report, self.reader, group.runs, planned)
        verdict = await live.canary(
            builder, allow_dead_knob=options.allow_dead_knob, spread=spread, sent=report.answered_levels
        )
        if verdict is not None:
            report.canary = verdict
        await live.register(start, shown, group)
        await live.warm(builder, done)
        began = time.monotonic()
        try:
            await live.send(builder, done)
        finally:
            report.elapsed_s += time.monotonic() - began
            if live.progress is not None:
                report.sent += sum(live.progress.done) + sum(live.progress.failed)
                report.retries += live.progress.retries
                report.client = live.progress.health.row()
        for reason, n in live.sender.room.lacking.items():
            report.notes.append(f"{n:,} times a connection could not be opened: {reason}")
            self.say(f"warning: {report.notes[-1]}")
        for sentence in await live.meeting.part(start, shown):
            self.say(f"warning: {sentence}")
            report.notes.append(sentence)
        if live.interrupts.hit:
            return EndReason.INTERRUPTED
        if live.sender.breaker.tripped.is_set():
            return live.sender.breaker.ending
        count(report, self.reader, group.runs, planned)
        if live.launched is not None:  # more servers may follow
            return EndReason.FAILURES if report.failures else EndReason.FINISHED
        return self._finished()

    def _finished(self) -> EndReason:
        """The reason to end of a session that sent all it should: what stands as failed, or was not read, says so."""
        counts = prompts_read(self.reader, self.dataset_id, self.group.runs)
        self.report.read_short = counts.sentence
        if self.report.read_short:
            self.say(f"warning: {self.report.read_short}")
        return EndReason.FAILURES if self.report.failures or self.report.read_short else EndReason.FINISHED

    def _plan(self) -> tuple[list[bytearray], list[int]]:
        return unsettled(self.reader, self.group.runs, self.dataset_id, self._limited())

    def _limited(self) -> list[int] | None:
        """seqs that --limit leaves; None: all."""
        limit = self.options.limit
        return None if limit is None else self.reader.first_of_each_bin(self.dataset_id, limit)

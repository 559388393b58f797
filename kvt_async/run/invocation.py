"""One invocation of `kvt run` or `kvt sweep`, once its config has been checked: resume, session, server, end."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from kvt_async.contract.errors import KvtError, ServerError
from kvt_async.contract.paths import RunPaths
from kvt_async.contract.settings import Settings
from kvt_async.engine.sender import Sender
from kvt_async.run import dry_run, launch
from kvt_async.run.build import Builder
from kvt_async.run.clock import utc_now
from kvt_async.run.group import Group, unsettled
from kvt_async.run.interrupts import Interrupts
from kvt_async.run.levels import Levels
from kvt_async.run.live import Live
from kvt_async.run.log import RunLog
from kvt_async.run.plan import pending
from kvt_async.run.session import Run, command_line, open_session
from kvt_async.run.summary import RunReport, count, resume_lines
from kvt_async.store.reader import Reader
from kvt_async.store.writer import Writer


@dataclass(frozen=True, slots=True)
class Options:
    """How this invocation goes about it; nothing here is part of the experiment."""

    prepare_first: bool = True
    config: str | None = None
    limit: int | None = None
    retry_failed: bool = False
    force: bool = False
    allow_dead_knob: bool = False
    dry_run: bool = False
    quiet: bool = False
    as_json: bool = False


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
            report.reason = "failures" if report.failures else "finished"
            return report
        try:
            await self._session(done, planned)
        finally:
            count(report, self.reader, runs, planned)
        return report

    async def _session(self, done: Sequence[bytearray], planned: Sequence[int]) -> None:
        settings, group, report = self.settings, self.group, self.report
        async with Writer(self.paths.db, settings.db.flush_interval_s) as store:
            seed = settings.sampling.seed if settings.limits.order == "interleaved" else None
            report.session_id = await open_session(store, settings, group.generation, seed)
            self.log("session", session_id=report.session_id, command=command_line(settings))
            reason, code = "bug", 1
            try:
                with Interrupts(settings.limits.grace_s, self.say) as interrupts:
                    reason = await self._interruptible(store, interrupts, done, planned)
                report.reason = reason
                code = report.exit_code
            except KvtError as error:
                reason, code = ("server" if error.exit_code == ServerError.exit_code else "refused"), error.exit_code
                self.log("error", what=str(error))
                raise
            except Exception as error:
                self.log("bug", what=repr(error))
                raise
            finally:
                end = {"session_id": report.session_id, "ended_at": utc_now(), "exit_code": code, "reason": reason}
                self.log("session_end", **end)
                if store.broken is None:
                    await store.insert("session_ends", end)

    async def _interruptible(
        self, store: Writer, interrupts: Interrupts, done: Sequence[bytearray], planned: Sequence[int]
    ) -> str:
        task = asyncio.current_task()
        assert task is not None
        work = self._launched if self.settings.kv.apply.via == "launch" else self._served
        try:
            return await work(store, interrupts, self.group.runs, done, planned)
        except asyncio.CancelledError:
            if not interrupts.hit:
                raise
            task.uncancel()
            return "interrupted"

    async def _launched(
        self, store: Writer, interrupts: Interrupts, runs: Sequence[Run], done: Sequence[bytearray],
        planned: Sequence[int],
    ) -> str:  # fmt: skip
        """A server for each group of levels, started anew a few times if it dies under them."""
        masks, reason = iter(done), "finished"
        for some in launch.groups(self.settings, runs):
            todo = list(islice(masks, len(some)))
            for restart in range(launch.RESTARTS + 1):
                if sum(pending(todo)) + (self.report.failures if self.options.retry_failed else 0) == 0:
                    break
                folder = self.paths.run_dir / "launch"
                async with launch.launched(self.settings, some[0].level, folder, self.say):
                    log = launch.log_file(folder, some[0].level)
                    reason = await self._served(store, interrupts, some, todo, planned, log)
                if reason != "server" or restart == launch.RESTARTS:
                    break
                self.say(f"the launched server died; starting it again ({restart + 1} of {launch.RESTARTS})")
                some = [replace(run, stored=True) for run in some]  # noqa: PLW2901  # their rows are there now
                todo = unsettled(self.reader, some, self.dataset_id, self._limited())[0]
            if reason in ("server", "interrupted"):
                return reason
        return "failures" if self.report.failures else "finished"

    async def _served(
        self, store: Writer, interrupts: Interrupts, runs: Sequence[Run], done: Sequence[bytearray],
        planned: Sequence[int], launch_log: Path | None = None,
    ) -> str:  # fmt: skip
        assert self.report.session_id is not None
        async with Sender(self.settings, endpoints=[url for run in runs for url in run.level.endpoints]) as sender:
            live = Live(
                self.settings, self.reader, store, sender, interrupts, self.report.session_id, self.dataset_id,
                runs, self.say, self.log, self.options.quiet or self.options.as_json, launch_log,
            )  # fmt: skip
            return await self._with_server(live, done, planned)

    async def _with_server(self, live: Live, done: Sequence[bytearray], planned: Sequence[int]) -> str:
        """The session's reason to end."""
        options, group, report = self.options, self.group, self.report
        builder = Builder.of_dataset(self.settings, self.reader, self.dataset_id)
        start = await live.meet_server(builder)
        builder = replace(builder, shown=await live.server_evidence())
        if options.retry_failed:
            await live.open_try_series(self._limited())
            done, _ = unsettled(self.reader, live.runs, self.dataset_id, self._limited())
        if (verdict := await live.canary(builder, allow_dead_knob=options.allow_dead_knob)) is not None:
            report.canary = verdict
        await live.register(start, group)
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
        await live.part_from_server(start)
        if live.interrupts.hit:
            return "interrupted"
        if live.sender.breaker.tripped.is_set():
            return "server"
        count(report, self.reader, group.runs, planned)
        return "failures" if report.failures else "finished"

    def _plan(self) -> tuple[list[bytearray], list[int]]:
        return unsettled(self.reader, self.group.runs, self.dataset_id, self._limited())

    def _limited(self) -> list[int] | None:
        """seqs that --limit leaves; None: all."""
        limit = self.options.limit
        return None if limit is None else self.reader.first_of_each_bin(self.dataset_id, limit)

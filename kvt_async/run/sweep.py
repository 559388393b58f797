"""`kvt run` and `kvt sweep`: from settings to every level answered, or a clear reason why not.

check -> lock -> prepare -> contract -> session -> canary -> warm-up -> send -> what came of it.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import orjson
from pydantic import SecretStr

from kvt_async.contract.errors import KvtError, MissingPrerequisiteError, ServerError
from kvt_async.contract.load import secret
from kvt_async.contract.paths import RunPaths, manifest_path, run_paths
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.settings import Settings
from kvt_async.engine.kv_body import check_template
from kvt_async.engine.sender import Sender
from kvt_async.records import Json
from kvt_async.run import dry_run, launch
from kvt_async.run.build import Builder
from kvt_async.run.clock import utc_now
from kvt_async.run.group import Group, find_group, into_database, prepared_head, stored_dataset, unsettled
from kvt_async.run.interrupts import Interrupts
from kvt_async.run.levels import Levels, make_levels
from kvt_async.run.live import Live
from kvt_async.run.log import RunLog
from kvt_async.run.plan import check_order, pending
from kvt_async.run.session import Run, command_line, open_session
from kvt_async.run.summary import RunReport, count, resume_lines
from kvt_async.store.lock import hold
from kvt_async.store.reader import Reader
from kvt_async.store.writer import Writer

MIN_SECRET = 6  # characters; a shorter header value hides nothing and would riddle the log with stars


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


def execute(settings: Settings, options: Options) -> int:
    """Run it on a loop of its own, print the answer, return the exit code. Raises KvtError as `run` does."""
    with asyncio.Runner(loop_factory=loop_factory(settings)) as runner:
        report = runner.run(run(settings, options=options))
    if options.as_json:
        answer = report.plan if report.plan is not None else report.as_json()
        sys.stdout.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode() + "\n")
    elif not options.quiet:
        print("\n".join(dry_run.lines(report.plan) if report.plan is not None else report.lines()), flush=True)
    return report.exit_code


def prepare_group(settings: Settings, *, force: bool = False, quiet: bool = False) -> Json:
    """`kvt prepare`: make the manifest and store it in the group's database; return what there is now."""
    paths, say = _paths(settings), _say(quiet)
    with hold(paths.db, command_line(settings), utc_now()):
        head = prepared_head(settings, prepare_first=True, force=force, say=say)
        connect_for_writing(paths.db).close()
        reader = Reader(paths.db)
        try:
            found = find_group(reader, settings, head, (), force=force)
        finally:
            reader.close()
        name = into_database(paths.db, settings, head, found.generation)
    return {
        "dataset_id": name,
        "entries": head.n_entries,
        "bins": head.bins,
        "manifest": str(manifest_path(settings.output.data_dir, head.dataset_id)),
        "manifest_sha256": head.sha256,
        "db": str(paths.db),
    }


async def run(settings: Settings, *, options: Options) -> RunReport:
    """Send every level of the manifest; what is settled already is skipped.

    Raises ConfigError, ContractMismatchError, MissingPrerequisiteError, StoreError before anything is sent;
    DeadKnobError after the canary; ServerError when nobody answers at the start. A server that dies later, Ctrl-C and
    failures are no exceptions: the report says so and carries the exit code.
    """
    check_order(settings)
    levels = make_levels(settings)
    for level in levels.levels:
        check_template(settings.kv.apply, level)
        if settings.kv.apply.via == "launch":
            launch.command_of(settings, level)
    paths, say = _paths(settings), _say(options.quiet or options.as_json)
    if not options.prepare_first and not paths.db.is_file():
        raise MissingPrerequisiteError(
            "this group is not prepared: there is no database",
            where=str(paths.db),
            do="Run `kvt prepare -c CONFIG` first, or `kvt sweep -c CONFIG`, which prepares.",
        )
    key = secret(settings.engine.api_key_env)
    with contextlib.ExitStack() as stack:
        stack.enter_context(hold(paths.db, command_line(settings), utc_now()))
        headers = [SecretStr(value) for value in settings.engine.headers.values() if len(value) >= MIN_SECRET]
        log = stack.enter_context(RunLog(paths.log, [*headers, *([key] if key else [])]))
        head = await asyncio.to_thread(
            prepared_head, settings, prepare_first=options.prepare_first, force=options.force, say=say
        )
        connect_for_writing(paths.db).close()  # makes the schema where there is none
        reader = Reader(paths.db)
        stack.callback(reader.close)
        group = find_group(reader, settings, head, levels.levels, force=options.force)
        if options.prepare_first:
            name = await asyncio.to_thread(into_database, paths.db, settings, head, group.generation)
        else:
            name = stored_dataset(reader, head, group.generation)
        return await _Sweep(settings, options, paths, levels, reader, group, name, say, log).go()


class _Sweep:
    """One invocation, after everything about the config has been checked."""

    def __init__(
        self, settings: Settings, options: Options, paths: RunPaths, levels: Levels, reader: Reader, group: Group,
        dataset_id: str, say: Callable[[str], None], log: RunLog,
    ) -> None:  # fmt: skip
        self.settings, self.options, self.paths, self.levels = settings, options, paths, levels
        self.reader, self.group, self.dataset_id, self.say, self.log = reader, group, dataset_id, say, log
        self.report = RunReport(settings.experiment.exp_group_id, group.generation, str(paths.db))
        self.report.notes = list(levels.notes)
        for note in levels.notes:
            say(f"note: {note}")

    async def go(self) -> RunReport:
        done, planned = self._plan()
        report, runs = self.report, self.group.runs
        if self.options.dry_run:
            report.plan = dry_run.estimate(self.reader, self.settings, runs, done, planned, self.dataset_id)
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
            report.session_id = await open_session(
                store, settings, group.contract, group.generation, new_generation=group.new_generation,
                order_seed=settings.sampling.seed if settings.limits.order == "interleaved" else None,
            )  # fmt: skip
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
                    reason = await self._served(store, interrupts, some, todo, planned)
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
        planned: Sequence[int],
    ) -> str:  # fmt: skip
        assert self.report.session_id is not None
        async with Sender(self.settings, endpoints=[url for run in runs for url in run.level.endpoints]) as sender:
            live = Live(
                self.settings, self.reader, store, sender, interrupts, self.report.session_id, self.dataset_id,
                runs, self.say, self.log, self.options.quiet or self.options.as_json,
            )  # fmt: skip
            return await self._with_server(live, done, planned)

    async def _with_server(self, live: Live, done: Sequence[bytearray], planned: Sequence[int]) -> str:
        """The session's reason to end."""
        options, group, report = self.options, self.group, self.report
        builder = Builder.of_dataset(self.settings, self.reader, self.dataset_id)
        start = await live.meet_server(builder, group.generation, group.template_version)
        if options.retry_failed:
            await live.open_try_series(self._limited())
            done, _ = unsettled(self.reader, live.runs, self.dataset_id, self._limited())
        if (verdict := await live.canary(builder, allow_dead_knob=options.allow_dead_knob)) is not None:
            report.canary = verdict
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


def _paths(settings: Settings) -> RunPaths:
    return run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)


def loop_factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """engine.loop: truth is asyncio's own, whose arrivals can be stamped earliest; volume is uvloop."""
    if settings.engine.loop == "truth":
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _say(quiet: bool) -> Callable[[str], None]:
    if quiet:
        return lambda line: print(line, file=sys.stderr, flush=True) if line.startswith("warning") else None
    return lambda line: print(line, file=sys.stderr, flush=True)

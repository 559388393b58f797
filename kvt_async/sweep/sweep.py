"""`kvt run` and `kvt sweep`: from settings to every level answered, or a clear reason why not.

check -> lock -> prepare -> contract -> session -> canary -> warm-up -> send -> what came of it.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.errors import DriftError, MissingPrerequisiteError
from kvt_async.contract.load import known_secrets
from kvt_async.contract.paths import RunPaths, manifest_path, run_paths
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.settings import Settings
from kvt_async.contract.visible import visible
from kvt_async.data.identity import dataset_id
from kvt_async.engine.transport.local_lacks import check_files
from kvt_async.records import Json
from kvt_async.session import server_evidence
from kvt_async.session.experiment_rows import command_line
from kvt_async.session.run_log import RunLog
from kvt_async.store.lock import hold
from kvt_async.store.reader import Reader
from kvt_async.sweep import dry_run
from kvt_async.sweep.duplicate_levels import distinct
from kvt_async.sweep.pending import Group, find_group, into_database, next_generation, prepared_head, stored_dataset
from kvt_async.sweep.run_summary import RunReport
from kvt_async.sweep.sweep_invocation import Invocation, Options
from kvt_async.ways.levels import Levels, make_levels
from kvt_async.ways.registry import check_level, way_of

__all__ = ["Options", "RunReport", "at_work", "checked_levels", "execute", "loop_factory", "prepare_group", "run"]


def execute(settings: Settings, options: Options) -> int:
    """Run it on a loop of its own, print the answer, return the exit code. Raises KvtError as `run` does."""
    files = [manifest_path(settings.output.data_dir, dataset_id(settings)), _paths(settings).db]
    missing = [file for file in files if not file.is_file()]
    with asyncio.Runner(loop_factory=loop_factory(settings)) as runner:
        report = runner.run(run(settings, options=options))
    if report.plan is not None:
        report.plan["prepared"] = [str(file) for file in missing if file.is_file()]
    if options.as_json:
        answer = report.plan if report.plan is not None else report.as_json()
        sys.stdout.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode() + "\n")
    elif not options.quiet:
        lines = dry_run.lines(report.plan) if report.plan is not None else report.lines()
        print(visible("\n".join(lines)), flush=True)
    return report.exit_code


def prepare_group(settings: Settings, *, force: bool = False, quiet: bool = False) -> Json:
    """`kvt prepare`: make the manifest and store it in the group's database; return what there is now."""
    paths, say = _paths(settings), sayer(quiet)
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
    settings = way_of(settings.kv.apply.via).with_port(settings)
    levels = checked_levels(settings)
    if not options.dry_run:
        check_files(settings.limits.concurrency, "limits.concurrency", "Set it to at most {most}")
    paths, say = _paths(settings), sayer(options.quiet or options.as_json)
    if not options.prepare_first and not paths.db.is_file():
        raise MissingPrerequisiteError(
            "this group is not prepared: there is no database",
            where=str(paths.db),
            do="Run `kvt prepare -c CONFIG` first, or `kvt sweep -c CONFIG`, which prepares.",
        )
    with at_work(settings, paths) as log, contextlib.ExitStack() as stack:
        head = await asyncio.to_thread(
            prepared_head, settings, prepare_first=options.prepare_first, force=options.force, say=say
        )
        connect_for_writing(paths.db).close()  # makes the schema where there is none
        reader = Reader(paths.db)
        stack.callback(reader.close)
        group = find_group(reader, settings, head, levels.levels, force=options.force)

        async def go(group: Group) -> RunReport:
            if options.prepare_first:
                name = await asyncio.to_thread(into_database, paths.db, settings, head, group.generation)
            else:
                name = stored_dataset(reader, head, group.generation)
            found = await asyncio.to_thread(distinct, reader, name, group.runs)
            notes = replace(levels, notes=(*levels.notes, *found.notes))
            chosen = replace(group, runs=found.runs)
            return await Invocation(settings, options, paths, notes, reader, chosen, name, say, log).go()

        try:
            return await go(group)
        except DriftError as error:
            if not options.force:
                raise
            say(f"warning: {error.what}: {'; '.join(error.details)}; --force: a new generation beside the old one")
            return await go(next_generation(reader, settings, group, levels.levels))


@contextlib.contextmanager
def at_work(settings: Settings, paths: RunPaths) -> Iterator[RunLog]:
    """The database is this process's while the block runs; the log knows which secrets to leave out."""
    secrets = known_secrets(settings).and_also(*settings.engine.headers.values())
    with hold(paths.db, command_line(settings), utc_now()), RunLog(paths.log, secrets) as log:
        yield log


def checked_levels(settings: Settings) -> Levels:
    """The levels, with all that can be said against them before anything is sent. Raises ConfigError."""
    way_of(settings.kv.apply.via).check_order(settings.limits.order)
    server_evidence.check(settings.kv.evidence)
    levels = make_levels(settings)
    for level in levels.levels:
        check_level(settings, level)
    return levels


def _paths(settings: Settings) -> RunPaths:
    return run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)


def loop_factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """engine.loop: truth is asyncio's own, whose arrivals can be stamped earliest; volume is uvloop."""
    if settings.engine.loop == "truth":
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def sayer(quiet: bool) -> Callable[[str], None]:
    """Prints a line for people; of a quiet run only warnings."""

    def say(line: str) -> None:
        if not quiet or line.startswith("warning"):
            print(visible(line), file=sys.stderr, flush=True)

    return say

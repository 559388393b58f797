"""`kvt run` and `kvt sweep`: from settings to every level answered, or a clear reason why not.

check -> lock -> prepare -> contract -> session -> canary -> warm-up -> send -> what came of it.
"""

import asyncio
import sys
from contextlib import closing
from dataclasses import replace

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.errors import DriftError, MissingPrerequisiteError
from kvt_async.contract.paths import manifest_path
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.settings import Settings
from kvt_async.contract.visible import visible
from kvt_async.data.identity import dataset_id
from kvt_async.data.manifest import ManifestHead
from kvt_async.data.tasks import only_task
from kvt_async.engine.transport.local_lacks import check_files
from kvt_async.records import Json
from kvt_async.session import server_evidence
from kvt_async.session.experiment_rows import command_line
from kvt_async.session.invocation import Invocation, at_work, loop_factory, opened, paths_of, sayer
from kvt_async.store.lock import hold
from kvt_async.store.reader import Reader
from kvt_async.sweep import dry_run
from kvt_async.sweep.duplicate_levels import distinct
from kvt_async.sweep.pending import (
    SweepGroup,
    find_group,
    into_database,
    next_generation,
    prepared_head,
    stored_dataset,
)
from kvt_async.sweep.run_summary import RunReport
from kvt_async.sweep.sweep_invocation import SweepInvocation, SweepOptions
from kvt_async.ways.levels import Levels, make_levels
from kvt_async.ways.registry import check_level, way_of

__all__ = ["RunReport", "SweepOptions", "checked_levels", "execute", "prepare_group", "run"]


def execute(settings: Settings, options: SweepOptions) -> int:
    """Run it on a loop of its own, print the answer, return the exit code. Raises KvtError as `run` does."""
    settings = only_task(settings)
    files = [manifest_path(settings.output.data_dir, dataset_id(settings)), paths_of(settings).db]
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
    settings = only_task(settings)
    paths = paths_of(settings)
    with hold(paths.db, command_line(settings), utc_now()):
        head = prepared_head(settings, prepare_first=True, force=force, say=sayer(quiet))
        connect_for_writing(paths.db).close()
        with closing(Reader(paths.db)) as reader:
            group = find_group(reader, settings, head, (), force=force)
        name = into_database(paths.db, settings, head, group.generation)
    return {
        "dataset_id": name,
        "entries": head.n_entries,
        "bins": head.bins,
        "manifest": str(manifest_path(settings.output.data_dir, head.dataset_id)),
        "manifest_sha256": head.sha256,
        "db": str(paths.db),
    }


async def run(settings: Settings, *, options: SweepOptions) -> RunReport:
    """Send every level of the manifest; what is settled already is skipped.

    Raises ConfigError, ContractMismatchError, MissingPrerequisiteError, StoreError before anything is sent;
    DeadKnobError after the canary; ServerError when nobody answers at the start. A server that dies later, Ctrl-C and
    failures are no exceptions: the report says so and carries the exit code.
    """
    settings = only_task(settings)
    settings = way_of(settings.kv.apply.via).with_port(settings)
    levels = checked_levels(settings)
    if not options.dry_run:
        check_files(settings.limits.concurrency, "limits.concurrency", "Set it to at most {most}")
    db = paths_of(settings).db
    if not options.prepare_first and not db.is_file():
        raise MissingPrerequisiteError(
            "this group is not prepared: there is no database",
            where=str(db),
            do="Run `kvt prepare -c CONFIG` first, or `kvt sweep -c CONFIG`, which prepares.",
        )
    say = sayer(options.shows_nothing)
    with at_work(settings) as log:
        head = await asyncio.to_thread(
            prepared_head, settings, prepare_first=options.prepare_first, force=options.force, say=say
        )
        with opened(settings, options, log) as invocation:
            return await _sweep(invocation, options, head, levels)


async def _sweep(invocation: Invocation, options: SweepOptions, head: ManifestHead, levels: Levels) -> RunReport:
    """Send to the server of this group; with --force, to one that is not the group's, as a new generation."""
    settings, reader = invocation.settings, invocation.reader
    group = find_group(reader, settings, head, levels.levels, force=options.force)
    try:
        return await _send(invocation, options, head, replace(group, notes=levels.notes))
    except DriftError as error:
        if not options.force:
            raise
        reasons = "; ".join(error.details)
        invocation.say(f"warning: {error.what}: {reasons}; --force: a new generation beside the old one")
        group = next_generation(reader, settings, group, levels.levels)
        return await _send(invocation, options, head, replace(group, notes=levels.notes))


async def _send(invocation: Invocation, options: SweepOptions, head: ManifestHead, group: SweepGroup) -> RunReport:
    settings, reader = invocation.settings, invocation.reader
    if options.prepare_first:
        name = await asyncio.to_thread(into_database, invocation.paths.db, settings, head, group.generation)
    else:
        name = stored_dataset(reader, head, group.generation)
    unlike = await asyncio.to_thread(distinct, reader, name, group.runs)
    group = replace(group, runs=unlike.runs, dataset_id=name, notes=(*group.notes, *unlike.notes))
    return await SweepInvocation(invocation, options, group).go()


def checked_levels(settings: Settings) -> Levels:
    """The levels, with all that can be said against them before anything is sent. Raises ConfigError."""
    way_of(settings.kv.apply.via).check_order(settings.limits.order)
    server_evidence.check(settings.kv.evidence)
    levels = make_levels(settings)
    for level in levels.levels:
        check_level(settings, level)
    return levels

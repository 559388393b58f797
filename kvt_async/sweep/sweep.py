"""`kvt run` and `kvt sweep`: from settings to every level answered, or a clear reason why not.

check -> lock -> prepare -> contract -> session -> canary -> warm-up -> send -> what came of it.
"""

import asyncio
import math
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.errors import ConfigError, DriftError, GuardError, MissingPrerequisiteError
from kvt_async.contract.labels import task_level
from kvt_async.contract.paths import manifest_path
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.settings import Settings
from kvt_async.contract.visible import visible
from kvt_async.contract.vocabulary import NODE_REPEATS, Unit
from kvt_async.data.identity import dataset_id
from kvt_async.data.tasks import tasks_of
from kvt_async.engine.transport.local_lacks import check_files
from kvt_async.merge import merge_shards
from kvt_async.records import Json
from kvt_async.senders.scratch_facts import take_over_left
from kvt_async.senders.shares import sender_count_of_limits
from kvt_async.session import server_evidence
from kvt_async.session.experiment_rows import command_line, marked_stored
from kvt_async.session.invocation import Invocation, at_work, loop_factory, opened, paths_of, sayer
from kvt_async.store.lock import hold
from kvt_async.store.merging import take
from kvt_async.store.reader import Reader
from kvt_async.sweep import dry_run
from kvt_async.sweep.decode_reach import reach_notes
from kvt_async.sweep.duplicate_levels import distinct
from kvt_async.sweep.pending import (
    PreparedTask,
    Preparing,
    SweepGroup,
    SweepTask,
    find_group,
    into_database,
    next_generation,
    prepared_tasks,
    stored_datasets,
)
from kvt_async.sweep.run_summary import RunReport
from kvt_async.sweep.shard_part import key_of, levels_sent, part_of_group, refuse_beside_others, together
from kvt_async.sweep.suite_size import refuse_unreachable, unreachable
from kvt_async.sweep.sweep_invocation import SweepInvocation, SweepOptions
from kvt_async.sweep.turn_order import check_workload
from kvt_async.ways.levels import Levels, make_levels
from kvt_async.ways.registry import check_level, way_of

__all__ = ["RunReport", "SweepOptions", "checked_levels", "execute", "prepare_group", "run"]


def execute(settings: Settings, options: SweepOptions) -> int:
    """Run it on a loop of its own, print the answer, return the exit code. Raises KvtError as `run` does."""
    manifests = [
        manifest_path(settings.output.data_dir, dataset_id(task.settings)) for task in tasks_of(settings).tasks
    ]
    missing = [file for file in (*manifests, paths_of(settings, options.shard).db) if not file.is_file()]
    with asyncio.Runner(loop_factory=loop_factory(settings)) as runner:
        report = runner.run(run(settings, options=options))
    if report.plan is not None:
        report.plan["prepared"] = [str(file) for file in missing if file.is_file()]
    if options.as_json:
        answer = report.as_json()
        if report.plan is not None:  # what of the tasks is said on the screen while they are read stands here too
            answer = {**report.plan, "notes": [*tasks_of(settings).notes, *report.plan["notes"]]}
        sys.stdout.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode() + "\n")
    elif not options.quiet:
        lines = dry_run.lines(report.plan) if report.plan is not None else report.lines()
        print(visible("\n".join(lines)), flush=True)
    return GuardError.exit_code if report.plan is not None and report.plan["refused"] else report.exit_code


def prepare_group(settings: Settings, *, force: bool = False, quiet: bool = False) -> Json:
    """`kvt prepare`: make the manifests and store them in the group's database; return what there is now.

    Of a group of several tasks the answer is {"tasks": [...], "db": ...}, of one task that task's.
    """
    paths = paths_of(settings)
    with hold(paths.db, command_line(settings), utc_now()):
        tasks = prepared_tasks(settings, Preparing(prepare_first=True, force=force), sayer(quiet))
        connect_for_writing(paths.db).close()
        with closing(Reader(paths.db)) as reader:
            group = find_group(reader, settings, tasks, force=force)
        group = into_database(paths.db, group)
    answers = [
        {
            "dataset_id": task.dataset_id,
            "entries": task.prepared.head.n_entries,
            "bins": task.prepared.head.bins,
            "manifest": str(manifest_path(settings.output.data_dir, task.prepared.head.dataset_id)),
            "manifest_sha256": task.prepared.head.sha256,
            "db": str(paths.db),
        }
        for task in group.tasks
    ]
    if len(answers) == 1:
        return answers[0]
    named = [{"task": task.prepared.name, **answer} for task, answer in zip(group.tasks, answers, strict=True)]
    return {"tasks": named, "entries": sum(answer["entries"] for answer in answers), "db": str(paths.db)}


async def run(settings: Settings, *, options: SweepOptions) -> RunReport:
    """Send every level of every task's manifest; what is settled already is skipped.

    Raises ConfigError, ContractMismatchError, MissingPrerequisiteError, StoreError before anything is sent;
    DeadKnobError after the canary; ServerError when nobody answers at the start. A server that dies later, Ctrl-C and
    failures are no exceptions: the report says so and carries the exit code.
    """
    settings = way_of(settings.kv.apply.via).with_port(settings)
    notes = checked_levels(settings).notes
    processes = sender_count_of_limits(settings)
    if not options.dry_run:
        of_one = math.ceil(settings.limits.concurrency / processes)
        check_files(of_one, "limits.concurrency", "Set it to at most {most}" + (" a process" if processes > 1 else ""))
    own, shard = paths_of(settings).db, options.shard
    if shard is not None:
        refuse_beside_others(own, shard)
    if not options.prepare_first and shard is None and not own.is_file():
        raise MissingPrerequisiteError(
            "this group is not prepared: there is no database",
            where=str(own),
            do="Run `kvt prepare -c CONFIG` first, or `kvt sweep -c CONFIG`, which prepares.",
        )
    say = sayer(options.shows_nothing)
    with at_work(settings, shard) as log:
        if shard is None and not options.dry_run:
            await asyncio.to_thread(merge_shards, own, say)  # what they have answered isn't asked again
        how = Preparing(options.prepare_first, options.force, shard)
        tasks = await asyncio.to_thread(prepared_tasks, settings, how, say)
        with opened(settings, options, log) as invocation:
            await asyncio.to_thread(take_over_left, invocation.paths.db)
            return await _sweep(invocation, options, tasks, notes)


async def _sweep(
    invocation: Invocation, options: SweepOptions, tasks: Sequence[PreparedTask], notes: tuple[str, ...]
) -> RunReport:
    """Send to the server of this group; with --force, to one that is not the group's, as a new generation."""
    settings, reader, shard = invocation.settings, invocation.reader, options.shard
    part = None
    if shard is not None:
        part = part_of_group(shard, invocation.beside, len(tasks))
        notes = (*notes, together(shard, settings))
    group = find_group(reader, settings, tasks, force=options.force, part=part, beside=invocation.beside)
    try:
        return await _send(invocation, options, replace(group, notes=notes))
    except DriftError as error:
        if not options.force:
            raise
        reasons = "; ".join(error.details)
        invocation.say(f"warning: {error.what}: {reasons}; --force: a new generation beside the old one")
        group = next_generation(reader, settings, group)
        return await _send(invocation, options, replace(group, notes=notes))


async def _send(invocation: Invocation, options: SweepOptions, group: SweepGroup) -> RunReport:
    reader = invocation.reader
    if options.prepare_first or group.part is not None:
        group = await asyncio.to_thread(into_database, invocation.paths.db, group)
    else:
        group = stored_datasets(reader, group)
    tasks, notes = [], list(group.notes)
    for task in group.tasks:
        unlike = await asyncio.to_thread(distinct, reader, task.dataset_id, task.runs)
        tasks.append(replace(task, runs=unlike.runs))
        levels, most = [run.level for run in unlike.runs], task.settings.decoding.most_tokens
        reach = await asyncio.to_thread(reach_notes, reader, task.dataset_id, levels, most)
        notes += [task_level(task.part.label, note) for note in (*unlike.notes, *reach)]
    notes += await asyncio.to_thread(check_workload, reader, invocation.settings.workload, tasks)
    if group.part is not None and group.part.shard.by == "levels":
        tasks = of_the_part(invocation.settings, group, tasks)
    refused: list[str] = []
    if options.dry_run:
        refused = list(map(str, unreachable(reader, invocation.settings, tasks)))
    else:
        refuse_unreachable(reader, invocation.settings, tasks)
    group = replace(group, tasks=tuple(tasks), notes=(*notes, *refused))
    if group.part is not None and group.part.elsewhere and not options.dry_run:
        group = await asyncio.to_thread(go_on_here, invocation, group, retry_failed=options.retry_failed)
    report = await SweepInvocation(invocation, options, group).go()
    if report.plan is not None:
        report.plan["refused"] = refused
    return report


def go_on_here(invocation: Invocation, group: SweepGroup, *, retry_failed: bool) -> SweepGroup:
    """Take from the group's other databases the histories that this shard goes on with: requests that were begun,
    failures that are tried again, and all of a conversation whose next turn is sent after the others."""
    assert group.part is not None
    states = {"pending"} | ({"failure"} if retry_failed else set())
    if invocation.settings.workload.is_in_turns:
        states |= {"response", "failure"}
    for task in group.tasks:
        for run in task.runs:
            seed = task.settings.sampling.seed
            for db, ids in group.part.begun_elsewhere(invocation.reader, run, seed, states):
                take(invocation.paths.db, db, ids)
    tasks = (replace(task, runs=marked_stored(invocation.reader, invocation.group, task.runs)) for task in group.tasks)
    return replace(group, tasks=tuple(tasks))


def of_the_part(settings: Settings, group: SweepGroup, tasks: Sequence[SweepTask]) -> list[SweepTask]:
    """The tasks at the levels that a shard of levels sends; which ones, follows from the config alone."""
    assert group.part is not None
    sent = levels_sent(settings, group.tasks[0].runs, group.part.shard)
    return [
        replace(task, runs=[r for r in task.runs if r.level.repeat_idx > NODE_REPEATS or key_of(r.level) in sent])
        for task in tasks
    ]


def checked_levels(settings: Settings) -> Levels:
    """The levels, with all that can be said against them before anything is sent. Raises ConfigError."""
    way_of(settings.kv.apply.via).check_order(settings.limits.order)
    server_evidence.check(settings.kv.evidence)
    levels = make_levels(settings)
    _check_widths(settings, levels)
    for level in levels.levels:
        check_level(settings, level)
    return levels


def _check_widths(settings: Settings, levels: Levels) -> None:
    """Raises ConfigError where bytes per token are to show a budget that doesn't change them."""
    other = next((one for one in levels.levels if not one.serves_full and one.unit != Unit.BITS), None)
    if settings.kv.evidence.bytes_per_token is not None and other is not None:
        raise ConfigError(
            f"bytes per token show bit widths, and {other.label} is in {other.unit}",
            where="kv.evidence.bytes_per_token",
            do="Leave it out, or write unit: bits: tokens that are evicted take nothing from the bytes of the others.",
        )

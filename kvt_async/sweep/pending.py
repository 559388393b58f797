"""From settings to a group that can be sent: manifest in the database, contract compared, levels matched to runs.

Nothing here talks to a server, and nothing about the group is written before everything has been checked.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kvt_async.contract.errors import ContractMismatchError, KvtError, MissingPrerequisiteError
from kvt_async.contract.load import known_secrets
from kvt_async.contract.paths import manifest_path
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.settings import Settings
from kvt_async.contract.shards.shard import Shard
from kvt_async.data.contract_of import group_contract, task_contract
from kvt_async.data.identity import dataset_id
from kvt_async.data.manifest import ManifestHead, read_head
from kvt_async.data.manifest_store import store_manifest, stored_id
from kvt_async.data.prepare import check_data, prepare
from kvt_async.data.tasks import naming, tasks_of
from kvt_async.records import Json, Run, TaskPart
from kvt_async.session.experiment_rows import find_generation, match_runs
from kvt_async.session.invocation import paths_of
from kvt_async.session.task_rows import match_tasks, stored_tasks
from kvt_async.store.reader import Reader
from kvt_async.sweep.plan import either, only, pending, unwanted, without
from kvt_async.sweep.shard_part import ShardPart, key_of, levels_of

SAY_EVERY_S = 3.0


@dataclass(frozen=True, slots=True)
class Preparing:
    """How manifests are come by. `prepare_first`: those that are missing are made; `force`: those of another contract
    are made anew; `shard`: who prepares them."""

    prepare_first: bool
    force: bool = False
    shard: Shard | None = None


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """A task whose manifest is made. `settings` are those of this task alone."""

    name: str
    settings: Settings
    head: ManifestHead

    @property
    def samples(self) -> int:
        return self.settings.decoding.samples


@dataclass(frozen=True, slots=True)
class SweepTask:
    """A task of a group: its part of the contract, its runs, and the dataset that it has in the database."""

    prepared: PreparedTask
    part: TaskPart
    runs: list[Run]

    @property
    def settings(self) -> Settings:
        return self.prepared.settings

    @property
    def dataset_id(self) -> str:
        return self.part.stored_id or ""

    @property
    def samples(self) -> int:
        return self.prepared.samples


@dataclass(frozen=True, slots=True)
class SweepGroup:
    """What a session will work on. `contract` is what its tasks share."""

    contract: Json
    generation: int
    tasks: tuple[SweepTask, ...]
    notes: tuple[str, ...] = ()  # sentences about what was merged or is missing
    part: ShardPart | None = None  # of a shard: what it sends

    @property
    def runs(self) -> list[Run]:
        """Every task at every level, level after level: a server that is started for a level serves all tasks."""
        order: dict[tuple[str, float, str, int], list[Run]] = {}
        for task in self.tasks:
            for run in task.runs:
                order.setdefault(key_of(run.level), []).append(run)
        by_level = sorted(order.values(), key=lambda runs: max(run.level.level_idx for run in runs))
        return [run for runs in by_level for run in runs]


def prepared_head(settings: Settings, how: Preparing, say: Callable[[str], None]) -> ManifestHead:
    """The manifest's head. Raises MissingPrerequisiteError where it is missing and nobody asked to make it."""
    if how.prepare_first:
        stays = how.shard is not None and settings.sampling.strategy == "focus_transition"
        return prepare(
            settings,
            force=how.force,
            report=say,
            progress=_Counted(say),
            grow=(lambda head: {}) if stays else None,  # only the merged group's manifest grows
            taken=partial(_holds, paths_of(settings, how.shard).db),
        ).head
    return read_head(manifest_path(settings.output.data_dir, dataset_id(settings)), verify=False)


def _holds(db: Path, sha256: str) -> bool:
    """Whether the database took in the manifest with this hash: what is sent comes from there, so the file need not be
    hashed again, which takes longer than all else before the first request."""
    try:
        reader = Reader(db)
    except KvtError:  # there is none yet, or it is refused later, with its reason
        return False
    try:
        return bool(reader.value("SELECT count(*) FROM manifests WHERE sha256 = ?", sha256))
    finally:
        reader.close()


class _Counted:
    """Says how many examples were tokenised so far, every few seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._last = say, time.monotonic()

    def __call__(self, n: int) -> None:
        if time.monotonic() - self._last > SAY_EVERY_S:
            self._last = time.monotonic()
            self._say(f"prepare: {n} examples counted")


def prepared_tasks(settings: Settings, how: Preparing, say: Callable[[str], None]) -> list[PreparedTask]:
    """Every task of a config with its manifest, as `prepared_head` makes or finds it. All are checked before one is
    made. Raises the errors of the data, naming the task where there are several.
    """
    prepare_first = how.prepare_first
    tasks = tasks_of(settings)
    for note in tasks.notes if prepare_first else ():
        say(f"note: {note}")
    for task in tasks.tasks if prepare_first else ():
        with naming(task, tasks):
            check_data(task.settings)
    prepared, said = [], set[str]()
    for task in tasks.tasks:
        with naming(task, tasks):
            line = _without_repeats(say, f"{task.settings.dataset.task_key}: ", said) if len(tasks.tasks) > 1 else say
            head = prepared_head(task.settings, how, line)
        prepared.append(PreparedTask(task.name, task.settings, head))
    return prepared


def _without_repeats(say: Callable[[str], None], prefix: str, said: set[str]) -> Callable[[str], None]:
    """`say`, but a note that several tasks have is said once, without the name of one."""

    def line(text: str) -> None:
        note = text.removeprefix(prefix)
        if note == text or note not in said:
            say(note)
        said.add(note)

    return line


def into_database(db: Path, group: SweepGroup) -> SweepGroup:
    """Store the manifests whose version is not there; the same group, its tasks with their ids in this database."""
    conn = connect_for_writing(db)
    try:
        tasks = []
        for task in group.tasks:
            head = task.prepared.head
            if group.part is not None and task.dataset_id:
                name = task.dataset_id  # what the other databases of the group call it
            else:
                name = stored_id(conn, head, group.generation) if group.generation > 1 else head.dataset_id
            data_dir = task.settings.output.data_dir
            store_manifest(conn, manifest_path(data_dir, head.dataset_id), dataset_id=name)
            tasks.append(_of_dataset(task, name))
        return replace(group, tasks=tuple(tasks))
    finally:
        conn.close()


def _of_dataset(task: SweepTask, name: str) -> SweepTask:
    runs = [replace(run, dataset_id=name) for run in task.runs]
    return replace(task, part=replace(task.part, stored_id=name), runs=runs)


def find_group(
    reader: Reader,
    settings: Settings,
    tasks: Sequence[PreparedTask],
    *,
    force: bool,
    part: ShardPart | None = None,
    beside: Sequence[Path] = (),
) -> SweepGroup:
    """Compare contracts and level identities; of a shard (`part`) also with the group's databases `beside` it.

    Raises ContractMismatchError, unless `force` opens a new generation.
    """
    contract: Json = dict(group_contract(settings, tasks[0].head))
    with ExitStack() as readers:
        others = [readers.enter_context(closing(Reader(db))) for db in beside]
        generation = max(find_generation(each, settings, contract, force=force) for each in (reader, *others))
        try:
            return _matched((reader, *others), settings, tasks, SweepGroup(contract, generation, (), part=part))
        except ContractMismatchError:
            if not force:
                raise
            return _matched((reader, *others), settings, tasks, SweepGroup(contract, generation + 1, (), part=part))


def _matched(
    readers: Sequence[Reader], settings: Settings, tasks: Sequence[PreparedTask], group: SweepGroup
) -> SweepGroup:
    """The group in this generation, with the runs that it has there or will have; `readers`: of its own database first.
    What only another database has keeps its ids."""
    name, generation, secrets = settings.experiment.exp_group_id, group.generation, known_secrets(settings)
    names = {task.name for task in tasks}
    has_several = len(names.union(*(stored_tasks(reader, name, generation) for reader in readers))) > 1
    parts = [
        TaskPart(
            task.name,
            task.head.dataset_id,
            dict(task_contract(task.settings, task.head)),
            samples=task.samples,
            label=task.name if has_several else "",
        )
        for task in tasks
    ]
    shard = group.part.shard if group.part else None
    found: list[SweepTask] = []
    for reader in readers:
        matched = match_tasks(reader, name, generation, parts)
        seen = [
            SweepTask(task, part, match_runs(reader, name, generation, levels_of(task.settings, shard), secrets, part))
            for task, part in zip(tasks, matched, strict=True)
        ]
        found = [_with_ids_of(*both) for both in zip(found, seen, strict=True)] if found else seen
    return replace(group, tasks=tuple(found))


def _with_ids_of(task: SweepTask, other: SweepTask) -> SweepTask:
    """The task, with the ids that another database of the group has for what its own one lacks."""
    runs = [
        replace(run, run_id=theirs.run_id) if theirs.stored and not run.stored else run
        for run, theirs in zip(task.runs, other.runs, strict=True)
    ]
    return replace(task, part=replace(task.part, stored_id=task.part.stored_id or other.part.stored_id), runs=runs)


def next_generation(reader: Reader, settings: Settings, group: SweepGroup) -> SweepGroup:
    """The same contract, begun anew beside what is stored: for a server that became another one."""
    tasks = [task.prepared for task in group.tasks]
    return _matched((reader,), settings, tasks, SweepGroup(group.contract, group.generation + 1, (), part=group.part))


def stored_datasets(reader: Reader, group: SweepGroup) -> SweepGroup:
    """The same group, its tasks with their ids in the database. Raises as `stored_dataset` does."""
    tasks = (_of_dataset(task, stored_dataset(reader, task.prepared.head, group.generation)) for task in group.tasks)
    return replace(group, tasks=tuple(tasks))


def stored_dataset(reader: Reader, head: ManifestHead, generation: int) -> str:
    """The dataset's id in the database. Raises MissingPrerequisiteError where this version was never stored."""
    for name in (f"{head.dataset_id}__g{generation}", head.dataset_id):
        sha256 = reader.value("SELECT sha256 FROM manifests WHERE dataset_id = ? AND version = ?", name, head.version)
        if sha256 == head.sha256:
            return name
    raise MissingPrerequisiteError(
        f"the manifest of {head.dataset_id} (version {head.version}) is not in the database yet",
        where=str(reader.db),
        do="Run `kvt prepare -c CONFIG` first, or `kvt sweep -c CONFIG`, which prepares.",
    )


def unsettled(
    reader: Reader, task: SweepTask, runs: Sequence[Run], limit: int | None, part: ShardPart | None = None
) -> tuple[list[bytearray], list[int]]:
    """Per run of the task one byte per answer (entry after entry, and of each its samples), 1 where nothing is to be
    sent; and how many answers each run has in this plan.

    `limit`: only so many entries of each bin are wanted; None: all. `part`: only what this shard sends.
    """
    n, samples = reader.n_entries(task.dataset_id), task.samples
    done = [reader.settled(run.run_id, n, samples=samples) if run.stored else bytearray(n * samples) for run in runs]
    if limit is None and part is None:
        return done, [n * samples] * len(runs)
    chosen: list[int] | None = None
    if limit is not None:
        firsts = reader.first_of_each_bin(task.dataset_id, limit)
        chosen = [seq * samples + nth for seq in firsts for nth in range(samples)]
    masks, planned = [], []
    for run, mask in zip(runs, done, strict=True):
        left_out = bytearray(n * samples)
        if part is not None:
            left_out = unwanted(part.entries_at(reader, run, task.settings.sampling.seed), samples)
            here = either(mask, reader.tried_again(run.run_id, n, samples=samples)) if run.stored else mask
            left_out = either(left_out, without(part.settled_elsewhere(run, n, samples), here))
        if chosen is not None:
            left_out = only(left_out, chosen)
        masks.append(either(mask, left_out))
        planned.append(left_out.count(0))
    return masks, planned


def is_complete(settings: Settings) -> bool:
    """Whether a sweep of this config would send nothing: every level settled. False where it would be refused."""
    paths = paths_of(settings)
    try:
        tasks = prepared_tasks(settings, Preparing(prepare_first=False), say=lambda _: None)
        with closing(Reader(paths.db)) as reader:
            group = stored_datasets(reader, find_group(reader, settings, tasks, force=False))
            return not any(sum(pending(unsettled(reader, task, task.runs, None)[0])) for task in group.tasks)
    except KvtError:
        return False

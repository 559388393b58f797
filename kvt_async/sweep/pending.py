"""From settings to a group that can be sent: manifest in the database, contract compared, levels matched to runs.

Nothing here talks to a server, and nothing about the group is written before everything has been checked.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kvt_async.contract.errors import ContractMismatchError, KvtError, MissingPrerequisiteError
from kvt_async.contract.load import known_secrets
from kvt_async.contract.paths import manifest_path, run_paths
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.settings import Settings
from kvt_async.data.contract_of import group_contract
from kvt_async.data.identity import dataset_id
from kvt_async.data.manifest import ManifestHead, read_head
from kvt_async.data.manifest_store import store_manifest, stored_id
from kvt_async.data.prepare import prepare
from kvt_async.records import Json, Level, Run
from kvt_async.session.experiment_rows import find_generation, match_runs
from kvt_async.store.reader import Reader
from kvt_async.sweep.plan import only, pending
from kvt_async.ways.levels import make_levels

SAY_EVERY_S = 3.0


@dataclass(frozen=True, slots=True)
class SweepGroup:
    """What a session will work on."""

    contract: Json
    generation: int
    template_version: str
    runs: list[Run]
    dataset_id: str = ""  # of its manifest, once that is in the database
    notes: tuple[str, ...] = ()  # sentences about what was merged or is missing


def prepared_head(settings: Settings, *, prepare_first: bool, force: bool, say: Callable[[str], None]) -> ManifestHead:
    """The manifest's head; `prepare_first` makes the manifest where it is missing.

    Raises MissingPrerequisiteError where it is missing and nobody asked to make it.
    """
    if prepare_first:
        db = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path).db
        return prepare(settings, force=force, report=say, progress=_Counted(say), taken=partial(_holds, db)).head
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


def into_database(db: Path, settings: Settings, head: ManifestHead, generation: int) -> str:
    """Store the manifest if this version is not there; return the dataset's id in this database."""
    conn = connect_for_writing(db)
    try:
        name = stored_id(conn, head, generation) if generation > 1 else head.dataset_id
        store_manifest(conn, manifest_path(settings.output.data_dir, head.dataset_id), dataset_id=name)
        return name
    finally:
        conn.close()


def find_group(
    reader: Reader, settings: Settings, head: ManifestHead, levels: tuple[Level, ...], *, force: bool
) -> SweepGroup:
    """Compare contracts and level identities. Raises ContractMismatchError, unless `force` opens a new generation."""
    group, secrets = settings.experiment.exp_group_id, known_secrets(settings)
    contract: Json = dict(group_contract(settings, head))
    generation = find_generation(reader, settings, contract, force=force)
    try:
        runs = match_runs(reader, group, generation, levels, secrets)
    except ContractMismatchError:
        if not force:
            raise
        generation += 1
        runs = match_runs(reader, group, generation, levels, secrets)
    return SweepGroup(contract, generation, str(head.prompt["template_version"]), runs)


def next_generation(reader: Reader, settings: Settings, group: SweepGroup, levels: tuple[Level, ...]) -> SweepGroup:
    """The same contract, begun anew beside what is stored: for a server that became another one."""
    name, secrets = settings.experiment.exp_group_id, known_secrets(settings)
    runs = match_runs(reader, name, group.generation + 1, levels, secrets)
    return replace(group, generation=group.generation + 1, runs=runs)


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
    reader: Reader, runs: Sequence[Run], name: str, chosen: list[int] | None
) -> tuple[list[bytearray], list[int]]:
    """Per run one byte per entry, 1 where nothing is to be sent; and how many entries each run has in this plan.

    `chosen`: the only entries that are wanted; None: all.
    """
    n = reader.n_entries(name)
    done = [reader.settled(run.run_id, n) if run.stored else bytearray(n) for run in runs]
    if chosen is None:
        return done, [n] * len(runs)
    return [only(mask, chosen) for mask in done], [len(chosen)] * len(runs)


def is_complete(settings: Settings) -> bool:
    """Whether a sweep of this config would send nothing: every level settled. False where it would be refused."""
    paths = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)
    try:
        head = prepared_head(settings, prepare_first=False, force=False, say=lambda _: None)
        with closing(Reader(paths.db)) as reader:
            group = find_group(reader, settings, head, make_levels(settings).levels, force=False)
            done, _ = unsettled(reader, group.runs, stored_dataset(reader, head, group.generation), None)
    except KvtError:
        return False
    return sum(pending(done)) == 0

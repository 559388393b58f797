"""The groups in the folders that were given: nothing else can be named by an address of the page."""

import hashlib
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from kvt_async.contract.command_line.run_folder import database_of, stored_settings
from kvt_async.contract.errors import ConfigError, KvtError, MissingPrerequisiteError
from kvt_async.contract.load import settings_of_text
from kvt_async.contract.local_faults import explained
from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings
from kvt_async.contract.shards.shard import shard_databases

MOST_FOLDERS = 2_000  # looked at in one folder
_GROUPS = "SELECT exp_group_id, max(created_at) FROM experiments GROUP BY 1 ORDER BY 2 DESC"


@dataclass(frozen=True, slots=True)
class GroupPlace:
    """A group in a folder. `key`: its name in addresses. `folder`: as it is shown. `problem`: why it can't be read, a
    sentence; empty: it can."""

    key: str
    name: str
    db: Path
    folder: str
    problem: str = ""

    def settings(self) -> Settings:
        """The config of its newest session, or today's defaults where none is stored that can be read."""
        at = {
            "experiment": {"exp_group_id": self.name},
            "output": {"runs_dir": str(self.db.parent), "data_dir": str(self.db.parent)},
            "db": {"path": str(self.db)},
            "model": {"config": None},
        }
        try:
            settings = stored_settings(self.db if self.db.is_file() else self.db.parent)
            if settings.experiment.exp_group_id == self.name:
                return settings
            return stored_settings(self.db, [f"experiment.exp_group_id={self.name}"])
        except ConfigError:
            return settings_of_text("{}", where="no config", at_last=at)


def group_places(roots: Sequence[Path]) -> list[GroupPlace]:
    """Every group in these folders, which are run folders, databases, or folders of run folders (two levels deep)."""
    places: dict[str, GroupPlace] = {}
    for root, name in zip(roots, _names_of_roots(roots), strict=True):
        for folder, problem in _folders(root):
            shown = str(root) if folder == root else str(name / folder.relative_to(root))
            for place in _groups_of(folder, shown, problem):
                places.setdefault(place.key, place)
    return list(places.values())


def _names_of_roots(roots: Sequence[Path]) -> list[Path]:
    """Of each root the end of its path that tells it from the others: last-week/runs, this-week/runs."""
    paths = [root.resolve() for root in roots]

    def name(path: Path) -> Path:
        ends = range(1, len(path.parts) + 1)
        return next(
            (
                Path(*path.parts[-n:])
                for n in ends
                if all(path == other or path.parts[-n:] != other.parts[-n:] for other in paths)
            ),
            path,
        )

    return [name(path) for path in paths]


def _folders(root: Path) -> Iterator[tuple[Path, str]]:
    """(folder or database, why it is not read) of everything in a root that holds a run."""
    if root.is_file() or _holds_run(root):
        yield root, ""
        return
    inside = root.resolve()
    children = list(_subfolders(root))
    deeper = [each for child in children if not _holds_run(child) for each in _subfolders(child)]
    for child in children + deeper:
        if not child.resolve().is_relative_to(inside):
            if _holds_run(child):
                yield child, "it is a link that leads out of the folder that was given, so it is not read"
        elif _holds_run(child):
            yield child, ""


def _subfolders(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in islice(folder.iterdir(), MOST_FOLDERS) if path.is_dir())
    except OSError:
        return


def _holds_run(folder: Path) -> bool:
    try:
        return folder.is_dir() and ((folder / DB_NAME).is_file() or bool(shard_databases(folder / DB_NAME)))
    except OSError:
        return False


def _groups_of(folder: Path, shown: str, problem: str) -> Iterator[GroupPlace]:
    """The groups of a run's folder, the newest first; one without a name where it can't be read."""
    db = folder / DB_NAME if folder.is_dir() else folder
    if problem:
        yield GroupPlace(_key(db, folder.name), folder.name, db, shown, problem)
        return
    try:
        db = database_of(folder)
        names: list[str] = []
        for part in (db, *shard_databases(db)):
            if part.is_file():
                names += _names_in(part)
        if not names:
            raise MissingPrerequisiteError("nothing was run in this folder yet")
    except (KvtError, sqlite3.Error, OSError) as error:
        fault = explained(error)
        what = fault.what if fault is not None else str(error)
        yield GroupPlace(_key(db, folder.name), folder.name, db, shown, what)
        return
    for name in dict.fromkeys(names):
        yield GroupPlace(_key(db, name), name, db, shown)


def _names_in(db: Path) -> list[str]:
    try:
        with closing(connect_for_reading(db)) as conn:
            return [str(row[0]) for row in conn.execute(_GROUPS)]
    except MissingPrerequisiteError:
        return []


def _key(db: Path, name: str) -> str:
    digest = hashlib.sha256(f"{db.resolve()}\0{name}".encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', name)[:40].strip('-') or 'group'}-{digest}"

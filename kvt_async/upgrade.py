"""`kvt upgrade`: the facts of an older database in today's schema, and the old one kept beside.

The new database is made under another name, compared with the old one, and only then takes its place, in one step. A
kill at any point leaves a whole database under the known name; the same command then begins again.
"""

import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.command_line.run_folder import database_of
from kvt_async.contract.damage import damage
from kvt_async.contract.errors import KvtError, StoreError
from kvt_async.contract.files import make_private
from kvt_async.contract.local_faults import damaged, store_error
from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.schema import SCHEMA_VERSION, connect_for_reading
from kvt_async.contract.visible import visible
from kvt_async.contract.waiting import SLICE_MS, patiently
from kvt_async.session.experiment_rows import command_line
from kvt_async.store.lock import hold
from kvt_async.store.older_facts import copied_facts


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What came of one database. `kept`: where the old one lies; None: nothing had to be done."""

    database: str
    from_schema: int
    to_schema: int
    kept: str | None = None
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def line(self) -> str:
        if self.kept is None:
            return f"{self.database}: already of schema {self.to_schema}; nothing to do"
        db = Path(self.database)
        counts = ", ".join(f"{self.rows[table]:,} {table}" for table in ("requests", "attempts", "responses"))
        return (
            f"{self.database}: schema {self.from_schema} became {self.to_schema} with {counts}, every row compared\n"
            f"  the old database is {self.kept}\n"
            f"  `kvt all {db.parent if db.name == DB_NAME else db}` makes scores, verdict and report again"
        )


def upgrade(place: Path) -> Upgrade:
    """Bring a run's folder or a database to today's schema; nothing is done where it has it.

    Raises ConfigError and MissingPrerequisiteError for a place that holds no run; StoreError where the database is
    another program's, damaged, of a newer kvt or held by a runner, or where its folder has no room or can't be written.
    """
    db = database_of(place)
    if (version := _version(db)) == SCHEMA_VERSION:
        return Upgrade(str(db), version, version)
    if not os.access(db.parent, os.W_OK):
        raise StoreError(
            "this folder can't be written, and the new database goes there; nothing was changed",
            where=str(db.parent),
            do="Upgrade a copy of the folder. As it is, it can still be read.",
        )
    with hold(db, command_line(), utc_now()):
        if (version := _version(db)) == SCHEMA_VERSION:  # another upgrade was sooner
            return Upgrade(str(db), version, version)
        kept, rows = _replaced(db.resolve(), version)
    return Upgrade(str(db), version, SCHEMA_VERSION, str(db.with_name(kept.name)), rows)


def show_upgrades(places: Sequence[Path], *, as_json: bool = False) -> int:
    """Upgrade each place and print what came of it. Returns the exit code: that of the first one that failed, or 0."""
    code, facts = 0, []
    for place in places:
        try:
            done = upgrade(place)
        except KvtError as error:
            code = code or error.exit_code
            facts.append({"database": str(place), "error": str(error)})
            print(visible(f"error: {error}"), file=sys.stderr)
        else:
            facts.append(asdict(done))
            if not as_json:
                print(visible(done.line), flush=True)
    if as_json:
        print(orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode())
    return code


def _version(db: Path) -> int:
    """The schema version of a kvt database. Raises StoreError where it is none, or damaged."""
    with closing(connect_for_reading(db)) as conn:
        return int(conn.execute("PRAGMA user_version").fetchone()[0])


def _replaced(db: Path, version: int) -> tuple[Path, dict[str, int]]:
    """Make the new database and give it the name of the old one. Returns the old one's new name, and rows by table."""
    if tables := damage(db):
        raise damaged(db, tables)
    half = db.with_name(f".{db.name}.upgrading")
    try:
        _remove(half)  # of an upgrade that was killed: the lock is ours
        make_private(half)
        rows = copied_facts(db, half)
        shutil.copymode(db, half)
        _onto_disk(half)
        with _in_one_file(db):
            kept = _second_name(db, version)
            half.replace(db)
        with suppress(OSError):  # some file systems have no such order for folders
            _onto_disk(db.parent)
        with suppress(sqlite3.Error), closing(sqlite3.connect(kept)) as old:
            old.execute("PRAGMA journal_mode=WAL")  # as the kvt that made it expects it
        return kept, rows
    except (sqlite3.Error, OSError) as error:
        raise store_error(db, error) from error
    finally:
        with suppress(OSError):
            _remove(half)


@contextmanager
def _in_one_file(db: Path) -> Iterator[None]:
    """While the block runs there is no log beside the database, which would be taken for the new one's, and nobody
    writes: a runner can't, for the lock, nor the analyzer. What has it open later sees that it was moved."""
    with closing(sqlite3.connect(f"{db.as_uri()}?mode=rw", uri=True, timeout=SLICE_MS / 1000)) as conn:
        conn.isolation_level = None
        patiently(db, lambda: conn.execute("PRAGMA journal_mode=DELETE"))
        patiently(db, lambda: conn.execute("BEGIN IMMEDIATE"))
        try:
            yield
        except BaseException:
            conn.execute("ROLLBACK")
            conn.execute("PRAGMA journal_mode=WAL")
            raise


def _second_name(db: Path, version: int) -> Path:
    """Give the database another name beside its own, NAME.schema2.sqlite, and return it."""
    n = 1
    while True:
        kept = db.with_name(f"{db.stem}.schema{version}{f'-{n}' if n > 1 else ''}{db.suffix}")
        if not os.path.lexists(kept):
            break
        if kept.samefile(db):  # an upgrade was killed after this
            return kept
        n += 1
    try:
        os.link(db, kept)
    except OSError:  # a file system where a file has one name
        half = db.with_name(f".{kept.name}.upgrading")
        _remove(half)
        make_private(half)
        source, target = sqlite3.connect(f"{db.as_uri()}?mode=ro", uri=True), sqlite3.connect(half)
        with closing(source), closing(target):
            source.backup(target)
        _onto_disk(half)
        half.replace(kept)
    return kept


def _remove(half: Path) -> None:
    """Remove a database that nobody uses, and SQLite's own files beside it."""
    for end in ("", "-wal", "-shm", "-journal"):
        half.with_name(half.name + end).unlink(missing_ok=True)


def _onto_disk(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

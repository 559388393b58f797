"""Opening, creating and checking a kvt database with plain sqlite3.

The runner opens it for writing (and refuses an older or newer schema), the analyzer reads facts and writes derived
tables (and reads older schemas as if they were this one). fact_guards.py makes the triggers that
keep facts as they are.
"""

import os
import re
import sqlite3
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

from kvt_async.contract.damage import has_wal
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError, StoreError
from kvt_async.contract.fact_guards import guards_sql
from kvt_async.contract.files import make_private
from kvt_async.contract.local_faults import damaged, opened, store_error
from kvt_async.contract.ownership import APPLICATION_ID, refuse_others
from kvt_async.contract.schema_tables import (
    DERIVED_TABLES,
    FACT_TABLES,
    MADE_WHEN_WANTED,
    SINCE,
    columns_of,
    schema_sql,
    table_sql,
)
from kvt_async.contract.waiting import SLICE_MS, patiently, transaction

SCHEMA_VERSION = 3
MIN_SQLITE = (3, 37, 0)  # STRICT tables
DAMAGE_LOOKED_FOR_BYTES = 32 << 20  # larger files are looked through by `kvt verify`, and when something fails
READING_TIMEOUT_MS = 30_000  # readers of a WAL database hardly ever wait


# Scores are many, so nothing hashes or counts them: whoever changes one loses the record that vouches for its run's
# scores, and whoever removes one loses how many it vouches for. kvt itself replaces rows and never updates them.
_SCORES_WATCH = (
    "CREATE TRIGGER IF NOT EXISTS scores_changed AFTER UPDATE ON scores BEGIN DELETE FROM analysis_state WHERE "
    "stage = 'score' AND scope = (SELECT run_id FROM requests WHERE request_id = OLD.request_id); END;",
    "CREATE TRIGGER IF NOT EXISTS scores_removed AFTER DELETE ON scores BEGIN UPDATE analysis_state "
    "SET detail_json = json_remove(detail_json, '$.rows') WHERE (exp_group_id, generation, stage, scope) IN "
    "(SELECT u.exp_group_id, u.generation, 'score', u.run_id FROM requests r JOIN runs u ON u.run_id = r.run_id "
    "WHERE r.request_id = OLD.request_id) AND json_type(detail_json, '$.rows') IS NOT NULL; END;",
)


def create(conn: sqlite3.Connection) -> None:
    """Create every table, view and guard that is missing; idempotent. One transaction, waited for."""
    with transaction(conn, Path(conn.execute("PRAGMA database_list").fetchone()[2])):
        for statement in _statements("\n".join((schema_sql(), guards_sql(), *_SCORES_WATCH, ""))):
            conn.execute(statement)
        conn.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        conn.execute(f"PRAGMA application_id={APPLICATION_ID}")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, to be executed one by one: executescript would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def watch_derived(conn: sqlite3.Connection) -> None:
    """Give a database of an older kvt the guards of its scores; nothing happens where they are there."""
    for trigger in _SCORES_WATCH:
        conn.execute(trigger)


def views_of_today(conn: sqlite3.Connection, *, anew: bool = False) -> None:
    """Let this connection read by today's views. Definitions belong to the program, not to a database: where an older
    kvt made a view otherwise, or not at all, ours takes its place as a TEMP view. Nothing is written. `anew`: all of
    them, since tables that they read have TEMP views in their place."""
    made = dict(conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'view'").fetchall())
    if anew:
        for (name,) in conn.execute("SELECT name FROM sqlite_temp_master WHERE type = 'view'").fetchall():
            if name in _views():
                conn.execute(f"DROP VIEW temp.{name}")
    for name, text in _views().items():
        if anew or made.get(name) != f"CREATE VIEW {text}":
            conn.execute(f"CREATE TEMP VIEW {text}")


@cache
def _views() -> dict[str, str]:
    """Name -> `name AS SELECT ...`, as SQLite keeps it."""
    views = re.findall(r"^CREATE VIEW IF NOT EXISTS (\w+)(.*?);$", schema_sql(), re.MULTILINE | re.DOTALL)
    return {name: name + rest for name, rest in views}


def connect_for_writing(db: Path) -> sqlite3.Connection:
    """Open (creating it and its folder) for the runner: WAL, synchronous=FULL, schema made and checked.

    Raises StoreError where WAL can't be had, the folder can't be written, or the schema version is another one.
    """
    check_sqlite()
    try:
        db.parent.mkdir(parents=True, exist_ok=True)
        make_private(db)
        _look_first(db)
        conn = sqlite3.connect(db, timeout=SLICE_MS / 1000, isolation_level=None)
        opened[db.resolve()] = _identity(db)
        try:
            version = patiently(db, lambda: _version(conn))
            if version not in (0, SCHEMA_VERSION):
                raise _other_version(db, version)
            mode = patiently(db, lambda: conn.execute("PRAGMA journal_mode=WAL").fetchone()[0])
            if mode != "wal":
                raise StoreError(
                    f"this file system can't hold a WAL database (journal mode stays {mode!r})",
                    where=str(db),
                    do="Put the run on a local disk: --override output.runs_dir=/local/path or "
                    "db.path=/local/file.sqlite.",
                )
            conn.execute("PRAGMA synchronous=FULL")
            _common_pragmas(conn, SLICE_MS)
            if version == 0:
                create(conn)
            elif missing := missing_tables(conn):
                raise damaged(db, missing, "these tables are gone")
            elif lacking(conn):
                create(conn)
        except BaseException:
            conn.close()
            raise
        return conn
    except (sqlite3.Error, OSError) as error:
        raise store_error(db, error) from error


def connect_for_reading(
    db: Path,
    *,
    write_derived: bool = False,
    check_same_thread: bool = True,
    immutable: bool = False,
    factory: type[sqlite3.Connection] = sqlite3.Connection,
) -> sqlite3.Connection:
    """Open an existing database for the analyzer; read-only unless `write_derived`.

    `immutable`: nobody writes to it meanwhile, and not even SQLite's own files are made beside it; a database in a
    folder where nothing can be written is opened so too. Raises MissingPrerequisiteError when there is none or it holds
    no kvt schema, StoreError on a newer schema.
    """
    check_sqlite()
    if not db.is_file():
        raise MissingPrerequisiteError("there is no database yet", where=str(db), do="Run `kvt sweep -c CONFIG` first.")
    try:
        frozen = immutable or (not write_derived and not os.access(db.parent, os.W_OK) and not has_wal(db))
        _look_first(db, immutable=frozen)
        uri = f"{db.resolve().as_uri()}?mode={'rw' if write_derived else 'ro'}{'&immutable=1' if frozen else ''}"
        conn = sqlite3.connect(
            uri, SLICE_MS / 1000, isolation_level=None, check_same_thread=check_same_thread, factory=factory, uri=True
        )
        opened[db.resolve()] = _identity(db)
        try:
            version = patiently(db, lambda: _version(conn))
            if version == 0:
                raise MissingPrerequisiteError(
                    "this database holds no kvt tables", where=str(db), do="Run `kvt prepare -c CONFIG` first."
                )
            if version > SCHEMA_VERSION:
                raise _other_version(db, version)
            _common_pragmas(conn, SLICE_MS if write_derived else READING_TIMEOUT_MS)
            if (
                write_derived
            ):  # a copy that another program made may have no log, and then a reader would bar the writer
                patiently(db, lambda: conn.execute("PRAGMA journal_mode=WAL"))
            if version < SCHEMA_VERSION:
                from kvt_async.contract.older_schemas import as_today

                as_today(conn, write_derived=write_derived)
            for table in lacking(conn):  # nothing is known there, as in an empty one
                if write_derived and table in DERIVED_TABLES:
                    patiently(db, partial(conn.execute, f"CREATE TABLE IF NOT EXISTS {table_sql(table)}"))
                    continue
                names = ", ".join(f"NULL AS {name}" for name in columns_of(table))
                conn.execute(f"CREATE TEMP VIEW IF NOT EXISTS {table} AS SELECT {names} WHERE 0")
            views_of_today(conn)
            if write_derived:  # no wait for the disk at each commit: what a power cut takes is computed again
                conn.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            conn.close()
            raise
        return conn
    except sqlite3.Error as error:
        raise store_error(db, error) from error


def lacking(conn: sqlite3.Connection) -> list[str]:
    """Names of tables that came after others of their schema version and that this database has not."""
    have = {row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    return sorted(MADE_WHEN_WANTED - have)


def missing_tables(conn: sqlite3.Connection) -> list[str]:
    """Names of tables that a database of its schema version should have and lacks."""
    have = {row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    version = _version(conn)
    due = (name for name in (*FACT_TABLES, *DERIVED_TABLES) if SINCE.get(name, 1) <= version)
    return [name for name in due if name not in have | MADE_WHEN_WANTED]


def check_sqlite() -> None:
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        raise ConfigError(
            f"SQLite {sqlite3.sqlite_version} is too old: STRICT tables need 3.37",
            do="Use a Python built with a newer SQLite (any python.org or distribution build since 2022).",
        )


def _look_first(db: Path, *, immutable: bool = False) -> None:
    """Refuse what isn't ours. Only before this process has a connection to the file, and never later, whatever path
    names it: POSIX drops every lock that a process has on a file when it closes any handle on it, SQLite's among them,
    and another program that closes the database then removes the WAL under our writer."""
    if opened.get(db.resolve()) != _identity(db):
        patiently(db, lambda: refuse_others(db, DAMAGE_LOOKED_FOR_BYTES, immutable=immutable))


def _identity(db: Path) -> tuple[int, int]:
    status = db.stat()
    return status.st_dev, status.st_ino


def _version(conn: sqlite3.Connection) -> int:
    return int(conn.execute("PRAGMA user_version").fetchone()[0])


def _common_pragmas(conn: sqlite3.Connection, timeout_ms: int) -> None:
    conn.execute("PRAGMA foreign_keys=ON")
    conn.execute("PRAGMA recursive_triggers=ON")  # REPLACE then fires the delete guards
    conn.execute(f"PRAGMA busy_timeout={timeout_ms}")


def _other_version(db: Path, version: int) -> StoreError:
    side = "newer" if version > SCHEMA_VERSION else "older"
    return StoreError(
        f"the database has schema version {version}, this kvt writes version {SCHEMA_VERSION} ({side})",
        where=str(db),
        do="Update kvt."
        if side == "newer"
        else "Run `kvt upgrade` on its folder to go on with it, or choose a new experiment.exp_group_id; it can "
        "still be analysed as it is.",
    )

"""One state of the facts: what a stage reads, however long it takes and whatever a running sweep adds meanwhile."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from analyzer.read.group_connection import CACHE_KIB, members_of, open_members
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.schema import missing_tables
from kvt_async.contract.shards.group_databases import GroupDatabase


@contextmanager
def snapshot(conn: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A read-only connection to the same database, or the databases of the same group, held at one state of the facts
    each."""
    with opened(path_of(conn), members_of(conn)) as reader:
        yield reader


@contextmanager
def opened(db: Path, members: tuple[GroupDatabase, ...] = ()) -> Iterator[sqlite3.Connection]:
    """The database, or the group of which `members` are the databases, held at one state of the facts each."""
    reader = open_members(db, members, held=True)
    try:
        yield reader if members else held(reader)
    finally:
        reader.close()


def held(reader: sqlite3.Connection) -> sqlite3.Connection:
    """The connection, held at one state of the facts. MissingPrerequisiteError where tables are missing."""
    missing = missing_tables(reader)
    if missing:
        raise MissingPrerequisiteError(
            f"this database lacks the tables {', '.join(missing)}",
            where=str(path_of(reader)),
            do="Run `kvt prepare -c CONFIG` and `kvt sweep -c CONFIG` with this version of kvt.",
        )
    reader.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the snapshot starts with the first read
    return reader


def path_of(conn: sqlite3.Connection) -> Path:
    """The file that a connection has open."""
    return Path(next(row[2] for row in conn.execute("PRAGMA database_list") if row[1] == "main"))

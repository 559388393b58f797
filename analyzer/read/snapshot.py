"""One state of the facts: what a stage reads, however long it takes and whatever a running sweep adds meanwhile."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.schema import connect_for_reading, missing_tables


@contextmanager
def snapshot(conn: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A read-only connection to the same database, held at one state of the facts."""
    reader = connect_for_reading(path_of(conn))
    try:
        yield held(reader)
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
    reader.execute("PRAGMA cache_size=-65536")  # 64 MB: rows are looked up by key in four tables at once
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the snapshot starts with the first read
    return reader


def path_of(conn: sqlite3.Connection) -> Path:
    """The file that a connection has open."""
    return Path(next(row[2] for row in conn.execute("PRAGMA database_list") if row[1] == "main"))

"""What of a database file is damaged, as SQLite itself finds it."""

import os
import sqlite3
from pathlib import Path

OUTSIDE = {  # SQLite's codes for what lies outside of the program and of the file's content
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_NOLFS,
}
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def damage(db: Path, conn: sqlite3.Connection | None = None) -> list[str]:
    """What SQLite finds wrong, indexes included: tables by name, 'its schema', 'its free pages'; empty: nothing.

    `conn`: a connection to look with. Without one the function opens its own, and returns an empty list where the file
    can't be opened or is held by others; with one it raises sqlite3.OperationalError there.
    """
    own = None
    try:
        conn = conn or (own := opened_to_look(db))
        if _check(conn) == "ok":
            return []
        tables = [row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")]
        return [name for name in tables if _check(conn, name) != "ok"] or ["its free pages"]
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.Error) and code_of(error) in OUTSIDE:
            if own is None and conn is not None:
                raise
            return []
        return ["its schema"]
    finally:
        if own is not None:
            own.close()


def has_wal(db: Path) -> bool:
    """Whether something was committed that the file itself doesn't hold yet: a writer is at work, or was killed."""
    wal = db.with_name(f"{db.name}-wal")
    return wal.is_file() and wal.stat().st_size > 0


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 where Python's module raised the error by itself."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def opened_to_look(db: Path) -> sqlite3.Connection:
    """A connection that can't write. Where no -shm could be made beside the file, it is one that needs none."""
    frozen = "&immutable=1" if not os.access(db.parent, os.W_OK) and not has_wal(db) else ""
    return sqlite3.connect(f"{db.resolve().as_uri()}?mode=ro{frozen}", uri=True, timeout=1)


def _check(conn: sqlite3.Connection, table: str | None = None) -> str:
    quoted = '"' + table.replace('"', '""') + '"' if table else "1"
    try:
        return str(conn.execute(f"PRAGMA integrity_check({quoted})").fetchone()[0])
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.Error) and code_of(error) not in DAMAGED:
            raise
        return str(error)

"""Whose database a file is, learned without touching it: kvt's, nobody's yet, or another program's.

The file's header tells first; SQLite itself looks at the tables of what is left, on a connection that can't write.
"""

import sqlite3
import struct
import time
from pathlib import Path

from kvt_async.contract.damage import damage, has_wal
from kvt_async.contract.errors import StoreError
from kvt_async.contract.local_faults import damaged

APPLICATION_ID = 0x6B76742D  # "kvt-" in the file's header, for `file` and for people
_MAGIC, _HEADER = b"SQLite format 3\0", 100
_OURS = {"experiments", "sessions", "datasets", "manifests", "runs", "requests", "attempts", "responses"}
_LOOKS, _PAUSE_S = 20, 0.05
_ELSEWHERE = "Choose another place: --override db.path=FILE or output.runs_dir=DIR."


def refuse_others(db: Path, damage_below: int, *, immutable: bool = False) -> None:
    """Raise StoreError where `db` is no database, another program's, or damaged; nothing is changed or made beside it.

    An empty file is nobody's. Without kvt's application_id, which came late, the tables tell. Damage is looked for in
    files of less than `damage_below` bytes. Raises sqlite3.OperationalError where the file is locked. No connection of
    this process may be open on the file: its locks would be lost when this function closes its own handles.
    """
    if not db.exists() or (db.is_file() and db.stat().st_size == 0):
        return
    if not db.is_file():
        raise StoreError("the database can't be used: it is no file", where=str(db), do=_ELSEWHERE)
    with db.open("rb") as file:
        header = file.read(_HEADER)
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        raise StoreError(
            "the database can't be used: file is not a database",
            where=str(db),
            do=f"It was damaged, or was never one. Move it away. {_ELSEWHERE}",
        )
    (application,) = struct.unpack(">I", header[68:72])
    if application not in (0, APPLICATION_ID):
        raise _foreign(db, f"its application_id is {application:#010x}")
    for _ in range(_LOOKS):
        before = _stamp(db)
        try:
            return _look(db, application == APPLICATION_ID, damage_below, immutable)
        except (StoreError, sqlite3.DatabaseError):
            if _stamp(db) == before:
                raise
            time.sleep(_PAUSE_S)  # somebody wrote meanwhile, and a look without locks saw half of it
    return _look(db, application == APPLICATION_ID, damage_below, immutable)


def _stamp(db: Path) -> tuple[int, int, bool]:
    status = db.stat()
    return status.st_mtime_ns, status.st_size, has_wal(db)


def _look(db: Path, marked: bool, damage_below: int, immutable: bool) -> None:
    frozen = "&immutable=1" if immutable or not has_wal(db) else ""
    conn = sqlite3.connect(f"{db.resolve().as_uri()}?mode=ro{frozen}", uri=True, timeout=0.5, isolation_level=None)
    try:
        tables = {row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not marked and not tables >= _OURS:
            names = ", ".join(sorted(tables)[:3])
            raise _foreign(db, f"it holds {len(tables)} {'table' if len(tables) == 1 else 'tables'} ({names})")
        tables_damaged = damage(db, conn) if db.stat().st_size < damage_below else []
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.OperationalError) and not isinstance(error, UnicodeDecodeError):
            raise
        tables_damaged = ["its schema"]
    finally:
        conn.close()
    if tables_damaged:
        raise damaged(db, tables_damaged)


def _foreign(db: Path, why: str) -> StoreError:
    return StoreError(f"this is another program's database: {why}; nothing was changed", where=str(db), do=_ELSEWHERE)

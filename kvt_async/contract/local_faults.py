"""What this machine may lack while kvt works (room, rights, a whole database), said with what to do about it."""

import errno
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from kvt_async.contract.errors import KvtError, StoreError

KEPT = "everything committed so far is kept"
_FREE_SPACE = f"Free disk space and run the same command again: {KEPT}."
_ADVICE = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: f"Raise the limit of file sizes (ulimit -f) and run the same command again: {KEPT}.",
    errno.EIO: "The disk or its connection failed: look into the system's log, then run the same command again.",
    errno.EROFS: "Choose a folder that can be written: --override output.runs_dir=DIR.",
    errno.EACCES: "Make it writable, or choose another place: --override output.runs_dir=DIR.",
    errno.EPERM: "Make it writable, or choose another place: --override output.runs_dir=DIR.",
    errno.EISDIR: "Move it away: a file of this name is written here.",
    errno.ENOTDIR: "Move it away: a folder of this name is needed here.",
    errno.EEXIST: "Move it away: a folder of this name is needed here.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n) and run the same command again.",
    errno.ENFILE: "The system has too many files open: close some programs, then run the same command again.",
    errno.ENOMEM: "Give this process more memory, or close other programs, then run the same command again.",
    errno.ENOLCK: "Put the run on a local disk: --override output.runs_dir=/local/path.",
    errno.ESTALE: "The network disk went away: run the same command again once it is back.",
    errno.ENAMETOOLONG: "Choose a shorter name or place.",
    errno.ELOOP: "Remove the link that leads in a circle.",
}
_OTHERS = {  # SQLite's codes for what lies outside of the program
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
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LEAST_BYTES = 1 << 16  # with less, not even a -shm can be made
_NAMED = 8  # damaged tables that are named
opened: dict[Path, tuple[int, int]] = {}
"""Databases that this process opened, by their path without links, with device and inode: what went wrong in one is
looked for there."""


def store_error(db: Path, error: Exception) -> StoreError:
    """Turn an OS or SQLite error into advice."""
    text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    if "disk I/O error" in text and _is_full(db):  # SQLite's word where its -shm finds no room
        text += ", since its disk is full"
    if isinstance(error, sqlite3.Error) and _code(error) in _DAMAGED:
        return damaged(db, damage(db), text)
    if "disk is full" in text or "No space left" in text:
        advice = _FREE_SPACE
    elif "readonly" in text or "Permission" in text or "Read-only" in text or "unable to open" in text:
        advice = "Make the folder writable, or choose another with --override output.runs_dir=DIR."
    elif "locked" in text or "busy" in text:
        advice = "Another program holds the database; wait for it or close it, then run the same command again."
    else:
        advice = "Everything committed so far is kept; run the same command again once the cause is gone."
    return StoreError(f"the database can't be used: {text}", where=str(db), do=advice)


def file_error(error: OSError, what: str = "", where: Path | None = None) -> StoreError:
    """The same for a file that can't be read or written."""
    place = where or error.filename or ""
    reason = error.strerror or str(error)
    return StoreError(f"{what}: {reason}" if what else reason, where=str(place), do=_ADVICE.get(error.errno or 0, ""))


def damaged(db: Path, tables: list[str], text: str = "") -> StoreError:
    """A database that holds something else than was written there; nothing is written to it any more."""
    more = f" and {len(tables) - _NAMED} more" if len(tables) > _NAMED else ""
    named = f" in {', '.join(tables[:_NAMED])}{more}" if tables else ""
    return StoreError(
        f"the database is damaged{named}" + (f": {text}" if text else ""),
        where=str(db),
        do="Restore it from a copy, or move it away and run the sweep again. What can be read is saved by "
        f"`sqlite3 {db} .recover | sqlite3 saved.sqlite`.",
    )


def damage(db: Path, conn: sqlite3.Connection | None = None) -> list[str]:
    """What SQLite's quick_check finds wrong: tables by name, 'its schema', 'its free pages'; empty: nothing."""
    own = None
    try:
        conn = conn or (own := sqlite3.connect(f"{db.resolve().as_uri()}?mode=ro", uri=True, timeout=1))
        if _quick_check(conn) == "ok":
            return []
        tables = [row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")]
        return [name for name in tables if _quick_check(conn, name) != "ok"] or ["its free pages"]
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return ["its schema"]
    finally:
        if own is not None:
            own.close()


def explained(error: BaseException) -> KvtError | None:
    """What a user is told where `error` would end kvt; None: it is a bug of ours, and its traceback is of use."""
    for one in _chain(error):
        if isinstance(one, KvtError):
            return one
        if isinstance(one, OSError) and one.errno in _ADVICE:
            return file_error(one)
        if isinstance(one, OSError) and one.errno == errno.ENOENT and one.filename is not None:
            return file_error(one)
        if isinstance(one, MemoryError):
            return StoreError("there is not enough memory", do=_ADVICE[errno.ENOMEM])
        if isinstance(one, sqlite3.Error) and _code(one) in _OTHERS | _DAMAGED:
            return store_error(_which(), one)
        if type(one).__module__.startswith("polars") and "(os error " in str(one):
            code = int(str(one).partition("(os error ")[2].partition(")")[0])
            return file_error(OSError(code, str(one)))
    return _damage_behind(error)


def _damage_behind(error: BaseException) -> StoreError | None:
    """The damage of a database that was open, if there is some: it can make any exception."""
    for db in opened:
        if db.is_file() and (tables := damage(db)):
            return damaged(db, tables)
    for one in _chain(error):
        if isinstance(one, UnicodeDecodeError) or (isinstance(one, sqlite3.Error) and "decode to UTF-8" in str(one)):
            return damaged(_which(), [], "it holds text that is no UTF-8") if opened else None
        if isinstance(one, json.JSONDecodeError) and opened:
            return damaged(_which(), [], f"it holds JSON that is none ({one})")
        if isinstance(one, sqlite3.OperationalError) and str(one).startswith("no such ") and opened:
            return damaged(_which(), ["its schema"], str(one))
    return None


def _which() -> Path:
    """The database that was opened, where it was one."""
    return next(iter(opened)) if len(opened) == 1 else Path()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what lies in it where it is a group, and what caused it."""
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop(0)
        if one is None or one in seen:
            continue
        seen.append(one)
        yield one
        todo += [*getattr(one, "exceptions", ()), one.__cause__, None if one.__suppress_context__ else one.__context__]


def _is_full(db: Path) -> bool:
    try:
        return shutil.disk_usage(db.parent).free < _LEAST_BYTES
    except OSError:
        return False


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0: the module itself raised it."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _quick_check(conn: sqlite3.Connection, table: str | None = None) -> str:
    quoted = '"' + table.replace('"', '""') + '"' if table else "1"
    try:
        return str(conn.execute(f"PRAGMA quick_check({quoted})").fetchone()[0])
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.Error) and _code(error) not in _DAMAGED:
            raise
        return str(error)

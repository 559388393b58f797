"""What this machine may lack while kvt works (room, rights, a whole database), said with what to do about it."""

import errno
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from kvt_async.contract.damage import DAMAGED, OUTSIDE, code_of, damage
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
_SHM_BYTES = 1 << 15  # by which a -shm grows: the most that any of SQLite's files grows at once
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
    elif "disk I/O error" in text and (most := _size_limit(db)):
        text += f", since files may have {most:,} bytes here"
    if isinstance(error, sqlite3.Error) and code_of(error) in DAMAGED:
        return damaged(db, damage(db), text)
    if "disk is full" in text or "No space left" in text:
        advice = _FREE_SPACE
    elif "files may have" in text or (isinstance(error, OSError) and error.errno == errno.EFBIG):
        advice = _ADVICE[errno.EFBIG]
    elif "readonly" in text or "Permission" in text or "Read-only" in text or "unable to open" in text:
        advice = "Make the folder writable, or choose another with --override output.runs_dir=DIR."
    elif "locked" in text or "busy" in text:
        advice = "Another program holds the database; wait for it or close it, then run the same command again."
    else:
        advice = "Everything committed so far is kept; run the same command again once the cause is gone."
    return StoreError(f"the database can't be used: {text}", where=str(db), do=advice)


def file_error(error: OSError, what: str = "", where: Path | None = None) -> StoreError:
    """Turn an error about a file that can't be read or written into advice."""
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


def explained(error: BaseException) -> KvtError | None:
    """What a user is told where `error` would end kvt; None: it is a bug of ours, and its traceback is of use."""
    for part in _chain(error):
        if isinstance(part, KvtError):
            return part
        if isinstance(part, OSError) and part.errno in _ADVICE:
            return file_error(part)
        if isinstance(part, OSError) and part.errno == errno.ENOENT and part.filename is not None:
            return file_error(part)
        if isinstance(part, MemoryError):
            return StoreError("there is not enough memory", do=_ADVICE[errno.ENOMEM])
        if isinstance(part, sqlite3.Error) and code_of(part) in OUTSIDE | DAMAGED:
            return store_error(_suspect(code_of(part) in DAMAGED), part)
        if type(part).__module__.startswith("polars") and "(os error " in str(part):
            code = int(str(part).partition("(os error ")[2].partition(")")[0])
            return file_error(OSError(code, str(part)))
    return _damage_behind()


def _damage_behind() -> StoreError | None:
    """The damage of a database that was open, if there is some: it can make any exception."""
    from kvt_async.contract.contents import strange_contents

    for db in opened:
        if db.is_file() and (tables := damage(db) or strange_contents(db)):
            return damaged(db, tables)
    return None


def _suspect(damaged_one: bool) -> Path:
    """The database that an error of SQLite is about: the damaged one, or else the one that was opened last."""
    several = damaged_one and len(opened) > 1
    return next((db for db in opened if several and damage(db)), next(reversed(opened), Path()))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what lies in it where it is a group, and what caused it."""
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        part = todo.pop(0)
        if part is None or part in seen:
            continue
        seen.append(part)
        yield part
        context = None if part.__suppress_context__ else part.__context__
        todo += [*getattr(part, "exceptions", ()), part.__cause__, context]


def _is_full(db: Path) -> bool:
    try:
        return shutil.disk_usage(db.parent).free < _LEAST_BYTES
    except OSError:
        return False


def _size_limit(db: Path) -> int | None:
    """The limit of file sizes, in bytes, where the database or a file of its reaches it; None: it doesn't."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    files = [db, *(db.with_name(f"{db.name}-{end}") for end in ("wal", "shm", "journal"))]
    largest = max((file.stat().st_size for file in files if file.is_file()), default=0)
    return None if most == resource.RLIM_INFINITY or largest + _SHM_BYTES < most else most

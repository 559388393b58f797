"""Waiting for a database that others hold: a word about who holds it, and an end.

SQLite says only that it is busy. Linux tells who holds a lock in /proc/locks: the file itself, or its -shm in WAL mode.
"""

import multiprocessing
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from kvt_async.contract.errors import StoreError
from kvt_async.contract.visible import visible

LIMIT_S = 30.0
TELL_AFTER_S = 2.0
SLICE_MS = 500  # SQLite's own wait within one try
SIBLINGS_LIMIT_S = 600.0  # processes of one command that write in turn
Result = TypeVar("Result")


@contextmanager
def transaction(conn: sqlite3.Connection, db: Path) -> Iterator[None]:
    """BEGIN IMMEDIATE, waited for; COMMIT, or ROLLBACK where the block raises. Raises StoreError: others hold it."""
    patiently(db, lambda: conn.execute("BEGIN IMMEDIATE"))
    try:
        yield
        conn.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk made SQLite roll back already: its error is the one to tell
            if conn.in_transaction:
                conn.execute("ROLLBACK")
        raise


def patiently(db: Path, do: Callable[[], Result]) -> Result:
    """do(), again while the database is busy. After TELL_AFTER_S stderr is told who holds it; StoreError after LIMIT_S.

    `do` itself should wait for SLICE_MS only.
    """
    began, is_announced = time.monotonic(), False
    limit = LIMIT_S if multiprocessing.parent_process() is None else SIBLINGS_LIMIT_S
    while True:
        try:
            return do()
        except sqlite3.OperationalError as error:
            if (error.sqlite_errorcode & 0xFF) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            waited = time.monotonic() - began
            if waited > limit:
                raise StoreError(
                    f"the database is held by {who_holds(db)}; waited {waited:.0f} s",
                    where=str(db),
                    do="Wait for it or end it, then run the same command again: everything committed so far is kept.",
                ) from None
        if not is_announced and waited > TELL_AFTER_S:
            is_announced = True
            _tell(f"waiting up to {limit:.0f} s: {db} is held by {who_holds(db)}")
        time.sleep(0.02)


def who_holds(db: Path) -> str:
    """'process 123 (sqlite3 x.sqlite)', or 'another program' where the system doesn't tell."""
    pids: list[int] = []
    with suppress(OSError, ValueError):
        inodes = {_inode(file) for file in (db, db.with_name(f"{db.name}-shm")) if file.exists()}
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if len(words) >= 6 and words[1] == "POSIX" and words[3] == "WRITE" and words[5] in inodes:
                pids.append(int(words[4]))
    others = sorted({pid for pid in pids if pid not in (os.getpid(), 0)})
    return " and ".join(f"process {pid}{_command(pid)}" for pid in others) or "another program"


def _inode(file: Path) -> str:
    """As /proc/locks names a file."""
    status = file.stat()
    return f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return ""
    text = " ".join(words).strip()
    return f" ({text if len(text) <= 80 else text[:77] + '...'})" if text else ""


def _tell(line: str) -> None:
    if sys.stderr is not None:
        print(visible(line), file=sys.stderr, flush=True)

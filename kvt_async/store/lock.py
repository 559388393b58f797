"""One runner to a database. The lock is the kernel's: it ends with its owner, however that ends."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from kvt_async.contract.errors import StoreError
from kvt_async.contract.files import PRIVATE
from kvt_async.contract.local_faults import store_error

_TRIES, _PAUSE_S = 6, 0.05  # `kvt status` holds a shared lock for some microseconds when it looks


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a database; `since` is UTC, ISO 8601."""

    pid: int
    host: str
    since: str
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}: {self.command}"


@contextlib.contextmanager
def hold(db: Path, command: str, since: str) -> Iterator[None]:
    """Hold the database's lock. Raises StoreError that says who holds it, or why no lock can be had here.

    The lock file stays behind, empty: removing it would let two processes hold two files of one name.
    """
    try:
        db.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(lock_path(db), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise store_error(db, error) from error
    try:
        _take(fd, db)
        me = Holder(os.getpid(), socket.gethostname(), since, command)
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, orjson.dumps(asdict(me)), 0)
        except OSError as error:
            raise store_error(db, error) from error
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def holder(db: Path) -> Holder | None:
    """Who holds the lock now; None: nobody. Never waits."""
    try:
        fd = os.open(lock_path(db), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except OSError:
        return _read(fd)
    finally:
        os.close(fd)


def lock_path(db: Path) -> Path:
    return db.with_name(db.name + ".lock")


def _take(fd: int, db: Path) -> None:
    for n in range(_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if n < _TRIES - 1:
                time.sleep(_PAUSE_S)
        except OSError as error:
            raise StoreError(
                f"this file system gives no file locks ({error.strerror})",
                where=str(db),
                do="Put the run on a local disk: --override output.runs_dir=/local/path.",
            ) from error
    raise StoreError(
        "another runner holds this database; nothing was sent",
        where=str(db),
        details=(str(_read(fd)),),
        do="Wait for it, stop it, or watch it with `kvt status --watch`.",
    )


def _read(fd: int) -> Holder:
    try:
        return Holder(**orjson.loads(os.pread(fd, 65536, 0)))
    except (OSError, TypeError, orjson.JSONDecodeError):
        return Holder(0, "unknown host", "unknown time", "unknown command")

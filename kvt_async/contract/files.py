"""Files that kvt makes: private ones, whole ones, and scratch that a killed process leaves behind."""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kvt_async.contract.errors import StoreError
from kvt_async.contract.local_faults import file_error

PRIVATE = 0o600  # prompts and answers may be anybody's secret


def make_private(path: Path) -> None:
    """An empty file that only its owner reads, where there is none. What is there keeps its mode."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, PRIVATE))


def append_to(path: Path) -> BinaryIO:
    """Open a log for writing at its end, private where it is made. Raises StoreError: something else is in the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_other_kinds(path)
    try:
        make_private(path)
        return path.open("ab")
    except OSError as error:
        raise file_error(error, "it can't be written") from error


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file, or leave the one that is there. Raises StoreError: a folder or a pipe is in the way, or no room."""
    target = Path(os.path.realpath(path))
    refuse_other_kinds(target)
    half = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise file_error(error, "a file is in the way of a folder", path.parent) from error
    try:
        sweep(target.parent, f".{target.name}.*.new")
        with half.open("wb") as file:
            hold_scratch(file.fileno())
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            if target.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            file.flush()
            half.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            half.unlink()
        raise file_error(error, "it can't be written", path) from error


def refuse_other_kinds(path: Path) -> None:
    """Raise StoreError where something that is no file bears the name of one that is to be written."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISCHR(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "no file"
        raise StoreError(f"{kind} is in the way of a file", where=str(path), do="Move it away, then run this again.")


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder that goes when the block ends. Those of processes that were killed are removed first."""
    sweep(parent, f"{prefix}*")
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        hold_scratch(fd)
        folder.mkdir(mode=0o700, exist_ok=True)  # another process may have swept it before it was held
        yield folder


def hold_scratch(fd: int) -> None:
    """Lock scratch, so that no other process sweeps it. Where the file system gives no locks, none sweeps at all."""
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_EX)


def sweep(folder: Path, pattern: str) -> None:
    """Remove scratch that nobody holds: its owner was killed, for a lock is the kernel's and ends with its owner."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(fd)

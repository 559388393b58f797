"""What this machine lacks while kvt sends (open files, ports, memory, its network, its name service): never a server's
fault. A try that met it was none: it is made again, and where nothing gets through the run stops."""

import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kvt_async.contract.errors import GuardError, LocalError

OTHER_FILES = 40  # open beside connections: database, log, modules, sockets of its own
PATIENCE_S = 10.0  # while no request of ours gets through
_HERE = {
    errno.ENFILE: "the whole system has too many files open; close other programs",
    errno.EADDRNOTAVAIL: "no local port is free for another connection; lower limits.concurrency, or wait a minute",
    errno.EADDRINUSE: "no local port is free for another connection; lower limits.concurrency, or wait a minute",
    errno.ENOBUFS: "the system has no buffers for another connection; lower limits.concurrency",
    errno.ENOMEM: "the system has no memory for another connection; lower limits.concurrency",
    errno.ENETDOWN: "the network of this machine is down",
    errno.ENETUNREACH: "this machine has no network on which the server could be reached",
}
_NAMES_HERE = frozenset({socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY})


class Room:
    """Requests in flight that this machine does not let out."""

    def __init__(self) -> None:
        self.lacking: Counter[str] = Counter()  # tries that it did not let out, by what it lacked
        self._starving = 0
        self._since: float | None = None  # when it came to let none out, monotonic seconds

    @contextmanager
    def starved(self) -> Iterator[None]:
        """One request more is kept in while the block runs."""
        self._starving += 1
        try:
            yield
        finally:
            self._starving -= 1
            self._since = None

    def is_hopeless(self, reason: str, in_flight: int, patience_s: float) -> bool:
        """Count a try; whether none of the requests in flight has got out for so long. While some are out, they will
        leave room when they end."""
        self.lacking[reason] += 1
        now = time.perf_counter()
        if self._starving < in_flight:
            self._since = None
        elif self._since is None:
            self._since = now
        return self._since is not None and now - self._since > patience_s


def cause_here(error: BaseException | None) -> str | None:
    """What this machine lacked where a connection failed, and what to do about it; None: it was not ours."""
    for cause in _chain(error):
        code = cause.errno
        if code == errno.EMFILE or (isinstance(cause, socket.gaierror) and not _can_open()):
            limit = f"this process may open {file_limit() or 0:,} files and has no more"
            return f"{limit}; raise that (ulimit -n), or lower limits.concurrency"
        if isinstance(cause, socket.gaierror):
            if code in _NAMES_HERE:
                return "the name service of this machine gives no answer; look at its network"
        elif code in _HERE:
            return _HERE[code]
    return None


def file_limit() -> int | None:
    """Files that this process may open at most, once `raise_file_limit` has done its work; None: any number."""
    try:
        import resource
    except ImportError:  # not on this platform
        return None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def check_files(in_flight: int, where: str, do: str) -> None:
    """Raises GuardError for more connections at once than this process may open. `do`: how to ask for {most}."""
    files = file_limit()
    if files is None or in_flight + OTHER_FILES <= files:
        return
    most = files - OTHER_FILES
    enough = f"raise the hard limit (ulimit -Hn) to {in_flight + OTHER_FILES:,} or more"
    raise GuardError(
        f"{in_flight:,} requests in flight need as many connections, and this process may open {files:,} files",
        where=where,
        do=f"{do.format(most=f'{most:,}')}, or {enough}." if most > 0 else f"First {enough}.",
    )


def local_error(reason: str, where: str) -> LocalError:
    return LocalError(f"nothing can be sent: {reason}", where=where, do="Then run the same command again.")


def _can_open() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


def _chain(error: BaseException | None) -> Iterator[OSError]:
    """The OS errors in it: itself, what it wraps, what caused it."""
    for _ in range(8):
        if error is None:
            return
        if isinstance(error, OSError):
            yield error
        error = getattr(error, "os_error", None) or error.__cause__ or error.__context__


def raise_file_limit() -> None:
    """One socket a stream: the usual soft limit of 1,024 files is too low for a big run, and ours to raise."""
    try:
        import resource
    except ImportError:  # not on this platform
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

"""`python -m kvt_async.run.keeper PARENT_PID GRACE_S COMMAND ...`: runs a launched server so that it can't outlive kvt.

The kernel tells this process when kvt dies, also by kill -9; it then stops the server's whole process group: TERM, and
KILL to what is left after the grace period. Processes that left the group are this one's to inherit, and go the same
way. Should this process itself be killed, the kernel kills the server. It ends with the server's own exit code.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
POLL_S = 0.02


def keep(parent: int, grace_s: float, command: list[str]) -> int:
    """Run `command` to its end, or until this process is told to stop."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, _: asked.append(signum))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is kvt's to answer
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_keeper,  # noqa: PLW1509  # this process has one thread
        )
    except OSError as error:
        print(f"{command[0]} can't be started: {error.strerror}", file=sys.stderr, flush=True)
        return 127
    while server.poll() is None:
        if asked or os.getppid() != parent:
            return stop(server, grace_s)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(0.05)
    stop(server, grace_s)  # its children, if it left any
    return server.returncode


def stop(server: "subprocess.Popen[bytes]", grace_s: float) -> int:
    """TERM to the group and to what left it, KILL to what is left of both after `grace_s`."""
    until = time.monotonic() + grace_s
    _signal(server, signal.SIGTERM)
    while _anyone(server) and time.monotonic() < until:
        time.sleep(POLL_S)
    while _anyone(server):
        _signal(server, signal.SIGKILL)
        time.sleep(POLL_S)
    return server.wait()


def _anyone(server: "subprocess.Popen[bytes]") -> bool:
    """Whether the server, its group or a process inherited from it still runs. Reaps those that ended."""
    if server.poll() is None:
        return True
    for pid in _children():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    try:
        os.killpg(server.pid, 0)
    except (ProcessLookupError, PermissionError):
        return bool(_children())
    return True


def _signal(server: "subprocess.Popen[bytes]", signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(server.pid, signum)
    for pid in _children():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def _children() -> list[int]:
    """Processes of this one: the server, and on Linux whatever it left behind."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            after_name = path.read_text().rpartition(")")[2].split()  # the name may hold blanks and brackets
            if int(after_name[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


def _die_with_keeper() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    sys.exit(keep(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))

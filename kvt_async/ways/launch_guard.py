"""`python -m kvt_async.ways.launch_guard PARENT_PID GRACE_S COMMAND`: a launched server that can't outlive kvt.

The kernel tells this process when kvt dies, also by kill -9; it then stops the server's whole process group: TERM, and
KILL to what is left after the grace period. Processes that left the group are this one's to inherit, and go the same
way. Should this process itself be killed, the kernel kills the server. It ends with the server's own exit code.

Where SECRETS_VARIABLE names some (a JSON list), what the server prints comes through here and is written masked:
servers print the command and the environment that they were started with.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from kvt_async.contract.secrets import Secrets

SECRETS_VARIABLE = "KVT_GUARD_SECRETS"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
POLL_S = 0.02
IDLE_S = 0.2  # then a line that has not ended is written too
LONGEST_LINE = 65536  # bytes that are kept waiting for their line's end


def keep(parent: int, grace_s: float, command: list[str]) -> int:
    """Run `command` to its end, or until this process is told to stop."""
    stop_signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, _: stop_signals.append(signum))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is kvt's to answer
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    secrets = Secrets(json.loads(os.environ.pop(SECRETS_VARIABLE, "[]")))
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if secrets else None,
            stderr=subprocess.STDOUT if secrets else None,
            start_new_session=True,
            preexec_fn=_die_with_guard,  # noqa: PLW1509  # this process has one thread
        )
    except OSError as error:
        print(f"{secrets.text(command[0])} can't be started: {error.strerror}", file=sys.stderr, flush=True)
        return 127
    if server.stdout is None:
        return _until_the_end(server, parent, grace_s, stop_signals)
    masked = threading.Thread(target=pass_on, args=(server.stdout.fileno(), sys.stdout.fileno(), secrets), daemon=True)
    masked.start()
    code = _until_the_end(server, parent, grace_s, stop_signals)
    masked.join(grace_s + 1)  # nobody holds the other end any more
    return code


def _until_the_end(server: "subprocess.Popen[bytes]", parent: int, grace_s: float, stop_signals: list[int]) -> int:
    while server.poll() is None:
        if stop_signals or os.getppid() != parent:
            return stop(server, grace_s)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(0.05)
    stop(server, grace_s)  # its children, if it left any
    return server.returncode


def pass_on(source: int, sink: int, secrets: Secrets) -> None:
    """Copy what comes from one file descriptor to another, line by line and masked, until the first is closed."""
    waiting = b""
    while True:
        if waiting and not select.select([source], [], [], IDLE_S)[0]:
            text = waiting.decode("utf-8", "surrogateescape")  # a prompt, say: all but what may become a secret
            ready = text[: secrets.begins_at(text)].encode("utf-8", "surrogateescape")
            _write(sink, secrets.page(ready))
            waiting = waiting[len(ready) :]
        data = os.read(source, LONGEST_LINE)
        if not data:
            text = waiting.decode("utf-8", "surrogateescape")
            _write(sink, secrets.clipped(text).encode("utf-8", "surrogateescape"))
            return
        waiting += data
        end = waiting.rfind(b"\n") + 1
        if end == 0 and len(waiting) > LONGEST_LINE + secrets.margin:
            end = len(waiting) - secrets.margin
        _write(sink, secrets.page(waiting[:end]))
        waiting = waiting[end:]


def _write(sink: int, data: bytes) -> None:
    """All of it; a full disk is no reason to let the server wait for us."""
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(sink, data) :]


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
    pids = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            after_name = path.read_text().rpartition(")")[2].split()  # the name may hold blanks and brackets
            if int(after_name[1]) == os.getpid():
                pids.append(int(path.parent.name))
    return pids


def _die_with_guard() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    sys.exit(keep(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))

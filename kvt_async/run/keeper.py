"""`python -m kvt_async.run.keeper PARENT_PID GRACE_S COMMAND ...`: runs a launched server so that it can't outlive kvt.

The kernel tells this process when kvt dies, also by kill -9; it then stops the server's whole process group: TERM, and
KILL after the grace period. It ends with the server's own exit code.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1


def keep(parent: int, grace_s: float, command: list[str]) -> int:
    """Run `command` to its end, or until this process is told to stop."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, _: asked.append(signum))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is kvt's to answer
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        print(f"{command[0]} can't be started: {error.strerror}", file=sys.stderr, flush=True)
        return 127
    while server.poll() is None:
        if asked or os.getppid() != parent:
            return stop(server, grace_s)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(0.05)
    stop(server, 0)  # its children, if it left any
    return server.returncode


def stop(server: "subprocess.Popen[bytes]", grace_s: float) -> int:
    """TERM to the group, KILL to what is left of it after `grace_s`."""
    until = time.monotonic() + grace_s
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(server.pid, signal.SIGTERM)
        while time.monotonic() < until and server.poll() is None:
            time.sleep(0.02)
        os.killpg(server.pid, signal.SIGKILL)
    return server.wait()


if __name__ == "__main__":
    sys.exit(keep(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))

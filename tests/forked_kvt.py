"""kvt as a process of its own that need not load anything: forked from one which has loaded what commands need.

Starting Python and loading kvt takes half a second, and hundreds of tests run a command. A command's process is as
one that `python -m kvt_async` starts: its own folder, environment, streams and exit code. The one it is forked from
has no thread, loop, file or library of the analysis.
"""

import atexit
import gc
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run_kvt(
    args: Sequence[str], folder: Path, env: Mapping[str, str], *, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """`kvt ARGS...` in a folder with nothing but this environment. Raises TimeoutExpired."""
    return _source().run(args, folder, env, timeout)


class _Source:
    """The process that commands are forked from."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked_kvt"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._folder = tempfile.TemporaryDirectory(prefix="forked-kvt-")
        atexit.register(self.close)

    def run(
        self, args: Sequence[str], folder: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        out, err = (Path(self._folder.name) / name for name in ("out", "err"))
        asked = {"args": list(args), "folder": str(folder), "env": dict(env), "timeout": timeout}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked | {"out": str(out), "err": str(err)}) + "\n")
        self._process.stdin.flush()
        code = json.loads(self._process.stdout.readline())
        shown, errors = (path.read_text(encoding="utf-8") for path in (out, err))
        if code is None:
            raise subprocess.TimeoutExpired(["kvt", *args], timeout, shown, errors)
        return subprocess.CompletedProcess(["kvt", *args], code, shown, errors)

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()


@cache
def _source() -> _Source:
    return _Source()


def _serve() -> None:
    """A line of JSON asks for a command, a line answers with its exit code; null: it took too long and was killed."""
    import kvt_async.__main__  # what commands need is loaded before the first is forked
    import kvt_async.cli
    import kvt_async.data.prepare
    import kvt_async.planned_tasks
    import kvt_async.sweep.sweep
    import kvt_async.validate  # noqa: F401

    tempfile.tempdir = None
    gc.freeze()  # or the first collection of a command copies every page
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    while line := sys.stdin.readline():
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.close(answers)
            _become(asked)
            sys.modules["__main__"].main()
            return
        os.write(answers, (json.dumps(_ended(pid, asked["timeout"])) + "\n").encode())


def _become(asked: Mapping[str, Any]) -> None:
    """The command's folder, environment, streams and arguments."""
    os.chdir(asked["folder"])
    sys.path[0] = asked["folder"]
    os.environ.clear()
    os.environ.update(asked["env"])
    streams = [os.open(os.devnull, os.O_RDONLY)]
    streams += [os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for name in ("out", "err")]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")
    sys.modules["__main__"] = sys.modules["kvt_async.__main__"]
    sys.argv = [str(sys.modules["__main__"].__file__), *asked["args"]]


def _ended(pid: int, timeout: float) -> int | None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)  # polling a process, bounded by the deadline
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return None


if __name__ == "__main__":
    _serve()

"""One shard's `kvt run` on a node: its folder, its process, what it says.

The process hangs on a guard that dies with this one, however that ends; so does a server that it launched.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from kvt_async.contract.files import PRIVATE

LINES_KEPT = 200


class ShardProcess:
    """At most one process at a time. `receive` brings its files, `start` begins it."""

    def __init__(self, folder: Path) -> None:
        """`folder`: this shard's own, on the node's disk."""
        self.folder = folder
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def receive(self, name: str, data: bytes, *, first: bool) -> None:
        """Write a file below the folder, or, not `first`, more of it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if first else os.O_APPEND)
        with open(os.open(path, flags, PRIVATE), "wb") as file:
            file.write(data)

    def start(self, arguments: Sequence[str], cwd: str | None, grace_s: float) -> None:
        """Run `kvt` with these arguments, in `cwd` where this node has it. Its environment is the node's own, but for
        KVT__ variables: they are in the config that travelled."""
        kvt = [sys.executable, "-m", "kvt_async", *arguments]
        guard = [sys.executable, "-m", "kvt_async.ways.launch_guard", str(os.getpid()), str(grace_s), *kvt]
        self._reader = threading.Thread(  # it lives as long as the process: the kernel ties the guard to its thread
            target=self._run, args=(guard, cwd if cwd and Path(cwd).is_dir() else str(self.folder)), daemon=True
        )
        self._started = threading.Event()
        self._reader.start()
        self._started.wait()

    def _run(self, command: list[str], cwd: str) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("KVT__")}
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._started.set()
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line.rstrip("\n"))
        self._process.wait()

    @property
    def exit_code(self) -> int | None:
        """None: it runs, or was never started."""
        ended = self._reader is not None and not self._reader.is_alive()
        return self._process.returncode if ended and self._process is not None else None

    def new_lines(self) -> list[str]:
        """What it said since it was asked last."""
        lines = []
        with contextlib.suppress(IndexError):
            while True:
                lines.append(self._lines.popleft())
        return lines

    def stop(self) -> None:
        """Let what is in flight finish within the grace period."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

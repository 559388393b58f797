"""What of kvt runs inside a Ray worker: an actor that holds one shard's process, on the node where Ray placed it."""

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from kvt_async.cluster.new_rows import Marks, Pull
from kvt_async.cluster.shard_process import ShardProcess
from kvt_async.contract.files import scratch_folder


@dataclass(frozen=True, slots=True)
class Node:
    """Where a shard came to lie."""

    host: str
    pid: int
    kvt: str
    python: str

    @classmethod
    def here(cls) -> "Node":
        return cls(socket.gethostname(), os.getpid(), version("kvt"), ".".join(map(str, sys.version_info[:3])))


@dataclass(frozen=True, slots=True)
class ShardState:
    """`exit_code` None: its process runs. `lines`: what it said since it was asked last."""

    exit_code: int | None
    lines: tuple[str, ...]


class ShardOnNode:
    """The methods are called over Ray, one at a time; none of them waits for the process.

    Its folder is a new one below `scratch`. It goes at `clear`, or when the next shard of this name comes to this node:
    until then the logs of one that failed can be read.
    """

    def __init__(self) -> None:
        self._kept = ExitStack()
        self._pull: Iterator[bytes] | None = None

    def place(self, scratch: str, name: str) -> tuple[Node, str]:
        """The first call: where this is, and the shard's folder there, a new one. Raises OSError."""
        parent = Path(scratch)
        parent.mkdir(parents=True, exist_ok=True)
        self._process = ShardProcess(self._kept.enter_context(scratch_folder(parent, f"{name}-")))
        return Node.here(), str(self._process.folder)

    def receive(self, name: str, data: bytes, *, first: bool) -> None:
        """A file below the folder, or, not `first`, more of it."""
        self._process.receive(name, data, first=first)

    def start(self, arguments: Sequence[str], cwd: str, grace_s: float) -> None:
        self._process.start(arguments, cwd, grace_s)

    def state(self) -> ShardState:
        exit_code = self._process.exit_code  # first: what it said before it ended is said
        return ShardState(exit_code, tuple(self._process.new_lines()))

    def pull(self, db: str, since: Marks | None) -> bytes | None:
        """The next portion of the rows of a database below the folder that are newer than `since`, which begins a pull;
        None: that was the last."""
        if since is not None:
            self._pull = Pull(self._process.folder / db, since).portions()
        return next(self._pull, None) if self._pull is not None else None

    def stop(self) -> None:
        self._process.stop()

    def clear(self) -> None:
        """Remove the folder."""
        self._kept.close()

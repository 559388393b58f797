"""The shards of a sweep as tasks of a cluster: each is placed, fed, followed, and placed again where its node is lost.

A thread for each shard does that in its own order. Its rows come here every cluster.pull_s seconds and at its end, so
a lost node costs at most what was answered since.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvt_async.cluster.new_rows import Copy, database_pieces, file_pieces
from kvt_async.cluster.node import Node, ShardState
from kvt_async.cluster.ray_cluster import NodeLostError, Placed, RayCluster
from kvt_async.contract.cluster_settings import Cluster
from kvt_async.contract.errors import ConfigError, GuardError, InterruptedByUserError, KvtError, ServerError

STATE_S: Final = 0.5
MOST_LOSSES: Final = 5  # in a row, with no new row between them
FOLDER: Final = "{folder}"
_WORST_FIRST: Final = (InterruptedByUserError.exit_code, 2, 3, 5, 4, 1)
KNOWN_CODES: Final = (0, *_WORST_FIRST)


def exit_code_over(codes: Sequence[int]) -> int:
    """Of several shards' exit codes the one that says most: the first of 130, 2, 3, 5, 4, 1 and 0 that occurs."""
    return next((code for code in _WORST_FIRST if code in codes), 0)


Content = bytes | Path
"""What a file is to hold: these bytes, or what a file here holds; of a database, what is committed."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """What a node needs to run a shard."""

    name: str  # '2-of-4'
    folder: str  # what its folder on the node is called, before a part that is drawn
    db: Path  # the shard's database here: what it holds travels, and its new rows come back
    db_there: str  # where it lies below the shard's folder on the node
    files: Mapping[str, Content]  # name below that folder -> content
    arguments: tuple[str, ...]  # of kvt; FOLDER in them stands for that folder
    cwd: str
    grace_s: float


def pieces_of(content: Content) -> Iterator[bytes]:
    """The content in pieces that fit into a message."""
    if isinstance(content, bytes):
        return iter([content])
    return database_pieces(content) if content.suffix == ".sqlite" else file_pieces(content)


class ShardTasks:
    """`run` does all; `stop` may be called from a signal handler meanwhile."""

    def __init__(self, cluster: RayCluster, settings: Cluster, say: Callable[[str], None]) -> None:
        self._cluster, self._settings, self._say = cluster, settings, say
        self._stopping, self._cancelled = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._n_placed, self._placed_at = 0, time.monotonic()
        self._codes: dict[str, int] = {}
        self._errors: list[BaseException] = []

    def run(self, tasks: Sequence[ShardTask]) -> dict[str, int]:
        """Exit codes by the shards' names, once all have ended. Raises GuardError where those left find no place
        within cluster.wait_s, StoreError where rows can't be written here."""
        threads = [threading.Thread(target=self._thread, args=(task,), name=task.name, daemon=True) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(STATE_S)  # short, so that signals are handled
        for error in self._errors:
            raise error
        return self._codes

    def stop(self) -> None:
        """Once: let what is in flight finish within the shards' grace period. Twice: end them at once."""
        (self._cancelled if self._stopping.is_set() else self._stopping).set()

    def _thread(self, task: ShardTask) -> None:
        try:
            code = self._shard(task)
        except BaseException as error:
            self._errors.append(error)
            self._stopping.set()
            return
        with self._lock:
            self._codes[task.name] = code

    def _shard(self, task: ShardTask) -> int:
        """Its exit code."""
        losses = 0
        with Copy(task.db) as copy:
            while True:
                before = copy.marks()
                try:
                    return self._placed(task, copy)
                except NodeLostError as lost:
                    if self._cancelled.is_set():
                        return InterruptedByUserError.exit_code
                    losses = 0 if copy.marks() != before else losses + 1
                    if losses > MOST_LOSSES:
                        self._say(f"error: shard {task.name} was lost {losses} times in a row: {lost}")
                        return ServerError.exit_code
                    self._say(f"warning: shard {task.name} was lost ({lost}); it goes on elsewhere")

    def _placed(self, task: ShardTask, copy: Copy) -> int:
        """Run it at one place to its end. Raises NodeLostError."""
        actor = self._cluster.place()
        try:
            answer = actor.call("place", self._settings.scratch, task.folder, is_over=self._is_over)
            if answer is None:
                if self._stopping.is_set():
                    return InterruptedByUserError.exit_code
                raise self._no_place()
            node, folder = answer
            with self._counted():
                self._say(f"shard {task.name} runs on {node.host}")
                self._send(task, actor, node)
                arguments = [word.replace(FOLDER, folder) for word in task.arguments]
                actor.call("start", arguments, task.cwd, task.grace_s)
                return self._followed(task, actor, copy)
        finally:
            actor.release()

    def _send(self, task: ShardTask, actor: Placed, node: Node) -> None:
        """Raises ConfigError where the node has another kvt."""
        if node.kvt != (own := Node.here().kvt):
            raise ConfigError(
                f"node {node.host} has kvt {node.kvt}, here it is {own}", where="cluster", do="Install one."
            )
        for name, content in {**task.files, task.db_there: task.db}.items():
            for n, piece in enumerate(pieces_of(content)):
                actor.call("receive", name, piece, first=n == 0)

    def _followed(self, task: ShardTask, actor: Placed, copy: Copy) -> int:
        is_asked, pulled_at = False, time.monotonic()
        while True:
            state: ShardState = actor.call("state")
            for line in state.lines:
                self._say(f"{task.name}: {line}")
            is_over = state.exit_code is not None or self._cancelled.is_set()
            if is_over or time.monotonic() - pulled_at > self._settings.pull_s:
                self._pull(task, actor, copy)
                pulled_at = time.monotonic()
            if state.exit_code is not None:
                if state.exit_code not in KNOWN_CODES:  # killed, as by a node that ran out of memory
                    raise NodeLostError(f"its process ended with exit code {state.exit_code}")
                if state.exit_code == 0:
                    actor.call("clear")
                return state.exit_code
            if is_over:
                return InterruptedByUserError.exit_code
            if self._stopping.is_set() and not is_asked:
                actor.call("stop")
                is_asked = True
            time.sleep(STATE_S)

    @staticmethod
    def _pull(task: ShardTask, actor: Placed, copy: Copy) -> None:
        portion = actor.call("pull", task.db_there, copy.marks())
        while portion is not None:
            copy.add(portion)
            portion = actor.call("pull", task.db_there, None)
        copy.commit()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._n_placed += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_placed -= 1
                self._placed_at = time.monotonic()

    def _is_over(self) -> bool:
        """Whether a shard that has no place yet need not wait for one any more."""
        waited = time.monotonic() - self._placed_at > self._settings.wait_s
        return self._stopping.is_set() or (self._n_placed == 0 and waited)

    def _no_place(self) -> KvtError:
        wanted = ", ".join(f"{name} {amount:g}" for name, amount in self._settings.resources.items())
        return GuardError(
            f"no node of the cluster had room for a shard ({wanted}) within {self._settings.wait_s:g} s",
            where="cluster.resources",
            details=(f"the cluster has {self._cluster.resources}",),
            do="Ask for less, add nodes, or raise cluster.wait_s. What was answered is kept: the same command goes on.",
        )

"""`kvt sweep` of a config with `cluster`: prepare here, run every shard on a node, take its rows in, say how it ended.

The shards' databases lie where those of `kvt sweep --shard` lie, GROUP/shards/i-of-n.sqlite, and are read with the
group from the first rows on: `kvt status` and `kvt all` work meanwhile.
"""

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from kvt_async.clock import utc_now
from kvt_async.cluster.ray_cluster import RayCluster, connected
from kvt_async.cluster.shard_tasks import FOLDER, Content, ShardTask, ShardTasks, exit_code_over
from kvt_async.contract.cluster_settings import Cluster
from kvt_async.contract.paths import manifest_path
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings
from kvt_async.contract.shards.shard import Shard, part_of, shard_databases, shard_paths
from kvt_async.contract.visible import visible
from kvt_async.data.identity import dataset_id
from kvt_async.merge import merge_shards
from kvt_async.session.experiment_rows import command_line
from kvt_async.session.interrupts import SIGNALS
from kvt_async.session.invocation import paths_of, sayer
from kvt_async.store.lock import hold
from kvt_async.sweep.pending import Preparing, prepared_tasks
from kvt_async.sweep.sweep import SweepOptions, checked_levels
from kvt_async.ways.registry import way_of

_ENDING_S = 20.0  # for a process on a node to write its last rows, after its own grace period


def execute_on_cluster(settings: Settings, config: str, options: SweepOptions) -> int:
    """Run it, print the answer, return the exit code over all shards. `config`: what `travelling_yaml` made of it.

    Raises the errors of the config and of preparing as `kvt sweep` does, GuardError where no cluster answers or has
    room.
    """
    assert settings.cluster is not None
    checked_levels(settings)
    say = sayer(options.shows_nothing)
    own = paths_of(settings)
    with ExitStack() as held:
        held.enter_context(hold(own.db, command_line(settings), utc_now()))
        tasks = prepared_tasks(settings, Preparing(options.prepare_first, options.force), say)
        manifests = {
            f"data/processed/{name}/manifest.json": manifest_path(settings.output.data_dir, name)
            for name in (dataset_id(task.settings) for task in tasks)
        }
        cluster = held.enter_context(connected(settings.cluster))
        shards = _shards(settings.cluster, cluster, own.db)
        if any(part_of(db) not in {(shard.i, shard.n) for shard in shards} for db in shard_databases(own.db)):
            merge_shards(own.db, say)  # what shards of another number have answered isn't asked again
        n_shards = "1 shard" if len(shards) == 1 else f"{len(shards)} shards"
        say(f"{n_shards} on a cluster of {cluster.resources}")
        for shard in shards:
            held.enter_context(hold(shard_paths(own, shard).db, command_line(settings), utc_now()))
        travel = _Travel(settings, config, options, manifests)
        work = ShardTasks(cluster, settings.cluster, say)
        with _interrupts(work):
            codes = work.run([travel.task(shard) for shard in shards])
    code = exit_code_over(list(codes.values()))
    _answer(settings, codes, code, options)
    return code


def _shards(settings: Cluster, cluster: RayCluster, own: Path) -> list[Shard]:
    """As many as the config says; `auto`: as many as were begun with, else as have room at once."""
    begun = {part[1] for db in shard_databases(own) if (part := part_of(db)) is not None}
    auto = begun.pop() if len(begun) == 1 else max(1, cluster.n_places)
    n = auto if settings.shards == "auto" else settings.shards
    return [Shard(i, n, settings.split) for i in range(1, n + 1)]


@dataclass(frozen=True, slots=True)
class _Travel:
    """What goes to the nodes."""

    settings: Settings
    config: str
    options: SweepOptions
    manifests: Mapping[str, Path]

    def task(self, shard: Shard) -> ShardTask:
        paths = paths_of(self.settings)
        group = self.settings.experiment.exp_group_id
        files: dict[str, Content] = {"config.yaml": self.config.encode(), **self.manifests}
        if _holds_runs(paths.db):
            files[f"runs/{group}/{paths.db.name}"] = paths.db
        return ShardTask(
            name=shard.name,
            folder=f"{group}-{shard.name}",
            db=shard_paths(paths, shard).db,
            db_there=f"runs/{group}/shards/{shard.name}.sqlite",
            files=files,
            arguments=tuple(self._arguments(shard)),
            cwd=str(Path.cwd()),
            grace_s=self.settings.limits.grace_s + self.settings.kv.apply.grace_s + _ENDING_S,
        )

    def _arguments(self, shard: Shard) -> Iterator[str]:
        options, base_url = self.options, urlsplit(self.settings.engine.base_url)
        yield from ("run", "-c", f"{FOLDER}/config.yaml")
        yield from ("--shard" if shard.by == "entries" else "--shard-levels", f"{shard.i}/{shard.n}")
        overrides = {
            "cluster": "null",
            "output.runs_dir": f"{FOLDER}/runs",
            "output.data_dir": f"{FOLDER}/data",
            "db.path": "auto",
        }
        any_port = base_url._replace(netloc=f"{base_url.hostname}:0").geturl()
        if _launches(self.settings, any_port):  # shards may share a node: each finds a port there
            overrides["engine.base_url"] = any_port
        for key, value in overrides.items():
            yield from ("--override", f"{key}={value}")
        if options.limit is not None:
            yield from ("--limit", str(options.limit))
        flags = {
            "--retry-failed": options.retry_failed,
            "--force": options.force,
            "--allow-dead-knob": options.allow_dead_knob,
            "--quiet": options.shows_nothing,
        }
        yield from (flag for flag, is_set in flags.items() if is_set)


def _launches(settings: Settings, any_port: str) -> bool:
    """Whether the servers are still to be started: then a port that is left open is filled."""
    engine = settings.engine.model_copy(update={"base_url": any_port})
    open_port = settings.model_copy(update={"engine": engine})
    return way_of(settings.kv.apply.via).with_port(open_port) is not open_port


def _holds_runs(db: Path) -> bool:
    if not db.is_file():
        return False
    with closing(connect_for_reading(db)) as conn:
        return conn.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is not None


@contextmanager
def _interrupts(work: ShardTasks) -> Iterator[None]:
    """The first Ctrl-C lets what is in flight finish, the second ends the shards at once."""

    def stop(signum: int, frame: Any) -> None:
        work.stop()
        os.write(sys.stderr.fileno(), b"stopping the shards: what is in flight may finish; again to end them at once\n")

    before = {signum: signal.signal(signum, stop) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _answer(settings: Settings, codes: Mapping[str, int], code: int, options: SweepOptions) -> None:
    group, paths = settings.experiment.exp_group_id, paths_of(settings)
    if options.as_json:
        answer = {"group": group, "shards": codes, "exit_code": code, "runs": str(paths.run_dir)}
        sys.stdout.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode() + "\n")
    elif not options.quiet:
        print(visible("\n".join(_lines(codes, paths.run_dir))), flush=True)


def _lines(codes: Mapping[str, int], folder: Path) -> Sequence[str]:
    done = sum(code == 0 for code in codes.values())
    others = [f"shard {name} ended with exit code {code}" for name, code in codes.items() if code]
    return [f"{done} of {len(codes)} shards are done", *others, f"kvt status {folder}", f"kvt all {folder}"]

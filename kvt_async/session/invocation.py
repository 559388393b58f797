"""An invocation: one command at work on one group, before it has a session. What it holds, and how that is opened."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kvt_async.clock import utc_now
from kvt_async.contract.load import known_secrets
from kvt_async.contract.paths import RunPaths, run_paths
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.settings import Settings
from kvt_async.contract.shards.group_databases import members_of
from kvt_async.contract.shards.shard import Shard, shard_paths
from kvt_async.contract.visible import visible
from kvt_async.session.experiment_rows import command_line
from kvt_async.session.run_log import RunLog
from kvt_async.store.lock import hold
from kvt_async.store.reader import Reader


@dataclass(frozen=True, slots=True)
class CommandOptions:
    """How a command goes about its work; nothing here is part of the experiment."""

    force: bool = False
    allow_dead_knob: bool = False
    dry_run: bool = False
    quiet: bool = False
    as_json: bool = False
    shard: Shard | None = None  # the part that this process sends; None: all

    @property
    def shows_nothing(self) -> bool:
        """Neither progress nor sentences: only warnings, and the answer at the end."""
        return self.quiet or self.as_json


@dataclass(frozen=True, slots=True)
class Invocation:
    """`say` prints a line for people, `log` writes one for machines. `beside`: of a shard, the other databases of its
    group that are at hand; it has their contract and their server."""

    settings: Settings
    options: CommandOptions
    paths: RunPaths
    reader: Reader
    say: Callable[[str], None]
    log: RunLog
    beside: tuple[Path, ...] = field(default=(), kw_only=True)

    @property
    def group(self) -> str:
        """experiment.exp_group_id."""
        return self.settings.experiment.exp_group_id


@contextmanager
def at_work(settings: Settings, shard: Shard | None = None) -> Iterator[RunLog]:
    """The database of the group, or of a shard, is this process's while the block runs; the log knows which secrets to
    leave out.

    Raises StoreError where another process holds the database.
    """
    paths = paths_of(settings, shard)
    secrets = known_secrets(settings).and_also(*settings.engine.headers.values())
    with hold(paths.db, command_line(settings), utc_now()), RunLog(paths.log, secrets) as log:
        yield log


@contextmanager
def opened(settings: Settings, options: CommandOptions, log: RunLog) -> Iterator[Invocation]:
    """The database of the group, or of a shard, made where there is none, while the block runs. Raises StoreError
    where it can't be, ContractMismatchError and DriftError where its databases are not parts of one group."""
    paths = paths_of(settings, options.shard)
    beside: tuple[Path, ...] = ()
    connect_for_writing(paths.db).close()
    if options.shard is not None:
        beside = tuple(m.db for m in members_of(paths_of(settings).db) if m.db != paths.db)
    with closing(Reader(paths.db)) as reader:
        yield Invocation(settings, options, paths, reader, sayer(options.shows_nothing), log, beside=beside)


def paths_of(settings: Settings, shard: Shard | None = None) -> RunPaths:
    """Where the files of the config's group lie, or those of one of its shards."""
    own = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)
    return own if shard is None else shard_paths(own, shard)


def sayer(quiet: bool) -> Callable[[str], None]:
    """Prints a line for people; of a quiet command only warnings."""

    def say(line: str) -> None:
        if not quiet or line.startswith("warning"):
            print(visible(line), file=sys.stderr, flush=True)

    return say


def loop_factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """engine.loop: truth is asyncio's own, whose arrivals can be stamped earliest; volume is uvloop."""
    if settings.engine.loop == "truth":
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory

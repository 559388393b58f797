"""`kvt merge`: the shards of a group, and runs of it from other machines, taken into the group's own database."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.errors import ConfigError, GuardError, MissingPrerequisiteError
from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.shards.shard import shard_databases
from kvt_async.contract.visible import visible
from kvt_async.session.experiment_rows import command_line
from kvt_async.store.lock import hold, holder
from kvt_async.store.merging import Taken, merge

Say = Callable[[str], None]


def show_merge(place: Path, given: Sequence[Path], *, quiet: bool = False, as_json: bool = False) -> int:
    """Merge and print what came of it. Returns the exit code. Raises ConfigError and MissingPrerequisiteError where a
    place holds nothing, and as `merge` does."""

    def say(line: str) -> None:
        if not quiet and not as_json:
            print(visible(line), file=sys.stderr, flush=True)

    own = place if place.suffix == ".sqlite" or place.is_file() else place / DB_NAME
    sources = [db for db in dict.fromkeys(_sources(own, given)) if not _is_same(db, own)]
    if not sources:
        raise MissingPrerequisiteError(
            "there is nothing to merge: this group has no shards",
            where=str(place),
            do="Name databases or run folders of the same group: kvt merge runs/GROUP /mnt/node2/runs/GROUP.",
        )
    for db in sources:
        if (at_work := holder(db)) is not None:
            say(f"note: {db.name} is still being sent ({at_work}): what comes later is taken by the next merge")
    with hold(own, command_line(), utc_now()):
        taken = merge(own, sources, say)
    if as_json:
        print(orjson.dumps({"database": str(own), "sources": [asdict(one) for one in taken]}).decode())
    elif not quiet:
        print("\n".join(visible(line) for line in (*map(sentence, taken), f"  {own}")), flush=True)
    return 0


def sentence(taken: Taken) -> str:
    """What became of the requests of one source."""
    parts = [
        f"{n:,} {words}"
        for n, words in (
            (taken.n_new, "new"),
            (taken.n_continued, "continued"),
            (taken.n_replaced, "in place of another history"),
            (taken.n_equal, "already there"),
            (taken.n_left, "left: another history of the request holds"),
        )
        if n
    ]
    requests = "1 request" if taken.n_requests == 1 else f"{taken.n_requests:,} requests"
    return f"{taken.source}: {requests}{': ' if parts else ''}{', '.join(parts)}"


def merge_shards(own: Path, say: Say) -> list[Taken]:
    """Take the group's shards into its own database `own`, whose lock the caller holds; nothing happens where there are
    none or all are in it already. Raises GuardError where one is being sent."""
    shards = shard_databases(own)
    for db in shards:
        if (at_work := holder(db)) is not None:
            raise GuardError(
                f"{db.name} is being sent: {at_work}",
                where=str(db),
                do="Wait for it or stop it, then run the same command again; or send other shards of the same number.",
            )
    taken = [one for one in merge(own, shards, say) if one.n_equal < one.n_requests] if shards else []
    for one in taken:
        say(f"merged {sentence(one)}")
    return taken


def _sources(own: Path, given: Sequence[Path]) -> Iterator[Path]:
    """Databases that are named: files, the databases of run folders, and shards that lie in a folder."""
    if not given:
        yield from shard_databases(own)
    for place in given:
        if place.is_file():
            yield place
            continue
        if not place.is_dir():
            raise ConfigError(f"there is no database and no folder {place}", where="SHARD")
        inside = [place / DB_NAME] if (place / DB_NAME).is_file() else []
        inside += shard_databases(place / DB_NAME) or sorted(place.glob("*-of-*.sqlite"))
        if not inside:
            raise MissingPrerequisiteError("this folder holds no run and no shard", where=str(place))
        yield from inside


def _is_same(db: Path, own: Path) -> bool:
    return own.is_file() and os.path.samefile(db, own)

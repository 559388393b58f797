"""A shard: one part of n of a group's requests, with a database of its own beside the group's."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.paths import DB_NAME, RunPaths

MOST: Final = 4096  # shards of a group
_NAME = re.compile(r"([1-9]\d{0,3})-of-([1-9]\d{0,3})\.sqlite")
_GIVEN = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `i` of `n`.

    `by` entries: each shard sends its part of the contexts, at every level. `by` levels: each sends all entries at its
    part of the levels, and full cache over the same few entries, so that the servers can be compared; these repeats
    have a `repeat_idx` above vocabulary.NODE_REPEATS.
    """

    i: int
    n: int
    by: Literal["entries", "levels"] = "entries"

    @property
    def name(self) -> str:
        """'2-of-4': its database is called so."""
        return f"{self.i}-of-{self.n}"

    def __str__(self) -> str:
        return f"shard {self.i} of {self.n}"


def shard_from(text: str, option: str, by: Literal["entries", "levels"]) -> Shard:
    """The shard of `2/4`. Raises ConfigError naming the `option` of the command line that it was given with."""
    given = _GIVEN.fullmatch(text.strip())
    i, n = map(int, given.groups()) if given else (0, 0)
    if not 1 <= i <= n <= MOST:
        raise ConfigError(
            f"{text!r} is no part of a group",
            where=option,
            do=f"Write I/N: part I of N, 1 <= I <= N <= {MOST}; for example {option} 2/4.",
        )
    return Shard(i, n, by)


def shards_folder(db: Path) -> Path:
    """Where the shards of the group with this database lie: shards/ beside it, or NAME.shards/ where the database has
    a name that the user chose."""
    return db.with_name("shards" if db.name == DB_NAME else f"{db.stem}.shards")


def shard_paths(paths: RunPaths, shard: Shard) -> RunPaths:
    """A shard's own paths: shards/2-of-4.sqlite, and a folder shards/2-of-4 for its log and its servers' logs."""
    folder = shards_folder(paths.db)
    return RunPaths(folder / shard.name, folder / f"{shard.name}.sqlite")


def part_of(db: Path) -> tuple[int, int] | None:
    """(i, n) of a shard's database, by its name; None: it is no shard's."""
    named = _NAME.fullmatch(db.name)
    i, n = map(int, named.groups()) if named else (0, 0)
    return (i, n) if 1 <= i <= n else None


def shard_databases(db: Path) -> list[Path]:
    """The databases of a group's shards that are there, in order; `db` is the group's own."""
    folder = shards_folder(db)
    if not folder.is_dir():
        return []
    parts = [(part[1], part[0], path) for path in folder.glob("*-of-*.sqlite") if (part := part_of(path)) is not None]
    return [path for _, _, path in sorted(parts)]

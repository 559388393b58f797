"""A run's folder (or database) in place of a config: what was run is read from the session that ran it.

The folder may come from anybody. Its config is only data here: no `${VAR}`, no `.env`, no KVT__ variable is looked up,
nothing that it names (data, model, tokenizer) is opened, and whatever is written lands beside the database.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvt_async.contract.errors import ConfigError, GuardError, MissingPrerequisiteError
from kvt_async.contract.paths import DB_NAME, run_paths
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.shards.shard import shard_databases, shards_folder

if TYPE_CHECKING:
    from kvt_async.contract.settings import Settings

MOST_YAML = 1 << 20  # characters; kvt's own configs have some thousands
MOST_FILES = 10_000  # of a folder that are looked at
_GROUP = "experiment.exp_group_id="
_FIXED = ("output.", "db.", "model.config", "plugins")
_NEWEST = """
SELECT s.started_at, e.exp_group_id, s.config_yaml FROM experiments e
JOIN sessions s ON s.exp_group_id = e.exp_group_id AND s.generation = e.generation
WHERE ? IS NULL OR e.exp_group_id = ? ORDER BY s.started_at DESC, s.rowid DESC LIMIT 1
"""


def stored_settings(place: Path, overrides: Sequence[str] = ()) -> "Settings":
    """The config of the newest session in a folder or database, set upon that folder; `overrides` are the user's own.

    `experiment.exp_group_id` among them chooses a group where the database holds several. Raises ConfigError where
    `place` is neither, or its config can't be read; MissingPrerequisiteError where nothing was run; GuardError where a
    link would lead out of the folder.
    """
    from kvt_async.contract.load import settings_of_text

    db = database_of(place)
    group, text = _newest(db, next((o.partition("=")[2] for o in overrides if o.startswith(_GROUP)), None))
    fixed = [o for o in overrides if o.strip().startswith(_FIXED)]
    if fixed:
        raise ConfigError(
            f"--override {fixed[0]} has no meaning for a folder: everything is read and written there",
            do="Leave it out, or pass -c CONFIG.",
        )
    paths: dict[str, Any] = {
        "experiment": {"exp_group_id": group},
        "output": {"runs_dir": str(db.parent), "data_dir": str(db.parent)},
        "db": {"path": str(db)},
        "model": {"config": None},
    }
    return settings_of_text(text, where=f"the config stored in {db}", overrides=overrides, at_last=paths)


def place_and(words: list[str] | None, name: str, *, needed: bool = False) -> tuple[Path | None, str | None]:
    """(a run's folder or database, the word behind it) of a command line that takes either or both."""
    match words or []:
        case []:
            return None, None
        case [place] if not needed and Path(place).exists():
            return Path(place), None
        case [word]:
            return None, word
        case [place, word]:
            return Path(place), word
        case [_, _, *rest]:
            raise ConfigError(f"too many words: {' '.join(rest)}", do=f"A run's folder and one {name} go here.")
    raise AssertionError(words)


def database_of(place: Path) -> Path:
    """The database that `place` is or holds; nothing in its folder may lead out of it."""
    if place.suffix in (".yaml", ".yml"):
        raise ConfigError(f"{place} is a config; a run's folder or database goes here", do=f"Did you mean -c {place}?")
    if not place.exists():
        raise ConfigError(
            f"there is no folder and no database {place}", do=f"Pass a run's folder, or a config: -c {place}."
        )
    db = place / DB_NAME if place.is_dir() else place
    if not db.is_file() and not (place.is_dir() and shard_databases(db)):  # a group may consist of shards alone
        raise MissingPrerequisiteError("this folder holds no run", where=str(place), do=f"{DB_NAME} is missing there.")
    for link in _links(db):
        if not link.resolve().is_relative_to(db.parent.resolve()):
            raise GuardError(
                f"{link.name} is a link that leads out of this folder; nothing was read or written",
                where=str(link),
                do="Remove the link, or put a copy of what it leads to in its place.",
            )
    return db


def stored_yaml(place: Path) -> str:
    """The merged config of the newest session, as it is stored."""
    return _newest(database_of(place), None)[1]


def _links(db: Path) -> Iterator[Path]:
    """Symbolic links among what is read or written: the folder's files, its plots and its shards."""
    folder = db.parent
    plots = run_paths("", "", str(db)).plots
    for inside in (folder, plots, shards_folder(db)):
        if inside.is_dir():
            yield from (path for path in islice(inside.iterdir(), MOST_FILES) if path.is_symlink())


def _newest(db: Path, group: str | None) -> tuple[str, str]:
    """(group, its config) of the newest session in a database, or in the shards beside it."""
    rows: list[tuple[str, str, str]] = []
    shards = shard_databases(db)
    for part in (db, *shards) if db.is_file() else shards:
        try:
            with closing(connect_for_reading(part)) as conn:
                rows += conn.execute(_NEWEST, (group, group)).fetchall()
        except MissingPrerequisiteError:
            if not shards:
                raise  # else: a part that was not begun yet
    if not rows:
        what = f"the database holds no group {group!r}" if group else "nothing was run in this database"
        raise MissingPrerequisiteError(what, where=str(db), do="Pass -c CONFIG, or another folder.")
    _, name, text = max(rows, key=lambda row: row[0])
    if len(text) > MOST_YAML:
        raise ConfigError("the config stored in this database is too long to be one", where=str(db))
    return str(name), str(text)

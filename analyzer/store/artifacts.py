"""Files made from persisted results, and what they were made from: the same results are not drawn and printed twice.

`.made.json` beside the database holds, for charts and for the report, a fingerprint of all that went in (results,
settings, this program, the libraries that draw), the hash of the derived rows that were read, and the SHA-256 of each
file that came out. A file that is gone or was changed since is made again. What the record says is believed of files
in its own folder only.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path, PurePosixPath
from typing import Any

from analyzer.store.derived_rows import fingerprint
from kvt_async.contract.files import write_whole

NAME = ".made.json"
_PACKAGES = ("analyzer", "kvt_async.contract")
_LIBRARIES = ("altair", "jinja2", "polars", "vl-convert-python")


@dataclass(frozen=True)
class Artifacts:
    """Files in the order they are made; `anew` False: they stood already and nothing was written."""

    files: list[Path]
    anew: bool


@dataclass(frozen=True)
class Record:
    """What `.made.json` says of one kind of files. `rows`: hash of the derived rows they show; None: not recorded."""

    mark: str
    rows: str | None
    contents: dict[str, str]  # file below the folder -> SHA-256


def once(
    run_dir: Path,
    what: str,
    inputs: Sequence[Any],
    make: Callable[[], Sequence[Path]],
    *,
    rows: str | None = None,
    anew: bool = False,
) -> Artifacts:
    """The files of `what`, which `make` writes below run_dir, from `inputs`, whose repr must tell everything.

    `rows`: hash of the derived rows among them, for whoever checks the files later; `anew`: made whatever stands.
    """
    mark = fingerprint(program(), [repr(part) for part in inputs])
    records = recorded(run_dir)
    stands = records.get(what)
    if not anew and stands is not None and (stands.mark, stands.rows) == (mark, rows):
        files = {run_dir / name: content for name, content in stands.contents.items()}
        if all(file.is_file() and sha256(file) == content for file, content in files.items()):
            return Artifacts(list(files), False)
    made = list(make())
    records[what] = Record(mark, rows, {f.relative_to(run_dir).as_posix(): sha256(f) for f in made})
    entries = {name: {"from": kept.mark, "rows": kept.rows, "files": kept.contents} for name, kept in records.items()}
    write_whole(run_dir / NAME, json.dumps(entries, indent=1) + "\n")
    return Artifacts(made, True)


def recorded(run_dir: Path) -> dict[str, Record]:
    """What is known of the files in a folder: nothing where the record is missing or no longer says what we wrote."""
    try:
        loaded = json.loads((run_dir / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    records = {}
    for what, entry in loaded.items() if isinstance(loaded, dict) else ():
        match entry:
            case {"from": str(mark), "files": dict(contents)} if all(map(_inside, contents)):
                rows = entry.get("rows")
                records[what] = Record(mark, rows if isinstance(rows, str) else None, contents)
    return records


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def program() -> str:
    """What this code is: every source file and template of the analyzer, and the versions of what it draws with."""
    sources = [
        (package, str(path.name), path.read_bytes().hex())
        for package in _PACKAGES
        for path in sorted(Path(str(resources.files(package))).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return fingerprint(sources, [metadata.version(name) for name in _LIBRARIES])


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts

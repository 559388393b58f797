"""Files made from persisted results, and what they were made from: the same results are not drawn and printed twice.

`.made.json` beside the database holds, for charts and for the report, a fingerprint of all that went in (results,
settings, this program, the libraries that draw) and the SHA-256 of each file that came out. A file that is gone or
was changed since is made again.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from analyzer.derived import fingerprint

NAME = ".made.json"
_PACKAGES = ("analyzer", "kvt_async.contract")
_LIBRARIES = ("altair", "jinja2", "polars", "vl-convert-python")


@dataclass(frozen=True)
class Made:
    """Files in the order they are made; `anew` False: they stood already and nothing was written."""

    files: list[Path]
    anew: bool


def once(run_dir: Path, what: str, inputs: Sequence[Any], make: Callable[[], Sequence[Path]]) -> Made:
    """The files of `what`, which `make` writes below run_dir, from `inputs`, whose repr must tell everything."""
    mark = fingerprint(program(), [repr(part) for part in inputs])
    known = _read(run_dir / NAME)
    match known.get(what):
        case {"from": str(of), "files": dict(contents)} if of == mark and all(
            (run_dir / name).is_file() and _sha256(run_dir / name) == content for name, content in contents.items()
        ):
            return Made([run_dir / name for name in contents], False)
    files = list(make())
    known[what] = {"from": mark, "files": {f.relative_to(run_dir).as_posix(): _sha256(f) for f in files}}
    (run_dir / NAME).write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return Made(files, True)


@cache
def program() -> str:
    """What this code is: every source file and template of the analyzer, and the versions of what it draws with."""
    sources = [
        (package, str(path.name), path.read_bytes().hex())
        for package in _PACKAGES
        for path in _files(Path(str(resources.files(package))))
    ]
    return fingerprint(sources, [metadata.version(name) for name in _LIBRARIES])


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _read(file: Path) -> dict[str, Any]:
    """Nothing known where the file is missing or no longer says what we wrote."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

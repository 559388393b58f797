"""Which file is whose: a path of another tool's output, and the logs in it."""

import os
from itertools import islice
from pathlib import Path

from kvt_async.contract.errors import ConfigError
from kvt_async.data.sources.json_rows import bounded_lines, json_object
from kvt_async.imports import every_eval_ever, inspect_log, lm_eval_samples
from kvt_async.imports.foreign_log import MAX_LINE_MB, ForeignLog, LogChoice

MOST_FILES = 10_000  # of a folder that are looked at
_KNOWN = "kvt reads lm-eval's samples_*.jsonl, inspect's .eval and Every Eval Ever's *_samples.jsonl."


def logs_of(path: Path, wanted: LogChoice) -> list[ForeignLog]:
    """Every task in a file, or in the files of a folder. Raises ConfigError where there is none, where a task is there
    twice, or where a file is none that kvt reads."""
    if not path.exists():
        raise ConfigError("there is no such file or folder", where=str(path))
    files = _files(path) if path.is_dir() else [path]
    logs = [log for file in files for log in _read(file, wanted)]
    if not logs:
        asked = f"the task {wanted.task}" if wanted.task is not None else "a log"
        raise ConfigError(f"{asked} is not here", where=str(path), do=_KNOWN)
    for n, log in enumerate(logs):
        again = next((other for other in logs[:n] if other.task == log.task), None)
        if again is not None:
            raise ConfigError(
                f"{log.task} is here twice: {again.path.name} and {log.path.name}",
                where=str(path),
                do="Name the file that counts, instead of the folder.",
            )
    return sorted(logs, key=lambda log: log.task)


def _files(folder: Path) -> list[Path]:
    """The logs in a folder and below it, in the order of their names; links are not followed."""
    names = (Path(top) / name for top, _, files in os.walk(folder) for name in files)
    mine = (path for path in names if _is_log(path) and not path.is_symlink())
    return sorted(islice(mine, MOST_FILES))


def _is_log(path: Path) -> bool:
    return path.suffix == ".eval" or (
        path.suffix == ".jsonl" and (path.name.startswith("samples_") or path.stem.endswith("_samples"))
    )


def _read(path: Path, wanted: LogChoice) -> list[ForeignLog]:
    try:
        if path.suffix == ".eval":
            return inspect_log.read(path, wanted)
        with path.open("rb") as file:
            first = next(bounded_lines(file, str(path), MAX_LINE_MB), None)
    except OSError as error:
        raise ConfigError(f"this file can't be read: {error.strerror}", where=str(path)) from None
    if first is None:
        raise ConfigError("this file is empty", where=str(path), do=_KNOWN)
    where, line = first
    record = json_object(line, where, _KNOWN)
    if lm_eval_samples.is_samples(record):
        return lm_eval_samples.read(path, wanted)
    if every_eval_ever.is_instances(record):
        return every_eval_ever.read(path, wanted)
    raise ConfigError("this is no log that kvt reads", where=str(path), do=_KNOWN)

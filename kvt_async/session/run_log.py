"""The run's log file: one JSON object a line. What is written passes through `redact` first, with no way around it."""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.files import append_to
from kvt_async.contract.load import redact
from kvt_async.contract.secrets import NONE, Secrets


class RunLog:
    """Append-only, readable by its owner. Raises StoreError where it can't be opened; later it never stops a run: the
    store says what is wrong with a disk."""

    def __init__(self, path: Path, secrets: Secrets = NONE) -> None:
        self._secrets = secrets
        self._file = append_to(path)

    def __call__(self, event: str, **fields: Any) -> None:
        shown = self._secrets.json(redact(fields))
        line = orjson.dumps({"at": utc_now(), "event": event, **shown}, default=str).decode()
        with contextlib.suppress(OSError):
            self._file.write(self._secrets.text(line).encode() + b"\n")
            self._file.flush()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

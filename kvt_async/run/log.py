"""The run's log file: one JSON object a line. What is written passes through `redact` first, with no way around it."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from pydantic import SecretStr

from kvt_async.clock import utc_now
from kvt_async.contract.load import redact


class RunLog:
    """Append-only; a log that can't be written never stops a run: the store says what is wrong with a disk."""

    def __init__(self, path: Path, secrets: Sequence[SecretStr] = ()) -> None:
        self._secrets = tuple(s.get_secret_value() for s in secrets if s.get_secret_value())
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def __call__(self, event: str, **fields: Any) -> None:
        line = orjson.dumps({"at": utc_now(), "event": event, **redact(fields)}, default=str).decode()
        with contextlib.suppress(OSError):
            self._file.write(self.without_secrets(line) + "\n")

    def without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

"""An exception that nobody expected costs its request, not the run: what it was is left in a file for developers."""

import contextlib
import hashlib
import os
import platform
import traceback
from importlib import metadata
from pathlib import Path

from kvt_async.clock import utc_now
from kvt_async.contract.secrets import NONE, Secrets

MOST = 20  # files of one process: one for each place that raises, and a broken server makes one place raise for ever


class BugReports:
    """Writes `bug-*.txt` into a folder; without values of variables, and without secrets."""

    def __init__(self, folder: Path, secrets: Secrets = NONE) -> None:
        self._folder, self.secrets = folder, secrets
        self._names: dict[str, str] = {}  # by the place that raised

    def __call__(self, error: BaseException, what: str, *facts: str) -> str:
        """Write about an exception, once for each place; returns how the file is called, or why there is none.

        `facts`: lines about what was read. Never raises."""
        frames = traceback.extract_tb(error.__traceback__)
        place = "\n".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-12:])
        name = self._names.get(place)
        if name is not None:
            return name
        if len(self._names) >= MOST:
            return "no further report"
        name = f"bug-{hashlib.sha256(place.encode()).hexdigest()[:8]}.txt"
        lines = [
            f"{utc_now()}  kvt {metadata.version('kvt')}, Python {platform.python_version()}, {platform.platform()}",
            what,
            *facts,
            f"{type(error).__name__}: {self._message(error)}",
            *(f"  {frame.filename}:{frame.lineno} in {frame.name}: {frame.line}" for frame in frames[-30:]),
        ]
        text = self.secrets.text("\n".join(lines)) + "\n"
        self._names[place] = name
        with contextlib.suppress(OSError):
            descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
            return name
        self._names[place] = "its report could not be written"
        return self._names[place]

    def _message(self, error: BaseException) -> str:
        with contextlib.suppress(Exception):
            return self.secrets.without_pieces(ascii(str(error)))[:300]
        return "without a message that can be shown"

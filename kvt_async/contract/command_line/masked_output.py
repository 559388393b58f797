"""stdout and stderr of a command: what is written there passes through here, tracebacks too, and holds no secret."""

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from kvt_async.contract.secrets import NONE, Secrets


class Screen:
    """A text stream that masks what is written to it; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.secrets = NONE
        self.error: OSError | None = None  # why what was written lately can't be read anywhere

    def write(self, text: str) -> int:
        """Write the text masked; returns the number of characters that were given."""
        try:
            self._stream.write(self.secrets.text(text))
        except OSError as error:
            self.lost(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self.lost(error)

    def lost(self, error: OSError) -> None:
        """Throw away what is still written: that nobody can read it is no reason to end work that is under way."""
        self.error = error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    @property
    def buffer(self) -> "_Bytes":
        return _Bytes(self, self._stream.buffer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Bytes:
    """The binary side of a Screen, for code that encodes its own text."""

    def __init__(self, screen: Screen, stream: Any) -> None:
        self._screen, self._stream = screen, stream

    def write(self, data: bytes) -> int:
        try:
            self._stream.write(self._screen.secrets.page(bytes(data)))
        except OSError as error:
            self._screen.lost(error)
        return len(data)

    def flush(self) -> None:
        self._screen.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def install() -> None:
    """Let what this process writes to its terminal pass through a Screen from now on.

    A standard stream that was closed before kvt began is opened on the null device. Otherwise the next file to be
    opened would get its number, and with it everything that is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "r" if number == 0 else "w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
        if number and not isinstance(stream, Screen):
            setattr(sys, name, Screen(stream))


def unread() -> OSError | None:
    """Flush stdout, and return why the answer can't be read, None where it can or where its reader has left."""
    sys.stdout.flush()
    error = sys.stdout.error if isinstance(sys.stdout, Screen) else None
    return None if isinstance(error, BrokenPipeError) else error


def hide(secrets: Secrets) -> None:
    """Keep these secrets off the terminal too. Nothing happens where no Screen is installed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Screen):
            stream.secrets = stream.secrets.and_also(*secrets.values)

"""stdout and stderr of a command: what is written there passes through here, tracebacks too, and holds no secret."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from kvt_async.contract.secrets import NONE, Secrets


class Screen:
    """A text stream that masks what is written to it; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.secrets = NONE

    def write(self, text: str) -> int:
        """Write it masked; the number of characters that were given."""
        self._stream.write(self.secrets.text(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    @property
    def buffer(self) -> "_Bytes":
        return _Bytes(self, self._stream.buffer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Bytes:
    """The stream's bytes, for who encodes by itself."""

    def __init__(self, screen: Screen, stream: Any) -> None:
        self._screen, self._stream = screen, stream

    def write(self, data: bytes) -> int:
        self._stream.write(self._screen.secrets.page(bytes(data)))
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def install() -> None:
    """From now on, what this process writes to its terminal passes through a Screen."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Screen):  # None: it was closed before we began
            setattr(sys, name, Screen(stream))


def hide(secrets: Secrets) -> None:
    """Keep these, too, off the terminal. Nothing happens where no Screen is installed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Screen):
            stream.secrets = stream.secrets.and_also(*secrets.values)

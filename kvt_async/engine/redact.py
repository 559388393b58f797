"""Keeps secrets out of everything that is stored, logged or shown."""

import base64
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from kvt_async.engine.wire import EVIDENCE_BYTES

MIN_SECRET = 6  # shorter values ("EMPTY", "1") are no secrets, and hiding them would garble text
SECRET_HEADER = re.compile(r"(?i)auth|key|token|secret|cookie|passw|credential")
SECRET_QUERY = re.compile(SECRET_HEADER.pattern + "|sig|code|pwd")  # names in a URL's query
_TELLING = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}|\bsk-[A-Za-z0-9_-]{12,}|(?<=://)[^/@\s]+(?=@)")


def url_credentials(url: str) -> tuple[str, str] | None:
    """(user, password) of a URL, decoded."""
    parts = urlsplit(url)
    if parts.username is None and parts.password is None:
        return None
    return unquote(parts.username or ""), unquote(parts.password or "")


def basic(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Redactor:
    """Replaces known secrets, whole, by ***. `private` values (any header we send) leave evidence only: they may be
    plain words that an answer is free to use."""

    def __init__(self, secrets: Iterable[str], private: Iterable[str] = ()) -> None:
        self._secrets = _with_escapes(secrets)
        self._private = _with_escapes(private)
        self._bytes = tuple(s.encode() for s in self._secrets)
        self.active = bool(self._bytes)  # False: there is nothing to hide

    def hit(self, data: bytes) -> bool:
        return any(secret in data for secret in self._bytes)

    def text(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "***")
        return text

    def document(self, data: bytes) -> bytes:
        """A whole document about the server, without secrets and private values: no answer is in it."""
        for value in (*self._secrets, *self._private):
            data = data.replace(value.encode(), b"***")
        return data

    def json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(k)): self.json(v) for k, v in value.items()}
        return [self.json(v) for v in value] if isinstance(value, list) else value

    def evidence(self, data: bytes | str, limit: int = EVIDENCE_BYTES) -> str:
        """The first bytes of what a server sent, on one line; redacted before it is cut: no half of a secret stays."""
        text = data[: limit + 4096].decode("utf-8", "replace") if isinstance(data, bytes) else data[: limit + 4096]
        text = _TELLING.sub("***", self.text(text))
        for value in self._private:
            text = text.replace(value, "***")
        clean = "".join(c if c.isprintable() else " " for c in text)
        return clean.encode()[:limit].decode("utf-8", "ignore").strip()


def _with_escapes(values: Iterable[str]) -> tuple[str, ...]:
    """Longest first, each also as it stands inside a JSON string."""
    longest_first = sorted({v for v in values if len(v) >= MIN_SECRET}, key=len, reverse=True)
    escaped = (orjson.dumps(v)[1:-1].decode() for v in longest_first)
    return tuple(dict.fromkeys((*longest_first, *escaped)))

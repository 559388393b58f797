"""Keeps secrets out of what a reply leaves behind."""

import base64
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from kvt_async.contract.secrets import MASK, MIN_SECRET, Secrets
from kvt_async.engine.transport.exchange import EVIDENCE_BYTES
from kvt_async.records import Json

_TELLING = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}|\bsk-[A-Za-z0-9_-]{12,}|(?<=://)[^/@\s]+(?=@)")
_UNENDED = re.compile(r'"((?:[^"\\]|\\.)*)$', re.DOTALL)  # a text that the cut left open


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
    """Replaces secrets by ***. `private` values (any header we send) leave evidence only: they may be plain words that
    an answer is free to use."""

    def __init__(self, secrets: Secrets, private: Iterable[str] = ()) -> None:
        self.secrets = secrets
        self._private = Secrets(private)
        self.active = bool(secrets)  # False: there is nothing to hide
        self.text, self.clipped = secrets.text, secrets.clipped

    def holds(self, text: str, reasoning: str | None, finish_reason: str | None, *objects: Any) -> bool:
        """Whether anything that is stored of a reply holds a secret. What it was split over is joined in these by now,
        and JSON's escapes are undone, so that a short search is enough."""
        joined = f"{text}\n{reasoning}\n{finish_reason}" if reasoning or finish_reason else text
        try:
            if any(objects):
                joined += "\n" + orjson.dumps(objects).decode()
        except TypeError:  # a number or a text that JSON can't hold for everybody
            return True
        return self.secrets.hit(joined)

    def json(self, value: Json | None) -> Json | None:
        masked: Json | None = self.secrets.json(value)
        return masked

    def calls(self, calls: list[Json]) -> list[Json]:
        """Tool calls masked, each of their texts as an answer is: it may have been cut inside a secret."""
        return [{key: self.clipped(text) for key, text in call.items()} for call in calls]

    def document(self, data: bytes) -> bytes:
        """A whole document about the server, without secrets and private values: no answer is in it."""
        return self._private.page(self.secrets.page(data))

    def evidence(self, data: bytes | str, limit: int = EVIDENCE_BYTES, *, last: bool = False) -> str:
        """The first or last bytes of what a server sent, on one line; masked before it is cut, so that no part of a
        secret stays. Nothing where a secret is scattered over the events that would be shown."""
        reach = limit + 4096 + self.secrets.margin
        edge = data[-reach:] if last else data[:reach]
        text = edge.decode("utf-8", "replace") if isinstance(edge, bytes) else edge
        if self.active:
            if self._is_scattered(text):
                return MASK
            text = self.secrets.without_pieces(text)
            text = MASK + text[ends:] if (ends := self.secrets.ends_at(text)) else text
        text = self._private.text(_TELLING.sub(MASK, text))
        clean = "".join(c if c.isprintable() else " " for c in text).encode()
        return (clean[-limit:] if last else clean[:limit]).decode("utf-8", "ignore").strip()

    def _is_scattered(self, stream: str) -> bool:
        """Whether texts of consecutive events make a secret, or a part of one that begins or ends where we look."""
        if "data:" not in stream:
            return False
        texts: dict[str, str] = {}
        unended = _UNENDED.search(stream)
        for line in stream.splitlines():
            _, separator, data = line.partition("data:")
            try:
                event = orjson.loads(data) if separator else None
            except orjson.JSONDecodeError:
                continue
            _collect(event, "", texts)
        rest = unended[1] if unended else ""
        joined = [(text, text + rest) for text in texts.values() if len(text) >= MIN_SECRET or rest]
        return any(
            self.secrets.hit(whole) or self.secrets.clipped(whole) != whole or self.secrets.ends_at(text) > 0
            for text, whole in joined
        )


def _collect(value: object, at: str, texts: dict[str, str]) -> None:
    """Add the texts of a JSON value to those that stood at the same place before."""
    if isinstance(value, str):
        texts[at] = texts.get(at, "") + value
    elif isinstance(value, dict):
        for key, inner in value.items():
            _collect(inner, f"{at}.{key}", texts)
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            _collect(inner, f"{at}.{n}", texts)

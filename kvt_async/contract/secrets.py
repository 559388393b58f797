"""Values that must not be written, logged or shown, and how each is found again in what others say.

A secret is found as it is, in JSON, percent, HTML and `\\x` escapes (mixed and nested too), in hexadecimal, and in
Base64, alone or inside a longer text. What is reversed, encrypted or compressed is not found.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "***"
MIN_SECRET = 6  # characters; hiding a shorter value would hide ordinary text
TELLING = re.compile(r"KEY|TOKEN(?!I[SZ])|SECRET|PASSWORD|CREDENTIAL|AUTH(?!ORS?(?:_|$))", re.IGNORECASE)
PIECE = 8
_ROUNDS = 3  # escapes of escapes
_ESCAPE = re.compile(
    r"\\\\*u(?P<u>[0-9a-fA-F]{4})|\\\\*x(?P<x>[0-9a-fA-F]{2})|%(?P<percent>[0-9a-fA-F]{2})|&#(?P<d>\d{1,7});"
    r"|&#[xX](?P<h>[0-9a-fA-F]{1,6});|\\\\*(?P<self>[/\"'\\])"
)
_BEGINS = (
    ("\\", re.compile(r"\\[ux/\"'\\]")),
    ("%", re.compile("%[0-9a-fA-F]{2}")),
    ("&", re.compile("&(?:#|amp;|lt;|gt;|quot;)")),
)
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
_RUN = "[A-Za-z0-9+/_=-]*"  # what a Base64 text can hold


class Secrets:
    """An unchanging set of secrets; values shorter than MIN_SECRET are left out. False where there are none."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        wanted = {form for value in values for form in (value, value.strip(), unquote(value))}
        self.values = tuple(sorted((v for v in wanted if len(v) >= MIN_SECRET), key=lambda v: (-len(v), v)))

    def __bool__(self) -> bool:
        return bool(self.values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secrets) and self.values == other.values

    def __hash__(self) -> int:
        return hash(self.values)

    def __repr__(self) -> str:
        return f"Secrets({len(self.values)} values)"

    def and_also(self, *values: str | None) -> "Secrets":
        """These and more; empty ones and None are left out."""
        more = [value for value in values if value and value not in self.values]
        return Secrets((*self.values, *more)) if more else self

    def hit(self, text: str) -> bool:
        """Whether a secret stands in the text, in any of its forms."""
        for needle in self._needles:  # every reply passes here: `any` would cost as much as two searches
            if needle in text:
                return True
        if "\\" not in text and "%" not in text and "&" not in text:
            return False
        return _has_escapes(text) and any(form in plain for plain in _unescaped(text) for form in self._undone)

    def text(self, text: str) -> str:
        """The text with each secret replaced by ***."""
        if not self.hit(text):
            return text
        for form in self._forms:
            text = text.replace(form, MASK)
        for form in self._in_base64:
            if form in text:
                text = re.sub(_RUN + re.escape(form) + _RUN, MASK, text)
        if _has_escapes(text):
            for pattern in self._spelled:
                text = pattern.sub(MASK, text)
        return MASK if self.hit(text) else text

    def clipped(self, text: str) -> str:
        """`text`, and at its end no beginning of a secret: a reply may have been cut inside one."""
        text = self.text(text)
        begins = self.begins_at(text)
        if begins < len(text):
            return text[:begins] + MASK
        end = text[-self.margin :]
        if _has_escapes(end) and any(self.begins_at(plain) < len(plain) for plain in _unescaped(end)):
            return text[: -self.margin] + MASK
        return text

    def without_pieces(self, text: str) -> str:
        """`clipped`, and no PIECE characters in a row of a secret: for what is evidence and no answer."""
        text, spans = self.clipped(text), []
        for value in (*self.values, *self._in_base64):
            for n in range(len(value) - PIECE + 1):
                at = text.find(value[n : n + PIECE])
                while at >= 0:
                    spans.append((at, at + PIECE))
                    at = text.find(value[n : n + PIECE], at + 1)
        clean, end = "", 0
        for start, stop in sorted(spans):
            if start > end or not clean + text[end:start]:
                clean += text[end:start] + MASK
            end = max(end, stop)
        return clean + text[end:]

    def begins_at(self, text: str) -> int:
        """Where a secret begins that the end of the text cuts off; the text's length where none does."""
        first = len(text)
        for needle in self._needles:
            start = max(0, len(text) - len(needle) + 1)
            while (at := text.find(needle[:MIN_SECRET], start)) >= 0:
                if needle.startswith(text[at:]):
                    first = min(first, at)
                    break
                start = at + 1
        return first

    def ends_at(self, text: str) -> int:
        """Where a secret ends whose head the beginning of the text cuts off; 0 where none does."""
        longest = 0
        for needle in self._needles:
            for length in range(min(len(needle) - 1, len(text)), MIN_SECRET - 1, -1):
                if text.startswith(needle[-length:]):
                    longest = max(longest, length)
                    break
        return longest

    def json(self, value: Any) -> Any:
        """A JSON value with every key and text masked. What is nested too deeply to be looked at is masked whole."""
        try:
            return self._json(value)
        except RecursionError:
            return {"unreadable": MASK} if isinstance(value, dict) else MASK

    def _json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(k) if isinstance(k, str) else k: self._json(v) for k, v in value.items()}
        return [self._json(v) for v in value] if isinstance(value, list | tuple) else value

    def page(self, data: bytes) -> bytes:
        """A document with each secret replaced, its other bytes as they are."""
        text = data.decode("utf-8", "surrogateescape")
        return self.text(text).encode("utf-8", "surrogateescape") if self.hit(text) else data

    @cached_property
    def margin(self) -> int:
        """Characters that the longest form of a secret can take."""
        return 6 * max((len(needle) for needle in self._needles), default=0)

    @cached_property
    def _forms(self) -> tuple[str, ...]:
        """What is replaced as it stands, longest first."""
        forms = {form for value in self.values for form in _forms(value)}
        return tuple(sorted(forms, key=lambda form: (-len(form), form)))

    @cached_property
    def _in_base64(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(form for value in self.values for form in _in_base64(value)))

    @cached_property
    def _needles(self) -> tuple[str, ...]:
        return (*self._forms, *self._in_base64)

    @cached_property
    def _undone(self) -> tuple[str, ...]:
        """What to look for where escapes are undone: of a secret that holds some itself, those are undone too."""
        plain = (text for value in self.values for text in _unescaped(value) if len(text) >= MIN_SECRET)
        return (*self._needles, *plain)

    @cached_property
    def _spelled(self) -> tuple[re.Pattern[str], ...]:
        return tuple(re.compile("".join(map(_spellings, value))) for value in self.values)


NONE = Secrets()


def matches(wanted: Any, stored: Any) -> bool:
    """Whether a stored value is the wanted one. *** in `wanted` stands for any one word, because databases of before
    hold what is masked today, and because a secret may have been renewed since."""
    if isinstance(wanted, str) and isinstance(stored, str) and MASK in wanted:
        return re.fullmatch(r"\S+".join(map(re.escape, wanted.split(MASK))), stored) is not None
    if isinstance(wanted, Mapping) and isinstance(stored, Mapping):
        return wanted.keys() == stored.keys() and all(matches(value, stored[key]) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(stored, list):
        return len(wanted) == len(stored) and all(map(matches, wanted, stored))
    return bool(wanted == stored)


def _has_escapes(text: str) -> bool:
    """Whether a text holds an escape. Three searches for one character are fast; what follows it is looked at then."""
    return any(char in text and follows.search(text) is not None for char, follows in _BEGINS)


def _unescaped(text: str) -> Iterator[str]:
    """The text with its escapes undone, once and again: a secret may hold what reads like one itself."""
    for _ in range(_ROUNDS):
        plain = _ESCAPE.sub(_character, text)
        for char, name in _HTML.items():
            if name in plain:
                plain = plain.replace(name, char)
        if plain == text:
            return
        yield plain
        text = plain


def _character(match: re.Match[str]) -> str:
    kind, code = match.lastgroup, match[match.lastgroup or 0]
    if kind == "self":
        return code
    number = int(code, 10 if kind == "d" else 16)
    return chr(number) if number <= 0x10FFFF else match[0]


def _forms(value: str) -> Iterator[str]:
    data = value.encode("utf-8", "surrogatepass")
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield quote(data, safe="")
    yield quote_plus(data)
    yield "".join(f"%{byte:02X}" for byte in data)
    yield data.hex()
    yield data.hex().upper()
    yield "".join(_HTML.get(char, char) for char in value)


def _in_base64(value: str) -> Iterator[str]:
    """What of its Base64 doesn't depend on what stands before and behind it, for each of the three places of a byte."""
    data = value.encode("utf-8", "surrogatepass")
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode()[(0, 2, 3)[before] : (before + len(data)) * 8 // 6]
        yield text
        yield text.replace("+", "-").replace("/", "_")


def _spellings(char: str) -> str:
    """A pattern of a character in every escape, and in escapes of escapes."""
    code = ord(char)
    units = [code] if code < 0x10000 else [0xD7C0 + (code >> 10), 0xDC00 + (code & 0x3FF)]
    ways = [
        "".join(rf"\\+u(?i:{unit:04x})" for unit in units),
        "".join(rf"%(?:25)*(?i:{byte:02x})" for byte in char.encode("utf-8", "surrogatepass")),
        rf"&(?:amp;)*#0*{code};",
        rf"&(?:amp;)*#[xX]0*(?i:{code:x});",
    ]
    if code < 256:
        ways.append(rf"\\+x(?i:{code:02x})")
    if char in _HTML:
        ways.append(re.escape(_HTML[char]))
    if char == " ":
        ways.append(r"\+")
    ways.append(r"\\*" + re.escape(char))
    return f"(?:{'|'.join(ways)})"

"""What others sent, as the database and every JSON reader can hold it."""

import math
from typing import Any

MAX_INT = 2**63 - 1  # of SQLite's INTEGER
MAX_DEPTH = 32  # of a page about a server; JSON libraries stop at 254, Python at about 1,000


def storable(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A JSON value: containers nested deeper are empty, an integer over 64 bits is text, what is no number is None."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, dict):
        return {storable_text(str(key)): storable(inner, depth - 1) for key, inner in value.items()} if depth else {}
    if isinstance(value, list):
        return [storable(inner, depth - 1) for inner in value] if depth else []
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if type(value) is int and not -MAX_INT <= value <= MAX_INT:
        return f"an integer of {value.bit_length()} bits"
    return value


def storable_text(text: str) -> str:
    """No UTF-8 holds half a surrogate pair, which a JSON escape can make: halves are joined, or become U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def header_text(value: str) -> str:
    """A header's value as libraries give it, its odd bytes as surrogates: UTF-8 where it is that, else Latin-1."""
    raw = value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")

"""JSON as servers write it, and what is said of anything else."""

import json
from typing import Any

import orjson


class UnreadableError(Exception):
    """An event or body that is not what an OpenAI-compatible server sends; the text says how, `payload` is it."""

    def __init__(self, what: str, payload: bytes = b"") -> None:
        super().__init__(what)
        self.payload = payload


def parse_json(data: bytes) -> Any:
    """The value of `data`. What orjson refuses and servers send is taken: half a surrogate pair in one delta, which is
    legal, and NaN and infinities (in log probabilities), which are not: they become None, "unknown".

    Raises UnreadableError.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return json.loads(data, parse_constant=lambda name: None)
        except (ValueError, RecursionError) as error:
            raise UnreadableError(f"not JSON ({str(error)[:80]})", data) from None


def json_or_none(data: bytes) -> Any:
    """The value, or None for anything that is no JSON."""
    try:
        return parse_json(data)
    except UnreadableError:
        return None


def as_evidence(value: Any) -> bytes:
    """The beginning of a value as JSON, or as near as it gets: deep or odd ones too."""
    try:
        return json.dumps(value, default=str)[:1000].encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that can't be shown".encode()


def as_text(value: Any) -> str:
    """The whole of a value as JSON text."""
    return json.dumps(value, ensure_ascii=False, default=str)


def joined_halves(text: str) -> str:
    """Surrogate halves that came in two deltas joined; a half that stayed alone replaced: no UTF-8 can hold it."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text

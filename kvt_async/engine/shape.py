"""The text of a stream's events without reading all of their JSON.

In one stream nearly all events are alike but for one string, the new text. `learn` finds what stands before and after
that string; whatever comes with the same bytes around another JSON string is the same event with another text. That is
no guess: the place is proven by putting a string of our own there and reading the whole.
"""

import re
from typing import Any

import orjson

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_KEYS = (re.compile(rb'"content"\s*:\s*'), re.compile(rb'"text"\s*:\s*'))
_OURS = "kvt"


class Shape:
    """Bytes around the text of one stream's content events."""

    __slots__ = ("_after", "_before", "_least", "_text_ends")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before, self._after = before, after  # without the string's own quotes
        self._least = len(before) + len(after) + 2
        self._text_ends = -len(after)

    def text_of(self, payload: bytes) -> str | None:
        """The text, if this is such an event; None: read it whole."""
        if len(payload) < self._least or not payload.startswith(self._before) or not payload.endswith(self._after):
            return None
        try:
            text = orjson.loads(payload[len(self._before) : self._text_ends])
        except orjson.JSONDecodeError:
            return None  # not one string: other fields stand between
        return text if type(text) is str else None


def learn(payload: bytes, event: Any) -> Shape | None:
    """The shape of `event` (`payload` read whole), if it is content and nothing else; None where none can be found."""
    if not _only_content(event):
        return None
    for key in _KEYS:
        for found in key.finditer(payload):
            string = _STRING.match(payload, found.end())
            if string is None or string.end() == len(payload):
                continue
            shape = Shape(payload[: string.start()], payload[string.end() :])
            if _proven(shape, payload, event):
                return shape
    return None


def _only_content(event: Any) -> bool:
    """Whether a transcript would take its text and nothing more from this event."""
    try:
        (choice,) = event["choices"]
        quiet = (
            choice.get("finish_reason") is None
            and not choice.get("index")
            and not choice.get("error")
            and event.get("usage") is None
        )
        if "delta" in choice and choice["delta"] is not None:
            return bool(quiet) and set(choice["delta"]) == {"content"} and isinstance(choice["delta"]["content"], str)
        return bool(quiet) and isinstance(choice.get("text"), str)
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _proven(shape: Shape, payload: bytes, event: Any) -> bool:
    try:
        other = orjson.loads(shape._before + orjson.dumps(_OURS) + shape._after)
    except orjson.JSONDecodeError:
        return False
    if not _only_content(other):
        return False
    choice, ours = event["choices"][0], other["choices"][0]
    holder, key = (ours["delta"], "content") if ours.get("delta") is not None else (ours, "text")
    if holder.get(key) != _OURS:
        return False
    holder[key] = choice["delta"]["content"] if choice.get("delta") is not None else choice["text"]
    return bool(other == event)

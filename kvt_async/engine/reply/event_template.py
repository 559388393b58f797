"""The text of a stream's events without reading all of their JSON.

In one stream nearly all events are alike but for one string, the new text. `learn` finds what stands before and after
that string; whatever comes with the same bytes around another JSON string is the same event with another text. That is
no guess: the place is proven by putting a string of our own there and reading the whole.
"""

import re
from collections.abc import Sequence
from typing import Any

import orjson

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_KEYS = (re.compile(rb'"content"\s*:\s*'), re.compile(rb'"text"\s*:\s*'))
_OURS = "kvt"


class Shape:
    """Bytes around the text of one stream's content events."""

    __slots__ = ("_between", "_end", "after", "before", "start")

    def __init__(self, before: bytes, after: bytes) -> None:
        """`before` and `after` stand outside the string's own quotes."""
        self.before, self.after, self.start = before, after, b"data: " + before
        self._end = after + b"\n\n"
        self._between = self._end + self.start

    def around(self, strings: Sequence[bytes]) -> bytes:
        """The bytes of neighbouring events with these strings."""
        return self.start + self._between.join(strings) + self._end


def texts_of(strings: Sequence[bytes]) -> list[str] | None:
    """JSON strings parsed together, which costs a fraction of each alone; None: one of them is not one string.

    A line end stands between neighbours, which no JSON string may hold: so each gives a value of its own or an error,
    and as many values as strings, all of them text, are one each.
    """
    try:
        values: list[str] = orjson.loads(b"[" + b",\n".join(strings) + b"]")
    except orjson.JSONDecodeError:
        return None
    return values if len(values) == len(strings) and set(map(type, values)) == {str} else None


def learn(payload: bytes, event: Any) -> Shape | None:
    """The shape of `event` (`payload` read whole), if it is content and nothing else; None where none can be found."""
    if not _only_content(event):
        return None
    for key in _KEYS:
        for match in key.finditer(payload):
            string = _STRING.match(payload, match.end())
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
            not choice.get("finish_reason")
            and not choice.get("index")
            and not (choice.get("error") or choice.get("usage") or event.get("error") or event.get("usage"))
            and not (event.get("x_groq") or event.get("base_resp") or event.get("timings"))
        )
        if "delta" in choice and choice["delta"] is not None:
            return bool(quiet) and set(choice["delta"]) == {"content"} and isinstance(choice["delta"]["content"], str)
        return bool(quiet) and isinstance(choice.get("text"), str)
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _proven(shape: Shape, payload: bytes, event: Any) -> bool:
    try:
        other = orjson.loads(shape.before + orjson.dumps(_OURS) + shape.after)
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

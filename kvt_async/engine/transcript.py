"""A server's events, JSON by now, read into one transcript.

Reading is lenient about what servers add and strict about what kvt needs: an event is a JSON object; its text is text.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from msgspec import Struct, field

from kvt_async.records import Json

MAX_INT = 2**63 - 1  # of SQLite's INTEGER; a server may count in anything


class UnreadableError(Exception):
    """An event or body that is not what an OpenAI-compatible server sends; the text says how, `payload` is it."""

    def __init__(self, what: str, payload: bytes = b"") -> None:
        super().__init__(what)
        self.payload = payload


def parse_json(data: bytes) -> Any:
    """JSON as servers write it: half a surrogate pair in one delta is legal there and refused by orjson.

    Raises UnreadableError.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return json.loads(data, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise UnreadableError(f"not JSON ({str(error)[:80]})", data) from None


def json_or_none(data: bytes) -> Any:
    """The value, or None for anything that is no JSON."""
    try:
        return parse_json(data)
    except UnreadableError:
        return None


class Transcript(Struct, gc=False):
    """What the events of one reply said, in order, with the instants of what first came when.

    A role-only, empty or usage-only event is no text. Instants are None where the thing did not happen.
    """

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tools: list[Any] = field(default_factory=list)
    chunk_ns: list[int] = field(default_factory=list)  # arrival of every text chunk, content or reasoning
    chunk_chars: list[int] = field(default_factory=list)  # and its length
    finish_reason: str | None = None
    usage: Json | None = None
    error: Any = None
    first_content_ns: int | None = None
    first_reasoning_ns: int | None = None
    first_tool_ns: int | None = None
    last_delta_ns: int | None = None
    finish_ns: int | None = None
    usage_ns: int | None = None

    def add_run(self, texts: Sequence[str], arrivals: Sequence[int]) -> None:
        """Pieces of content that were found without reading the whole of their events, and when each came."""
        if not all(texts):
            arrivals = [at_ns for at_ns, text in zip(arrivals, texts, strict=True) if text]
            texts = [text for text in texts if text]
        if texts:
            if self.first_content_ns is None:
                self.first_content_ns = arrivals[0]
            self.last_delta_ns = arrivals[-1]
            self.content += texts
            self.chunk_ns += arrivals
            self.chunk_chars += map(len, texts)

    def add(self, events: Iterable[Any], arrivals: Iterable[int]) -> None:
        """Events of a stream in order, and when each came. Raises UnreadableError for a shape that can't be read."""
        for event, at_ns in zip(events, arrivals):  # noqa: B905 - `strict` would be looked at for every event
            if type(event) is not dict:
                raise UnreadableError("an event is not a JSON object", _again(event))
            choices = event.get("choices")
            if choices:
                choice = choices[0] if type(choices) is list else None
                if type(choice) is not dict:
                    raise UnreadableError("`choices` is not a list of objects", _again(event))
                if not choice.get("index"):
                    delta = choice.get("delta")
                    if type(delta) is dict:
                        text = delta.get("content")
                        if text:
                            self._content(text, at_ns)
                        others = len(delta) - (text is not None)
                        if others and not (others == 1 and "role" in delta):
                            self._rarer(delta, at_ns)
                    elif delta is not None:
                        raise UnreadableError("`delta` is not an object", _again(choice))
                    elif text := choice.get("text"):
                        self._content(text, at_ns)
                    reason = choice.get("finish_reason")
                    if reason is not None:
                        self.finish_reason, self.finish_ns = _reason(reason), at_ns
                    if error := choice.get("error"):
                        self.error = error
            else:
                self._note_error(event)
            usage = event.get("usage")
            if usage is not None and type(usage) is dict:
                self.usage, self.usage_ns = usage, at_ns

    def add_whole(self, body: Any) -> None:
        """A reply that was not streamed. Raises UnreadableError."""
        if type(body) is not dict:
            raise UnreadableError("the reply is not a JSON object")
        self._note_error(body)
        if self.error is not None:
            return
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices or type(choices[0]) is not dict:
            raise UnreadableError("the reply has no `choices`")
        choice = choices[0]
        message = choice.get("message")
        if message is None:
            message = {"content": choice.get("text")}
        if type(message) is not dict:
            raise UnreadableError("`message` is not an object")
        self.content.append(_text(message.get("content") or message.get("refusal")))
        if reasoning := _text(message.get("reasoning_content") or message.get("reasoning")):
            self.reasoning.append(reasoning)
        self.tools.extend(message.get("tool_calls") or ())
        self.finish_reason = _reason(choice.get("finish_reason"))
        if isinstance(body.get("usage"), dict):
            self.usage = body["usage"]

    @property
    def text(self) -> str:
        return _whole("".join(self.content))

    @property
    def reasoning_text(self) -> str | None:
        return _whole("".join(self.reasoning)) if self.reasoning else None

    def _content(self, text: Any, at_ns: int) -> None:
        if type(text) is not str:
            text = _text(text)
            if not text:
                return
        if self.first_content_ns is None:
            self.first_content_ns = at_ns
        self.last_delta_ns = at_ns
        self.content.append(text)
        self.chunk_ns.append(at_ns)
        self.chunk_chars.append(len(text))

    def _rarer(self, delta: Json, at_ns: int) -> None:
        if reasoning := _text(delta.get("reasoning_content") or delta.get("reasoning")):
            if self.first_reasoning_ns is None:
                self.first_reasoning_ns = at_ns
            self.last_delta_ns = at_ns
            self.reasoning.append(reasoning)
            self.chunk_ns.append(at_ns)
            self.chunk_chars.append(len(reasoning))
        if refusal := delta.get("refusal"):
            self._content(refusal, at_ns)
        if tools := delta.get("tool_calls"):
            if self.first_tool_ns is None:
                self.first_tool_ns = at_ns
            self.tools.extend(tools if isinstance(tools, list) else (tools,))

    def _note_error(self, event: Json) -> None:
        error = event.get("error")
        if error:
            self.error = error
        elif event.get("object") == "error":
            self.error = event


def as_count(value: Any) -> int | None:
    """A token count of a usage object; None for anything that isn't one."""
    return value if type(value) is int and 0 <= value <= MAX_INT else None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):  # content parts: [{"type": "text", "text": ...}]
        return "".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    raise UnreadableError(f"text is a {type(value).__name__}", _again(value))


def _again(value: Any) -> bytes:
    """Evidence: the value as JSON, or as near as it gets."""
    return json.dumps(value, default=str)[:1000].encode()


def _reason(value: Any) -> str | None:
    return None if value is None else str(value)[:100]


def _whole(text: str) -> str:
    """Surrogate halves that came in two deltas joined; a half that stayed alone replaced: no UTF-8 can hold it."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")

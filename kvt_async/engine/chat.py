"""The request body of chat and text completions, and the server's events read into one transcript.

Reading is lenient about what servers add and strict about what kvt needs: an event is a JSON object; its text is text.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from kvt_async.contract.prompt import plain
from kvt_async.contract.settings import Settings
from kvt_async.engine.kv_body import PromptSize, kv_fields
from kvt_async.records import Json, Level

PATHS = {"chat": "/chat/completions", "completions": "/completions"}
MAX_INT = 2**63 - 1  # of SQLite's INTEGER; a server may count in anything


class UnreadableError(Exception):
    """An event or body that is not what an OpenAI-compatible server sends; the text says how, `payload` is it."""

    def __init__(self, what: str, payload: bytes = b"") -> None:
        super().__init__(what)
        self.payload = payload


def build_body(settings: Settings, messages: Sequence[Mapping[str, str]], level: Level, size: PromptSize) -> bytes:
    """One request, encoded. `extra_body` is merged over our fields, the level's KV fields over both."""
    decoding, engine = settings.decoding, settings.engine
    body: Json = {"model": settings.model.name}
    if settings.prompt.endpoint == "chat":
        body["messages"] = list(messages)
    else:
        body["prompt"] = plain([dict(m) for m in messages])
    body["temperature"] = decoding.temperature
    body[max_tokens_field(settings, level)] = decoding.max_tokens
    if decoding.seed is not None:
        body["seed"] = decoding.seed
    if decoding.stop is not None:
        body["stop"] = decoding.stop
    body["stream"] = engine.stream
    if engine.stream and engine.stream_usage != "never":
        body["stream_options"] = {"include_usage": True}
    merge(body, decoding.extra_body)
    merge(body, kv_fields(level, size))
    return orjson.dumps(body)


def max_tokens_field(settings: Settings, level: Level) -> str:
    """auto: `max_tokens`, which every server knows; `max_completion_tokens` on api.openai.com, which refuses the former
    for its reasoning models. Never a second try with the other name: what was sent is what the config says."""
    field = settings.decoding.max_tokens_field
    if field != "auto":
        return field
    urls = level.endpoints or (settings.engine.base_url,)
    openai = any(urlsplit(url).hostname == "api.openai.com" for url in urls)
    return "max_completion_tokens" if openai and settings.prompt.endpoint == "chat" else "max_tokens"


def merge(base: Json, layer: Mapping[str, Any]) -> None:
    """Deep: objects merge, everything else replaces."""
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value


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


def parse_many(payloads: Sequence[bytes]) -> list[Any] | None:
    """All payloads in one parse, which costs half of parsing each; None: one of them is not a JSON value of its own.

    A zero stands between neighbours, so that payloads that are only together valid don't pass.
    """
    try:
        values = orjson.loads(b"[" + b",0,".join(payloads) + b"]")
    except orjson.JSONDecodeError:
        return None
    return values[::2] if len(values) == 2 * len(payloads) - 1 else None


class Transcript:
    """What the events of one reply said, in order, with the instants of what first came when.

    A role-only, empty or usage-only event is no text. Instants are None where the thing did not happen.
    """

    __slots__ = (
        "chunk_chars",
        "chunk_ns",
        "content",
        "error",
        "finish_ns",
        "finish_reason",
        "first_content_ns",
        "first_reasoning_ns",
        "first_tool_ns",
        "last_delta_ns",
        "reasoning",
        "tools",
        "usage",
        "usage_ns",
    )

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.tools: list[Any] = []
        self.chunk_ns: list[int] = []  # arrival of every text chunk, content or reasoning
        self.chunk_chars: list[int] = []  # and its length
        self.finish_reason: str | None = None
        self.usage: Json | None = None
        self.error: Any = None
        self.first_content_ns: int | None = None
        self.first_reasoning_ns: int | None = None
        self.first_tool_ns: int | None = None
        self.last_delta_ns: int | None = None
        self.finish_ns: int | None = None
        self.usage_ns: int | None = None

    def add_all(self, events: Sequence[Any], stamps: Sequence[int]) -> None:
        """As `add`, one after the other. Nearly all events are one piece of content: they take the short way."""
        for event, at_ns in zip(events, stamps, strict=True):
            try:
                (choice,) = event["choices"]
                delta = choice["delta"]
                text = delta["content"]
                plain = len(delta) == 1 and choice.get("finish_reason") is None and event.get("usage") is None
            except (KeyError, TypeError, ValueError, AttributeError):
                plain, text = False, None
            if plain and type(text) is str and text and not choice.get("index") and not choice.get("error"):
                if self.first_content_ns is None:
                    self.first_content_ns = at_ns
                self.last_delta_ns = at_ns
                self.content.append(text)
                self.chunk_ns.append(at_ns)
                self.chunk_chars.append(len(text))
            else:
                self.add(event, at_ns)

    def add(self, event: Any, at_ns: int) -> None:
        """One event of a stream. Raises UnreadableError for a shape that can't be read."""
        if type(event) is not dict:
            raise UnreadableError("an event is not a JSON object", _again(event))
        choices = event.get("choices")
        if choices:
            choice = choices[0] if isinstance(choices, list) else None
            if type(choice) is not dict:
                raise UnreadableError("`choices` is not a list of objects", _again(event))
            if choice.get("index", 0) in (0, None):
                self._choice(choice, at_ns)
        usage = event.get("usage")
        if usage is not None and isinstance(usage, dict):
            self.usage, self.usage_ns = usage, at_ns
        if not choices:
            self._note_error(event)

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

    def _choice(self, choice: Json, at_ns: int) -> None:
        delta = choice.get("delta")
        if delta is None:
            text = choice.get("text")
            if text:
                self._content(text, at_ns)
        elif type(delta) is dict:
            text = delta.get("content")
            if text:
                self._content(text, at_ns)
            if len(delta) > (text is not None):
                self._rarer(delta, at_ns)
        else:
            raise UnreadableError("`delta` is not an object", _again(choice))
        reason = choice.get("finish_reason")
        if reason is not None:
            self.finish_reason, self.finish_ns = _reason(reason), at_ns
        if choice.get("error"):
            self.error = choice["error"]

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


def count(usage: Mapping[str, Any] | None, *path: str) -> int | None:
    """A token count out of a usage object; None for anything that isn't one."""
    node: Any = usage
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if type(node) is int and 0 <= node <= MAX_INT else None


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

"""What a prompt at a level is sent as: the body of a chat or text completion, and the level's own headers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.prompt_text import context_end, plain
from kvt_async.contract.settings import Settings
from kvt_async.engine.request.kv_fields import PromptSize, kv_fields, kv_headers
from kvt_async.records import Json, Level, Payload

Messages = Sequence[Mapping[str, str]]
TextOf = Callable[[Messages], str]  # of the messages, as the prompt of a completion
PATHS = {"chat": "/chat/completions", "completions": "/completions"}


def build_payload(
    settings: Settings,
    messages: Messages,
    level: Level,
    size: PromptSize,
    tools: Mapping[str, Any] | None = None,
    text_of: TextOf | None = None,
) -> Payload:
    """One prompt at a level, as it is sent. `tools`: the example's `tool_fields`, for the chat endpoint alone;
    `text_of`: where a completion's prompt is another text than the contents of its messages."""
    body = build_body(settings, messages, level, size, tools, text_of)
    return Payload(PATHS[settings.prompt.endpoint], body, kv_headers(level, size))


def build_body(
    settings: Settings,
    messages: Messages,
    level: Level,
    size: PromptSize,
    tools: Mapping[str, Any] | None = None,
    text_of: TextOf | None = None,
) -> bytes:
    """One request, encoded. `extra_body` is merged over our fields, the level's KV fields over both; a null in
    `extra_body` takes the field out."""
    if settings.prompt.endpoint == "chat":
        prompt_fields: Json = {"messages": list(messages), **(tools or {})}
        if settings.prompt.answer_prefix and messages[-1]["role"] == "assistant":
            prompt_fields |= {"continue_final_message": True, "add_generation_prompt": False}
    elif text_of is not None:
        text = text_of(messages)
        prompt_fields, size = {"prompt": text}, _in_text(text, messages, size)
    else:
        prompt_fields = {"prompt": plain([dict(m) for m in messages])}
    return orjson.dumps(assemble(settings, prompt_fields, level, kv_fields(level, size)))


def _in_text(text: str, messages: Messages, size: PromptSize) -> PromptSize:
    """The size with the place where the context ends in a `text` that a chat template made of the messages. Raises
    ConfigError where it changed the context, since a level that compresses it alone could not say where it ends."""
    if size.context_chars is None:
        return size
    first = next((message["content"] for message in messages if message["role"] == "user"), "")
    end = context_end(text, first, size.context_chars)
    if end is None:
        raise ConfigError(
            "the chat template changes the user's message, so nobody can say where the context ends in it",
            where="prompt.answer_prefix",
            do="Use prompt.endpoint: chat.",
        )
    return replace(size, context_chars=end)


def assemble(settings: Settings, prompt_fields: Json, level: Level, kv: Json) -> Json:
    """The fields of a request. `prompt_fields`: what its prompt adds, under the endpoint's name for it."""
    decoding, engine = settings.decoding, settings.engine
    body: Json = {"model": settings.model.name, **prompt_fields}
    if decoding.temperature is not None:
        body["temperature"] = decoding.temperature
    body[max_tokens_field(settings, level)] = decoding.most_tokens
    if decoding.seed is not None:
        body["seed"] = decoding.seed
    if decoding.stop is not None:
        body["stop"] = decoding.stop
    body["stream"] = engine.stream
    if engine.stream and engine.stream_usage != "never":
        body["stream_options"] = {"include_usage": True}
    merge(body, decoding.extra_body, null_removes=True)
    merge(body, kv)
    return body


def max_tokens_field(settings: Settings, level: Level) -> str:
    """auto: `max_tokens`, which every server knows; `max_completion_tokens` on api.openai.com, which refuses the former
    for its reasoning models. Never a second try with the other name: what was sent is what the config says."""
    field = settings.decoding.max_tokens_field
    if field != "auto":
        return field
    if settings.prompt.endpoint != "chat":
        return "max_tokens"
    return "max_completion_tokens" if _openai(level.endpoints or (settings.engine.base_url,)) else "max_tokens"


@cache
def _openai(urls: tuple[str, ...]) -> bool:
    return any(urlsplit(url).hostname == "api.openai.com" for url in urls)


def merge(base: Json, layer: Mapping[str, Any], *, null_removes: bool = False) -> None:
    """Merge `layer` into `base`, deep: objects merge, everything else replaces. Objects of `layer` are copied, so that
    merging into `base` later doesn't change them.

    `null_removes`: what is null in `layer` goes (JSON merge patch, RFC 7396): a server that refuses a field can be
    asked without it, whoever put it there.
    """
    for key, value in layer.items():
        if value is None and null_removes:
            base.pop(key, None)
        elif isinstance(value, dict):
            inner = base.get(key)
            if not isinstance(inner, dict):
                inner = base[key] = {}
            merge(inner, value, null_removes=null_removes)
        else:
            base[key] = value

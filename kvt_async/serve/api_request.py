"""Request bodies to checked requests, as strict as vLLM: unknown fields pass, known ones must be right.

Only `kv` refuses unknown fields. What would change the answer and isn't implemented is refused, never ignored.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from kvt_async.serve.api_errors import ApiError, shown
from kvt_async.serve.catalogue import Catalogue
from kvt_async.serve.kv_request import KvRequest, parse_kv
from kvt_async.serve.prompt_format import Message, Tool
from kvt_async.serve.sampling import Sampling

COMPLETION_MAX_TOKENS = 16  # OpenAI's default for /v1/completions; chat goes on to the end of the context window
NOT_IMPLEMENTED = {
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "echo": (None, False),
    "best_of": (None, 1),
    "n": (None, 1),
    "functions": (None, []),
    "function_call": (None, "none"),
    "suffix": (None, ""),
    "logit_bias": (None, {}),
}


@dataclass(frozen=True, slots=True)
class ApiRequest:
    model: str | None
    messages: tuple[Message, ...]  # empty for a completion
    prompt: str | tuple[int, ...]  # "" for a chat
    max_tokens: int | None
    sampling: Sampling
    stop: tuple[str, ...]
    ignore_eos: bool
    stream: bool
    include_usage: bool
    kv: KvRequest
    tools: tuple[Tool, ...] = ()  # for the chat template; the model's calls stay in its text


def parse_request(body: bytes, *, chat: bool, policies: Catalogue) -> ApiRequest:
    """Raise ApiError (400) for what can't be understood or done; `policies` are those that `kv` may name."""
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        raise ApiError(f"The body is not JSON: {problem}", code="invalid_json") from None
    if not isinstance(raw, dict):
        raise ApiError(f"The body must be a JSON object, not {type(raw).__name__}")
    for name, harmless in NOT_IMPLEMENTED.items():
        if raw.get(name) not in harmless:
            raise ApiError(f"{name} = {shown(raw[name])} is not implemented by this server", param=name)
    if not chat and raw.get("tools"):
        raise ApiError("tools are taken by /v1/chat/completions only: a chat template writes them", param="tools")
    stream = _boolean(raw, "stream")
    options = raw.get("stream_options")
    options = {} if options is None else options
    if not isinstance(options, dict):
        raise ApiError("stream_options must be an object", param="stream_options")
    if options and not stream:
        raise ApiError("stream_options needs stream = true", param="stream_options")
    model = raw.get("model")
    if model is not None and not isinstance(model, str):
        raise ApiError("model must be a string", param="model")
    default = None if chat else COMPLETION_MAX_TOKENS
    first = raw.get("max_completion_tokens") if chat else None
    max_tokens = first if first is not None else raw.get("max_tokens")
    if max_tokens is not None:
        _whole("max_completion_tokens" if first is not None else "max_tokens", max_tokens, 1)
    return ApiRequest(
        model=model,
        messages=_continued(raw, _messages(raw.get("messages"))) if chat else (),
        prompt="" if chat else _prompt(raw.get("prompt")),
        max_tokens=default if max_tokens is None else max_tokens,
        sampling=_sampling(raw),
        stop=_stop(raw.get("stop")),
        ignore_eos=_boolean(raw, "ignore_eos"),
        stream=stream,
        include_usage=_boolean(options, "include_usage"),
        kv=parse_kv(raw.get("kv"), policies),
        tools=_tools(raw) if chat else (),
    )


def _tools(raw: Mapping[str, Any]) -> tuple[Tool, ...]:
    """The function definitions. What would force a call is refused: nothing here constrains what the model writes."""
    tools, choice = raw.get("tools"), raw.get("tool_choice")
    if choice not in (None, "auto", "none"):
        raise ApiError(
            f"tool_choice = {shown(choice)} is not implemented by this server: it is auto or none", param="tool_choice"
        )
    if tools is None:
        return ()
    if not isinstance(tools, list):
        raise ApiError("tools must be an array of function definitions", param="tools")
    for n, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ApiError(
                f'tools[{n}] must be {{"type": "function", "function": {{"name": "...", ...}}}}', param=f"tools[{n}]"
            )
    return tuple(tools)


def _messages(raw: object) -> tuple[Message, ...]:
    if not isinstance(raw, list) or not raw:
        raise ApiError("messages must be a non-empty array", param="messages")
    messages = []
    for i, entry in enumerate(raw):
        if not isinstance(entry, dict) or not isinstance(entry.get("role"), str):
            raise ApiError(f"messages[{i}] must be an object with a role", param=f"messages[{i}]")
        content = entry.get("content")
        if isinstance(content, list):
            parts = [p.get("text") for p in content if isinstance(p, dict) and p.get("type") == "text"]
            if len(parts) != len(content) or not all(isinstance(part, str) for part in parts):
                raise ApiError(f"messages[{i}].content may hold text parts only", param=f"messages[{i}].content")
            content = "\n".join(str(part) for part in parts)
        if not isinstance(content, str):
            raise ApiError(f"messages[{i}].content must be a string", param=f"messages[{i}].content")
        messages.append(Message(entry["role"], content))
    return tuple(messages)


def _continued(raw: Mapping[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages, the last one open where the answer is to go on from it. As in vLLM a new turn can't be asked for
    beside that, and one is begun unless it is."""
    goes_on, begins = _boolean(raw, "continue_final_message"), raw.get("add_generation_prompt")
    if begins is not None:
        begins = _boolean(raw, "add_generation_prompt")
    if not goes_on:
        if begins is False:
            raise ApiError(
                "add_generation_prompt = false is implemented with continue_final_message = true only",
                param="add_generation_prompt",
            )
        return messages
    if begins is not False:
        raise ApiError(
            "continue_final_message = true goes on from the last message: send add_generation_prompt = false with it",
            param="add_generation_prompt",
        )
    if messages[-1].role != "assistant" or not messages[-1].content.strip():
        raise ApiError(
            "continue_final_message = true needs a last message of the assistant with some text",
            param="continue_final_message",
        )
    return (*messages[:-1], replace(messages[-1], is_open=True))


def _prompt(raw: object) -> str | tuple[int, ...]:
    if isinstance(raw, list) and len(raw) == 1 and isinstance(raw[0], str | list):
        raw = raw[0]
    if isinstance(raw, str):
        return raw
    if isinstance(raw, list) and raw and all(isinstance(i, int) and not isinstance(i, bool) for i in raw):
        return tuple(raw)
    raise ApiError("prompt must be one string or one array of token ids", param="prompt")


def _sampling(raw: Mapping[str, Any]) -> Sampling:
    temperature = _number(raw, "temperature", 1.0, 0.0, 2.0)
    top_p = _number(raw, "top_p", 1.0, 0.0, 1.0)
    if top_p == 0:
        raise ApiError("top_p must be above 0", param="top_p")
    seed = raw.get("seed")
    if seed is not None:
        _whole("seed", seed, -(2**63))
    return Sampling(temperature, top_p, None if seed is None else seed % 2**64)


def _stop(raw: object) -> tuple[str, ...]:
    stops = [raw] if isinstance(raw, str) else [] if raw is None else raw
    if not isinstance(stops, list) or len(stops) > 16 or not all(isinstance(s, str) and s for s in stops):
        raise ApiError("stop must be a non-empty string or an array of up to 16 of them", param="stop")
    return tuple(stops)


def _number(raw: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = raw.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ApiError(f"{name} must be a number", param=name)
    if not low <= value <= high:
        raise ApiError(f"{name} must be from {low:g} to {high:g}, not {value}", param=name)
    return float(value)


def _boolean(raw: Mapping[str, Any], name: str) -> bool:
    value = raw.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise ApiError(f"{name} must be true or false", param=name)


def _whole(name: str, value: object, smallest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ApiError(f"{name} must be an integer", param=name)
    if value < smallest:
        raise ApiError(f"{name} must be at least {smallest}, not {value}", param=name)

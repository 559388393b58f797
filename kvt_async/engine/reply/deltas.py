"""What a delta, or a message, says beside plain text: content parts, reasoning under all its names, tool calls."""

from typing import Any

from kvt_async.engine.reply.payload import UnreadableError, as_evidence
from kvt_async.records import Json

REASONING = (  # a server that gives several of them says the same in each
    *("reasoning_content", "reasoning", "thinking", "reasoning_text", "thinking_content", "thought"),
    *("reasoning_details", "thinking_blocks", "reasoning_summary", "cot_summary", "reasoningContent"),
)
_INSIDE = ("text", "thinking", "reasoning", "reasoning_text", "reasoningText", "summary", "content", "value")


def split_content(value: Any) -> tuple[str, str]:
    """(text, reasoning) of a content field: a string, or a list of parts of which some are thinking.

    Raises UnreadableError for what is neither.
    """
    if value is None or isinstance(value, str):
        return value or "", ""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise UnreadableError(f"text is a {type(value).__name__}", as_evidence(value))
    text = thought = ""
    for piece in value:
        kind = str(piece.get("type", "")).lower() if isinstance(piece, dict) else ""
        if "think" in kind or "reason" in kind or (isinstance(piece, dict) and piece.get("thought") is True):
            thought += _plain(piece)
        elif isinstance(piece, dict):
            text += _plain(piece.get("text") or piece.get("refusal"))
            thought += "" if kind else reasoning_of(piece)
        else:
            text += _plain(piece)
    return text, thought


def reasoning_of(delta: Json) -> str:
    """Its reasoning, under whichever name; empty where there is none. What is no text is not looked at: nobody scores
    reasoning, and a reply must not be lost to it."""
    for name in REASONING:
        if (value := delta.get(name)) and (text := _plain(value)):
            return text
    return ""


def tool_calls_of(delta: Json) -> list[Json]:
    """Its tool calls, or pieces of them; where there are none, the older `function_call` as one. Of several without an
    `index` each gets its place."""
    calls = delta.get("tool_calls")
    objects = [call for call in (calls if isinstance(calls, list) else [calls]) if isinstance(call, dict)]
    if len(objects) > 1:
        return [{"index": n, **call} for n, call in enumerate(objects)]
    older = delta.get("function_call")
    return [{"function": older}] if isinstance(older, dict) and not objects else objects


def inner_of(call: Json) -> Json:
    """What of a tool call holds its name and arguments."""
    for holder in (call.get("function"), call.get("custom")):
        if holder:
            return holder if isinstance(holder, dict) else {}
    return call


def written_chars(call: Json) -> int:
    """Characters of a piece of a call that the model wrote: its name and arguments. A call's head alone counts 1."""
    inner = inner_of(call)
    written = [inner.get(name) for name in ("name", "arguments", "input")]
    n_chars = sum(len(value if isinstance(value, str) else as_evidence(value)) for value in written if value)
    return n_chars or int(bool(call.get("id")))


def _plain(value: Any) -> str:
    """The text in a value: of a list all of it, of an object the first field that has some."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_plain, value))
    if isinstance(value, dict):
        return next((text for name in _INSIDE if (text := _plain(value.get(name)))), "")
    return ""

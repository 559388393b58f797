"""The tool calls in an answer: as stored from the reply's own field, or as the model wrote them into its text.

Stored calls are JSON, [{"name", "arguments"}]. In a text these are calls, and nothing else is: text that is such JSON
as a whole, alone or in one fenced block; `<tool_call>` (Hermes, Qwen), `<function=NAME>` and `<|python_tag|>` (Llama)
and `[TOOL_CALLS]` (Mistral) with JSON behind them; harmony's messages to a function. Reasoning holds none.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvt_async.contract.formulas.reasoning import CHANNEL, strip_reasoning

_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|$)", re.DOTALL)
_FUNCTION = re.compile(r"<function=([^<>\s]{1,200})>(.*?)(?:</function>|(?=<function=)|$)", re.DOTALL)
_PYTHON_TAG, _MISTRAL, _MISTRAL_ID, _MISTRAL_ARGS = "<|python_tag|>", "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_FENCE = "```"
_HARMONY = re.compile(
    r"to=(?:functions\.)?([\w.-]{1,200}+)[^<]{0,200}+(?:<\|channel\|>[^<]{0,200}+)?(?:<\|constrain\|>[^<]{0,200}+)?"
    r"<\|message\|>(.*?)(?:<\|(?:call|end|start|return)\|>|$)",
    re.DOTALL,
)
"""No pattern tries a text twice: a model may write anything, and much of it."""


@dataclass(frozen=True)
class Call:
    """`arguments` None: what stood there is no JSON object. A call that can't be read at all has no name either."""

    name: str
    arguments: Mapping[str, Any] | None


def calls_of(answer: str) -> list[Call]:
    """The calls in order; none where the answer makes none."""
    if (calls := _of_json(answer)) is not None:  # before anything else: arguments may hold any mark
        return calls
    if CHANNEL in answer and (messages := _HARMONY.findall(answer)):
        return [Call(name, arguments_of(body)) for name, body in messages]
    text = strip_reasoning(answer).removeprefix(_PYTHON_TAG)
    if bodies := [body for body in _TAGGED.findall(text) if body.lstrip()[:1] in ("{", "[")]:
        return [call for body in bodies for call in _tagged(body)]
    if functions := [(name, body) for name, body in _FUNCTION.findall(text) if body.lstrip()[:1] in ("", "{")]:
        return [Call(name, arguments_of(body)) for name, body in functions]
    if _MISTRAL in text:
        return [call for part in text.split(_MISTRAL)[1:] for call in _mistral(part)]
    return _of_json(_unfenced(text)) or []


def arguments_of(value: Any) -> Mapping[str, Any] | None:
    """Arguments as an object: given so, or as JSON text; no text at all is an empty object."""
    if isinstance(value, str):
        value = _loaded(value) if value.strip() else {}
    return value if isinstance(value, dict) else None


def _of_json(text: str) -> list[Call] | None:
    """The calls of a text that is JSON as a whole; None: it isn't, or not of calls."""
    text = text.strip()
    return _listed(_loaded(text)) if text[:1] in ("[", "{") else None


def _tagged(body: str) -> list[Call]:
    """Calls behind a mark that promises some: what can't be read is a call that can't be read."""
    calls = _of_json(body)
    return [Call("", None)] if calls is None else calls


def _mistral(part: str) -> list[Call]:
    """[TOOL_CALLS][{...}], or [TOOL_CALLS]name[ARGS]{...}, or without the second mark."""
    name, mark, body = part.partition(_MISTRAL_ARGS)
    if not mark:
        at = min((n for n in (part.find("{"), part.find("[")) if n >= 0), default=len(part))
        name, body = part[:at], part[at:]
    name = name.partition(_MISTRAL_ID)[0].strip()
    return [Call(name, arguments_of(body))] if name else _tagged(body)


def _unfenced(text: str) -> str:
    """What stands in the one fenced block of a text; the text where there is none, or several."""
    parts = text.split(_FENCE)
    if len(parts) != 3:
        return text
    language, _, body = parts[1].partition("\n")
    return body if language.strip().isalnum() or not language.strip() else parts[1]


def _listed(value: Any) -> list[Call] | None:
    """The calls of a JSON value; None: it is no call and no list of calls."""
    if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        value = value["tool_calls"]
    calls = [_call(item) for item in (value if isinstance(value, list) else [value])]
    read = [call for call in calls if call is not None]
    return read if len(read) == len(calls) else None


def _call(item: Any) -> Call | None:
    if isinstance(item, dict) and isinstance(item.get("function"), dict):
        item = item["function"]
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        return None
    held = next((key for key in ("arguments", "parameters") if key in item), None)
    return None if held is None else Call(item["name"], arguments_of(item[held]))


def _loaded(text: str) -> Any:
    """The JSON value of a text; None for anything that is none, NaN and infinities too."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> None:
    raise ValueError(name)

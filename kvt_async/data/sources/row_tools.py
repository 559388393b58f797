"""What a jsonl row of a task of tool calls adds: the tools that are offered, and the calls that are right.

`tools`: function definitions as chat requests carry them, [{"type": "function", "function": {"name", "description",
"parameters"}}]. `tool_choice`: auto | none | required, or {"type": "function", "function": {"name"}}; sent where it is
given. `expected_calls`: a list, each of whose items is right by itself: a call {"name", "arguments"}, or a list of
calls that must all be made. An empty list, or an empty item: it is right to make no call.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.data.sources.json_rows import wrong_type

CHOICES = ("auto", "none", "required")
_TOOL = '{"type": "function", "function": {"name": "...", "description": "...", "parameters": {"type": "object", ...}}}'
_TOOLS = f"`tools` is a list as chat requests carry it: [{_TOOL}]."
_CHOICE = 'tool_choice is one of auto, none, required, or {"type": "function", "function": {"name": "..."}}.'
_EXPECTED = (
    'expected_calls is a list of what is right: each item a call {"name": "...", "arguments": {...}}, or a list of '
    "calls that belong together; [] where no call is right."
)


def check_tools(meta: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError for `tools` that no chat request can carry, and for a `tool_choice` that means nothing."""
    tools, choice = meta.get("tools"), meta.get("tool_choice")
    if tools is None or tools == []:
        if choice is not None:
            raise ConfigError("tool_choice without tools", where=where, do="Give the row `tools`, or leave it out.")
        return
    if not isinstance(tools, list):
        raise wrong_type("tools", "a list of function definitions", tools, where, _TOOLS)
    names = [_name(tool, f"tools[{n}]", where) for n, tool in enumerate(tools)]
    twice = next((name for n, name in enumerate(names) if name in names[:n]), None)
    if twice is not None:
        raise ConfigError(f"two tools are called {twice!r}", where=where, do="Give each tool its own name.")
    if choice is None or choice in CHOICES:
        return
    inner = choice.get("function") if isinstance(choice, dict) else None
    if not (isinstance(inner, dict) and choice.get("type") == "function" and inner.get("name") in names):
        raise ConfigError(
            f"tool_choice {orjson.dumps(choice).decode()[:80]} names none of this row's tools", where=where, do=_CHOICE
        )


def expected_calls(record: Mapping[str, Any], where: str) -> tuple[str, ...] | None:
    """The row's answers from its `expected_calls`, each as JSON text; None: it has no such field.

    Raises ConfigError for calls of another shape, and beside `answers`.
    """
    given = record.get("expected_calls")
    if given is None:
        return None
    if record.get("answers"):
        raise ConfigError("the row has answers and expected_calls", where=where, do="Keep one of them.")
    if not isinstance(given, list):
        raise wrong_type("expected_calls", "a list", given, where, _EXPECTED)
    for n, item in enumerate(given):
        for call in item if isinstance(item, list) else [item]:
            _check_call(call, f"expected_calls[{n}]", where)
    return tuple(orjson.dumps(item).decode() for item in given)


def _name(tool: object, at: str, where: str) -> str:
    """The function's name. Raises ConfigError where it is no function definition."""
    inner = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(tool, dict) or not isinstance(inner, dict) or tool.get("type") != "function":
        raise ConfigError(f"{at} is no function definition", where=where, do=_TOOLS)
    name, parameters = inner.get("name"), inner.get("parameters")
    if not isinstance(name, str) or not name.strip():
        raise wrong_type(f"{at}.function.name", "a non-empty string", name, where, _TOOLS)
    if parameters is not None and not isinstance(parameters, dict):
        raise wrong_type(f"{at}.function.parameters", "a JSON Schema, which is an object", parameters, where, _TOOLS)
    return name


def _check_call(call: object, at: str, where: str) -> None:
    if not isinstance(call, dict):
        raise wrong_type(at, "a call or a list of calls", call, where, _EXPECTED)
    if not isinstance(call.get("name"), str) or not call["name"].strip():
        raise wrong_type(f"{at}.name", "a non-empty string", call.get("name"), where, _EXPECTED)
    if not isinstance(call.get("arguments"), dict):
        raise wrong_type(f"{at}.arguments", "an object", call.get("arguments"), where, _EXPECTED)
    if surplus := sorted(call.keys() - {"name", "arguments"}):
        raise ConfigError(f"{at} has the unknown key {surplus[0]!r}", where=where, do=_EXPECTED)

"""What a model is reminded of as its own earlier answer, where a conversation goes on with `workload.history: own`.

The text without reasoning, as chat templates leave it out of earlier turns, and tool calls as text behind it: JSON
that `analyzer/metrics/calls_in_text.py` reads as the same calls. An answer that was cut off by its length goes along
as far as it came; one that is empty stays empty.
"""

import json

from kvt_async.contract.formulas.finish_reasons import is_cut_off
from kvt_async.contract.formulas.reasoning import has_reasoning, strip_reasoning


def said(
    text: str, reasoning: str | None, tool_calls_json: str | None, finish_reason: str | None, *, opened: bool
) -> str:
    """The answer as `responses` holds it -> the content of an assistant's message.

    `opened`: the chat template opened reasoning before the answer, so that one without any mark, cut off by its length,
    never came out of it, unless the server sends reasoning in a field of its own.
    """
    if opened and not reasoning and is_cut_off(finish_reason) and not has_reasoning(text):
        answer = ""
    else:
        answer = strip_reasoning(text)
    calls = _calls(tool_calls_json)
    return "\n".join(part for part in (answer, calls) if part)


def _calls(tool_calls_json: str | None) -> str:
    """[{"name", "arguments"}, ...], arguments as an object where they are one; empty: there are none."""
    calls = json.loads(tool_calls_json) if tool_calls_json else None
    if not isinstance(calls, list) or not calls:
        return ""
    named = [{"name": call["name"], "arguments": _arguments(call["arguments"])} for call in calls]
    return json.dumps(named, ensure_ascii=False)


def _arguments(text: object) -> object:
    if not isinstance(text, str):
        return text
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return text
    return value if isinstance(value, dict) else text

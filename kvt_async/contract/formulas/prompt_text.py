"""Example -> chat messages or a plain prompt. Shared, so that `kvt show` renders exactly what was sent.

A template has {context} and {question}. Text before the end of {context} is the context part: its length in characters
goes to servers that compress the context alone (`{context_chars}` in kv.apply.body).
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError

DEFAULT_TEMPLATE = "{context} {question}"


def check_template(template: str, where: str = "prompt.template") -> None:
    """Raises ConfigError unless {context} and {question} each stand in it exactly once, context first."""
    for name in ("{context}", "{question}"):
        if template.count(name) != 1:
            raise ConfigError(
                f"the template needs {name} exactly once", where=where, do=f"It reads: {template[:200]!r}"
            )
    if template.index("{context}") > template.index("{question}"):
        raise ConfigError("{context} must stand before {question}", where=where, do="Put the question last.")


def render(
    template: str, context: str, question: str, turns: Sequence[Sequence[str]] = (), system: str | None = None
) -> tuple[list[dict[str, str]], int]:
    """Messages and the number of characters of the first user message that belong to the context.

    With earlier `turns` the first question stands in the template, and `question` is the last user message.
    """
    first = turns[0][0] if turns else question
    head, rest = halves(template)
    user = head + context + rest.replace("{question}", first)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": user})
    for idx, (_, answer) in enumerate(turns):
        messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": turns[idx + 1][0] if idx + 1 < len(turns) else question})
    return messages, len(head) + len(context)


def halves(template: str) -> tuple[str, str]:
    """The template's text before the context, and its text behind the context with the question filled in."""
    head, rest = template.split("{context}")
    return head, rest


def plain(messages: Sequence[dict[str, str]]) -> str:
    """The prompt of the completions endpoint: contents joined by blank lines, no roles."""
    return "\n\n".join(m["content"] for m in messages)


def template_version(template: str, system: str | None, endpoint: str) -> str:
    """SHA-256 of what turns an example into a prompt."""
    return hashlib.sha256("\x1f".join((template, system or "", endpoint)).encode()).hexdigest()


def tool_fields(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What an example adds to the body of a chat request: `tools` and `tool_choice`; empty where it offers no tools."""
    tools = meta.get("tools")
    if not (isinstance(tools, list) and tools and all(isinstance(tool, dict) for tool in tools)):
        return {}
    choice = meta.get("tool_choice")
    return {"tools": tools} if choice is None else {"tools": tools, "tool_choice": choice}


def messages_sha256(messages: Sequence[dict[str, str]], tools: Mapping[str, Any] | None = None) -> str:
    """Hash of the rendered messages, and of the example's `tool_fields` where it has any: `manifest_entries`'
    prompt_sha256, and of requests that send them unchanged."""
    prompt = {"messages": list(messages), **tools} if tools else list(messages)
    return hashlib.sha256(orjson.dumps(prompt)).hexdigest()


def cluster_sha256(context: str, unit: str) -> str:
    """The cluster an example belongs to: its context before any cut. An empty context is shared by the turns of one
    conversation and with nobody else. `unit`: the example's `unit_of` (formulas/conversation.py)."""
    return hashlib.sha256((context or f"\x00{unit}").encode()).hexdigest()

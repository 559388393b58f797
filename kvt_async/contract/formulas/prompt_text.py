"""Example -> chat messages or a plain prompt. Shared, so that `kvt show` renders exactly what was sent.

A template has {context} and {question}. Text before the end of {context} is the context part: its length in characters
goes to servers that compress the context alone (`{context_chars}` in kv.apply.body). A context may also be a
conversation: then it is messages of its own, no template is used, and their number goes to such servers
(`{context_messages}`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError

DEFAULT_TEMPLATE = "{context} {question}"
CONVERSATION = "{context}{question}"  # stands for the template of data whose contexts are conversations


def check_template(template: str, where: str = "prompt.template") -> None:
    """Raises ConfigError unless {context} and {question} each stand in it exactly once, context first."""
    for name in ("{context}", "{question}"):
        if template.count(name) != 1:
            raise ConfigError(
                f"the template needs {name} exactly once", where=where, do=f"It reads: {template[:200]!r}"
            )
    if template.index("{context}") > template.index("{question}"):
        raise ConfigError("{context} must stand before {question}", where=where, do="Put the question last.")


def context_parts(meta: Mapping[str, Any], context: str) -> list[tuple[str, int]]:
    """(role, characters) of the messages that a context consists of, `meta.context_messages`; empty: it is one text.

    A list of another form, or of another length in all than the context, is a note of the user's and says nothing.
    """
    given = meta.get("context_messages")
    if not isinstance(given, list) or not all(
        isinstance(part, list | tuple) and len(part) == 2 and isinstance(part[0], str) and type(part[1]) is int
        for part in given
    ):
        return []
    parts = [(role, n_chars) for role, n_chars in given]
    fits = all(n_chars >= 0 for _, n_chars in parts) and sum(n_chars for _, n_chars in parts) == len(context)
    return parts if fits else []


def render(
    template: str,
    context: str,
    question: str,
    turns: Sequence[Sequence[str]] = (),
    system: str | None = None,
    parts: Sequence[tuple[str, int]] = (),
    prefix: str = "",
) -> tuple[list[dict[str, str]], int | None]:
    """Messages and the number of characters of the first user message that belong to the context.

    With earlier `turns` the first question stands in the template, and `question` is the last user message. With
    `parts` (`context_parts`) the context is messages of its own, each question is one, no template is used, and no
    number of characters says where the context ends: None. A `prefix` (`turn_prefix`) is the last message, the
    assistant's, which the answer goes on from.
    """
    begun = [{"role": "assistant", "content": prefix}] if prefix else []
    messages = [{"role": "system", "content": system}] if system else []
    if parts:
        at = 0
        for role, n_chars in parts:
            messages.append({"role": role, "content": context[at : at + n_chars]})
            at += n_chars
        for asked, answer in turns:
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        return [*messages, {"role": "user", "content": question}, *begun], None
    first = turns[0][0] if turns else question
    head, rest = halves(template)
    user = head + context + rest.replace("{question}", first)
    messages.append({"role": "user", "content": user})
    for idx, (_, answer) in enumerate(turns):
        messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": turns[idx + 1][0] if idx + 1 < len(turns) else question})
    return [*messages, *begun], len(head) + len(context)


def stored_messages(
    rule: Mapping[str, Any], context: str, question: str, meta: Mapping[str, Any]
) -> list[dict[str, str]]:
    """The messages of a stored example, by the rule that its data set was prepared by (`datasets.prompt_json`)."""
    messages, _ = render(
        rule.get("template") or DEFAULT_TEMPLATE,
        context,
        question,
        meta.get("turns") or (),
        rule.get("system"),
        context_parts(meta, context),
        turn_prefix(rule.get("answer_prefix"), meta),
    )
    return messages


def turn_prefix(place: str | None, meta: Mapping[str, Any]) -> str:
    """What the answer begins with, `meta.answer_prefix` without blanks around it; empty unless `place`
    (prompt.answer_prefix, of the rule that a dataset was prepared by) is `turn`."""
    given = meta.get("answer_prefix") if place == "turn" else None
    return given.strip() if isinstance(given, str) else ""


def context_end(text: str, content: str, n_chars: int) -> int | None:
    """Where the first characters of a message end in a `text` that a chat template made of it; None: it isn't there. A
    template may trim the message: what it cut at the start is not counted."""
    for kept in (content, content.rstrip(), content.lstrip(), content.strip()):
        if kept and (start := text.find(kept)) >= 0:
            cut = len(content) - len(content.lstrip()) if kept[:1] != content[:1] else 0
            return start + min(max(0, n_chars - cut), len(kept))
    return None


def context_messages(parts: Sequence[tuple[str, int]], system: str | None) -> int | None:
    """How many of the first messages are context: a system text counts too. None where the context is one text."""
    return len(parts) + bool(system) if parts else None


def unsaid_context(level: str) -> ConfigError:
    """The refusal of a level, by its name on screen, that compresses the context alone and would not say where that
    ends."""
    return ConfigError(
        f"{level} compresses the context alone, and the context of this data is a conversation: {{context_chars}} says "
        "where a context ends in the first user message, and can't say it of several messages",
        where="kv.apply",
        do="Use mode: question_aware, or, where the server takes it (kvt serve does), add context_messages: "
        '"{context_messages}" beside context_chars.',
    )


def halves(template: str) -> tuple[str, str]:
    """The template's text before the context, and its text behind the context with the question filled in."""
    head, rest = template.split("{context}")
    return head, rest


def plain(messages: Sequence[dict[str, str]]) -> str:
    """The prompt of the completions endpoint: contents joined by blank lines, no roles."""
    return "\n\n".join(m["content"] for m in messages)


def template_version(template: str, system: str | None, endpoint: str, answer_prefix: str | None = None) -> str:
    """SHA-256 of what turns an example into a prompt."""
    later = (answer_prefix,) if answer_prefix else ()  # what came later is in it only where it is asked for
    return hashlib.sha256("\x1f".join((template, system or "", endpoint, *later)).encode()).hexdigest()


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
    conversation and with nobody else. `unit`: the example's `cluster_unit` (formulas/conversation.py)."""
    return hashlib.sha256((context or f"\x00{unit}").encode()).hexdigest()

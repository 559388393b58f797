"""Example -> messages, the text that is counted, and the hash of what is sent; and the cut of overlong prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.conversation import cluster_unit
from kvt_async.contract.formulas.prompt_text import (
    DEFAULT_TEMPLATE,
    check_template,
    cluster_sha256,
    context_parts,
    plain,
    render,
    template_version,
    turn_prefix,
)
from kvt_async.contract.formulas.reasoning import left_open
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import OUR_SOURCES
from kvt_async.data.sources.source import ExampleSource
from kvt_async.data.tokens import APPROX, PromptTokenizer
from kvt_async.records import Example

NOT_CONTRACT = ("reasoning_tag", "chat_template_kwargs")
"""Keys of the rule that only say how answers are read: manifests of before lack them, and two groups that share a
manifest may differ in them."""
_LATER = ("answer_prefix",)  # came later, and is there only where it changes what is sent
_NO_PREFIX = frozenset(OUR_SOURCES) - {"ruler", "jsonl"}


@dataclass(frozen=True, slots=True)
class PromptRule:
    """How examples of one dataset become prompts: `datasets.prompt_json`. What has a default changes nothing that is
    sent: three fields are the task's, for scoring and for the reader, and two say whether reasoning is open before an
    answer. answer_prefix changes it: `turn`, where `meta.answer_prefix` begins the assistant's turn.
    """

    template: str
    system: str | None
    endpoint: str  # chat | completions
    max_context_tokens: int | None
    template_version: str  # SHA-256 of template, system and endpoint
    chat_template_sha256: str | None  # of the tokenizer's chat template, where it was counted in
    first_line_only: bool = False
    task_max_new_tokens: int | None = None
    task_chat_template: bool = True  # False: the task is published without a chat template
    reasoning_tag: str | None = None  # the mark of reasoning that the prompt leaves open before the answer; None: none
    chat_template_kwargs: dict[str, Any] | None = None  # that it was rendered with to know so
    answer_prefix: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What is None of the last three is left out: manifests of before lack them."""
        return {k: v for k, v in asdict(self).items() if v is not None or k not in (*NOT_CONTRACT, *_LATER)}

    def messages(self, example: Example) -> list[dict[str, str]]:
        turns, parts = example.meta.get("turns") or (), context_parts(example.meta, example.context)
        prefix = turn_prefix(self.answer_prefix, example.meta)
        return render(self.template, example.context, example.question, turns, self.system, parts, prefix)[0]

    @property
    def writes_turns(self) -> bool:
        """Whether the chat template is written by us, into the prompt of a completion."""
        return self.endpoint == "completions" and self.answer_prefix is not None


def prompt_rule(settings: Settings, source: ExampleSource, tokenizer: PromptTokenizer) -> PromptRule:
    """prompt.template, else the task's own, else the default. Raises ConfigError for a template that lacks a part.

    A task's own template may lack {question}: summaries ask nothing.
    """
    prompt = settings.prompt
    if prompt.template is not None:
        check_template(prompt.template)
    template = prompt.template or source.template or DEFAULT_TEMPLATE
    counted = tokenizer.chat if prompt.endpoint == "chat" or prompt.answer_prefix else None
    if prompt.answer_prefix:
        _check_prefix(settings, tokenizer)
    arguments = settings.decoding.extra_body.get("chat_template_kwargs") or {}
    if prompt.answer_prefix:
        opened = None  # the turn has begun with words of the answer
    elif prompt.endpoint == "chat":
        opened = counted.reasoning_tag(arguments) if counted and isinstance(arguments, dict) else None
    else:
        opened = left_open(template.rpartition("{question}")[2])
    return PromptRule(
        template=template,
        system=prompt.system,
        endpoint=prompt.endpoint,
        max_context_tokens=prompt.max_context_tokens,
        template_version=template_version(template, prompt.system, prompt.endpoint, prompt.answer_prefix),
        chat_template_sha256=counted.sha256 if counted else None,
        first_line_only=source.first_line_only,
        task_max_new_tokens=source.max_new_tokens,
        task_chat_template=source.chat_template,
        reasoning_tag=opened,
        chat_template_kwargs=(arguments or None) if opened and counted else None,
        answer_prefix=prompt.answer_prefix,
    )


def _check_prefix(settings: Settings, tokenizer: PromptTokenizer) -> None:
    """Raises ConfigError where no example can have an answer prefix, and where nobody knows how a turn is written."""
    name, where = settings.dataset.name, "prompt.answer_prefix"
    if name in _NO_PREFIX:
        raise ConfigError(
            f"{name} has no answer prefix",
            where=where,
            do="Leave it out. RULER's tasks have one, and rows of jsonl with meta.answer_prefix.",
        )
    if settings.prompt.endpoint == "completions" and tokenizer.chat is None:
        raise ConfigError(
            f"{tokenizer.name} has no chat template, so an assistant's turn can't be written into a completion",
            where=where,
            do="Set tokenizer.name to the model's own tokenizer with its chat template, or prompt.endpoint: chat.",
        )


def served_text(
    rule: PromptRule,
    tokenizer: PromptTokenizer,
    messages: Sequence[dict[str, str]],
    tools: Mapping[str, Any] | None = None,
) -> str:
    """What the server tokenises: chat template included where the tokenizer has one, else the plain prompt.

    `tools`: the example's `tool_fields`. An estimate takes them as JSON; else only a chat template says how they are
    written, and without one they are left out.
    """
    if tokenizer.chat and (rule.endpoint == "chat" or rule.writes_turns):
        continues = rule.answer_prefix is not None and messages[-1]["role"] == "assistant"
        text = tokenizer.chat.render(messages, tools["tools"] if tools else None, continues=continues)
        return _without_bos(text, tokenizer) if rule.writes_turns else text
    text = plain(messages)
    return f"{text}\n\n{orjson.dumps(tools['tools']).decode()}" if tools and tokenizer.name == APPROX else text


def _without_bos(text: str, tokenizer: PromptTokenizer) -> str:
    """The text of a completion without the mark of its beginning where servers add one of their own to it, as to
    every completion: twice it would be another prompt."""
    bos = tokenizer.chat.bos if tokenizer.chat else ""
    return text[len(bos) :] if bos and text.startswith(bos) and tokenizer.count([""], special=True)[0] else text


def tokens_behind(
    rule: PromptRule, tokenizer: PromptTokenizer, messages: Sequence[dict[str, str]], n_context: int
) -> int:
    """Tokens behind the messages that are the context: the question, and the mark behind which the answer begins."""
    behind = served_text(rule, tokenizer, messages[n_context:])
    return tokenizer.count([behind], special=not is_templated(rule, tokenizer))[0]


def tools_counted(rule: PromptRule, tokenizer: PromptTokenizer) -> str:
    """How the lengths of prompts that offer tools were counted, as a clause."""
    if is_templated(rule, tokenizer):
        if tokenizer.chat is not None and tokenizer.chat.shows_tools():
            return "counted as the chat template writes them"
        return "the chat template leaves them out, and so do the lengths: the model may never see them"
    if tokenizer.name == APPROX:
        return "estimated as JSON text; the server's own count tells"
    return "not in the lengths, since the tokenizer has no chat template that writes them"


def is_templated(rule: PromptRule, tokenizer: PromptTokenizer) -> bool:
    return rule.endpoint == "chat" and tokenizer.chat is not None


def cut_context(rule: PromptRule, tokenizer: PromptTokenizer, example: Example, where: str) -> Example | None:
    """The example with its context cut in the middle; None when its prompt fits prompt.max_context_tokens.

    The limit holds for the plain prompt, as in LongBench's script: template, context and question, with earlier turns
    but without system text and chat template. Half of the limit's tokens stay at either end.

    Raises ConfigError when those halves do not reach over the parts around the context, and where the context is a
    conversation, which is published whole.
    """
    limit = rule.max_context_tokens
    if limit is None:
        return None
    text = plain(replace(rule, system=None).messages(example))
    kept = tokenizer.halves(text, limit)
    if kept is None:
        return None
    if context_parts(example.meta, example.context):
        raise ConfigError(
            f"the conversation of {example.example_id} has more than {limit} tokens, and conversations are not cut",
            where=f"prompt.max_context_tokens ({where})",
            do="Set prompt.max_context_tokens to null; binning.edges leaves out what is too long for the server.",
        )
    head = rule.template.split("{context}")[0]
    tail = text[len(head) + len(example.context) :]
    first, last = kept
    if not (first.startswith(head) and last.endswith(tail)):
        raise ConfigError(
            f"max_context_tokens {limit} leaves no room for the context of {example.example_id}: "
            "template and question alone fill a half of it",
            where=f"prompt.max_context_tokens ({where})",
            do="Raise prompt.max_context_tokens.",
        )
    return replace(example, context=first[len(head) :] + last[: len(last) - len(tail)])


def context_sha256(example: Example) -> str:
    """The cluster an example belongs to: its context before any cut."""
    return cluster_sha256(example.context, cluster_unit(example.example_id, example.meta))

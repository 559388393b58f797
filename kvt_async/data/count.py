"""Rows -> counted examples, a batch at a time."""

from collections.abc import Sequence
from dataclasses import replace

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.prompt_text import (
    CONVERSATION,
    DEFAULT_TEMPLATE,
    context_messages,
    context_parts,
    messages_sha256,
    tool_fields,
)
from kvt_async.data.example_prompt import (
    PromptRule,
    context_sha256,
    cut_context,
    is_templated,
    served_text,
    tokens_behind,
)
from kvt_async.data.sources.source import Row
from kvt_async.data.spool import CountedExample
from kvt_async.data.tokens import PromptTokenizer
from kvt_async.records import Example, Json


def count_batch(batch: list[Row], rule: PromptRule, tokenizer: PromptTokenizer) -> list[CountedExample]:
    """Count a batch as it will be sent; overlong contexts are cut and marked.

    `meta.context_tokens` is the whole context's own length, before any cut; of a conversation with the template's marks
    of its messages. Raises ConfigError from the cut and from the chat template, naming the row.
    """
    for row in batch:
        _check_conversation(row, rule)
    whole = [row.example for row in batch]
    prompts = [rule.messages(example) for example in whole]
    offered = [_tools(row, rule) for row in batch]
    special = not is_templated(rule, tokenizer)
    contexts = [*dict.fromkeys(example.context for example in whole)]  # turns share theirs
    tokens_of = dict(zip(contexts, tokenizer.count(contexts, special=False), strict=True))
    own = [tokens_of[example.context] for example in whole]
    served = [
        _served(row, rule, tokenizer, messages, tools)
        for row, messages, tools in zip(batch, prompts, offered, strict=True)
    ]
    full = tokenizer.count(served, special=special)
    for at, (example, messages) in enumerate(zip(whole, prompts, strict=True)):
        if (n := context_messages(context_parts(example.meta, example.context), rule.system)) is not None:
            own[at] = full[at] - tokens_behind(rule, tokenizer, messages, n)
    counted, cuts = [], _Cuts(rule, tokenizer)
    for row, messages, tools, context_tokens, original in zip(batch, prompts, offered, own, full, strict=True):
        cut = cuts.of(row)
        sent = replace(cut or row.example, meta={"context_tokens": context_tokens, **row.example.meta})
        sent_messages, token_len, sent_tokens = messages, original, context_tokens
        if cut is not None:
            sent_messages = rule.messages(sent)
            (token_len,) = tokenizer.count([served_text(rule, tokenizer, sent_messages, tools)], special=special)
            (sent_tokens,) = tokenizer.count([sent.context], special=False)
        counted.append(
            CountedExample(
                example=sent,
                where=row.where,
                token_len=token_len,
                context_tokens=sent_tokens,
                original_tokens=original,
                truncated=cut is not None,
                prompt_sha256=messages_sha256(sent_messages, tools),
                context_sha256=context_sha256(row.example),
            )
        )
    return counted


def _check_conversation(row: Row, rule: PromptRule) -> None:
    """Raises ConfigError where the messages of a context that is a conversation could not be sent as they are."""
    if not context_parts(row.example.meta, row.example.context):
        return
    if rule.endpoint != "chat":
        raise ConfigError(
            "the context of this row is a conversation, which only chat requests can carry",
            where=row.where,
            do="Set prompt.endpoint: chat.",
        )
    if rule.template not in (CONVERSATION, DEFAULT_TEMPLATE):
        raise ConfigError(
            "the context of this row is a conversation, whose messages go out as they are: no template is used",
            where=f"prompt.template ({row.where})",
            do="Set prompt.template to null.",
        )


class _Cuts:
    """The cut that is made for the last turn of a conversation, the longest, is that of all its turns: they share one
    context, and it begins every prompt alike."""

    def __init__(self, rule: PromptRule, tokenizer: PromptTokenizer) -> None:
        self._rule, self._tokenizer = rule, tokenizer
        self._last: tuple[Example, Example | None] | None = None  # a last turn, and as it was cut

    def of(self, row: Row) -> Example | None:
        """The example with its context cut; None: it stays whole."""
        if row.last_turn is None:
            return cut_context(self._rule, self._tokenizer, row.example, row.where)
        if self._last is None or self._last[0] is not row.last_turn:
            self._last = row.last_turn, cut_context(self._rule, self._tokenizer, row.last_turn, row.where)
        cut = self._last[1]
        return None if cut is None else replace(row.example, context=cut.context)


def _tools(row: Row, rule: PromptRule) -> Json:
    """Raises ConfigError for tools where none can be sent."""
    tools = tool_fields(row.example.meta)
    if tools and rule.endpoint != "chat":
        raise ConfigError(
            "this row offers tools, which only chat requests can",
            where=row.where,
            do="Set prompt.endpoint: chat, or leave `tools` out and describe them in the prompt.",
        )
    return tools


def _served(
    row: Row, rule: PromptRule, tokenizer: PromptTokenizer, messages: Sequence[dict[str, str]], tools: Json
) -> str:
    try:
        return served_text(rule, tokenizer, messages, tools)
    except ConfigError as error:
        raise ConfigError(
            error.what, where=error.where, do=error.do, details=(*error.details, f"rendering {row.where}")
        ) from None

"""The control `truncate_prompt`: the prompt itself is cut to as many tokens as an eviction policy would keep.

It needs nothing of a server, and answers the question that any eviction policy must: is it better than sending less?
The context goes first; the question is touched only where the budget is smaller than it, and then from its front.
`middle` keeps both ends of the context (as LongBench cuts overlong prompts), `left` keeps its end. Of a context that is
a conversation the messages in between go whole, and those at the edges lose a part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.kv_budget import n_kept
from kvt_async.contract.formulas.prompt_text import (
    context_messages,
    context_parts,
    messages_sha256,
    render,
    tool_fields,
    turn_prefix,
)
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import Unit
from kvt_async.data.example_prompt import PromptRule, is_templated, served_text, tokens_behind
from kvt_async.data.tokens import APPROX, PromptTokenizer, load_tokenizer
from kvt_async.records import Example, Json, Level

MODES = ("middle", "left")
TRIES = 4  # a cut changes how the text at its edges is tokenised: counted again, corrected by the difference


@dataclass(frozen=True, slots=True)
class Cut:
    """A shorter prompt. `tokens` counts it as the manifest counts prompts: chat template included."""

    messages: list[dict[str, str]]
    context_chars: int | None  # of the first user message; None: the context is a conversation
    context_tokens: int
    tokens: int
    tools: Json  # the example's `tool_fields`: never cut
    context_messages: int | None = None  # of a conversation: how many messages are left of it

    @property
    def prompt_sha256(self) -> str:
        return messages_sha256(self.messages, self.tools)


def mode_of(level: Level) -> str:
    """Raises ConfigError for a mode that there isn't, and for a budget that is no number of tokens."""
    mode = level.params.get("mode", MODES[0])
    if mode not in MODES:
        raise ConfigError(
            f"{level.policy} has no mode {mode!r}", where="kv.params.mode", do=f"Known: {', '.join(MODES)}."
        )
    if level.unit == Unit.BITS:
        raise ConfigError(f"{level.policy} cuts tokens, not bits", where="kv.unit", do="Use unit: fraction or tokens.")
    return str(mode)


class Cutter:
    """Cuts the prompts of one dataset with the tokenizer that counted them."""

    def __init__(self, rule: PromptRule, tokenizer: PromptTokenizer) -> None:
        self._rule, self._tokenizer = rule, tokenizer
        self._special = not is_templated(rule, tokenizer)
        self.exact = tokenizer.name != APPROX  # otherwise our counts are mere estimates

    @classmethod
    def of_settings(cls, settings: Settings, rule: PromptRule) -> "Cutter":
        """Raises ConfigError where the tokenizer isn't there."""
        return cls(rule, load_tokenizer(settings))

    def cut(self, example: Example, token_len: int, level: Level) -> Cut:
        """The example's prompt at the level's budget; whole where it is within it already."""
        if parts := context_parts(example.meta, example.context):
            return self._cut_conversation(example, parts, token_len, level)
        turns, tools = example.meta.get("turns") or (), tool_fields(example.meta)
        rule, prefix = self._rule, turn_prefix(self._rule.answer_prefix, example.meta)
        messages, whole_chars = render(
            rule.template, example.context, example.question, turns, rule.system, prefix=prefix
        )
        context_chars = whole_chars or 0
        first = next(n for n, message in enumerate(messages) if message["role"] == "user")
        text = messages[first]["content"]
        goal = _goal(token_len, level)
        spans = self._tokenizer.spans(text)
        n_context = sum(1 for start, _ in spans if start < context_chars)
        keep, tokens, chars = len(spans) - (token_len - goal), token_len, context_chars
        for _ in range(TRIES if goal < token_len else 0):
            keep = min(max(keep, 1), len(spans))
            kept, chars = _shorter(text, spans, n_context, context_chars, keep, mode_of(level))
            messages[first] = {"role": "user", "content": kept}
            served = served_text(self._rule, self._tokenizer, messages, tools)
            (tokens,) = self._tokenizer.count([served], special=self._special)
            if tokens == goal or (tokens > goal and keep == 1):
                break
            keep -= tokens - goal
        left = max(0, n_context - max(0, token_len - tokens))
        return Cut(messages, chars, left, tokens, tools)

    def _cut_conversation(
        self, example: Example, parts: Sequence[tuple[str, int]], token_len: int, level: Level
    ) -> Cut:
        """The same where the context is messages of its own. The question is never cut."""
        rule, tools, turns = self._rule, tool_fields(example.meta), example.meta.get("turns") or ()
        prefix = turn_prefix(rule.answer_prefix, example.meta)
        goal, spans = _goal(token_len, level), self._tokenizer.spans(example.context)
        keep, tokens = len(spans) - (token_len - goal), token_len
        kept, messages = parts, rule.messages(example)
        for _ in range(TRIES if goal < token_len else 0):
            keep = min(max(keep, 0), len(spans))
            context, kept = _shorter_conversation(example.context, spans, parts, keep, mode_of(level))
            messages, _ = render(rule.template, context, example.question, turns, rule.system, kept, prefix)
            served = served_text(rule, self._tokenizer, messages, tools)
            (tokens,) = self._tokenizer.count([served], special=self._special)
            if tokens == goal or (tokens > goal and keep == 0):
                break
            keep -= tokens - goal
        n_context = context_messages(kept, rule.system) or 0
        left = max(0, tokens - tokens_behind(rule, self._tokenizer, messages, n_context))
        return Cut(messages, None, left, tokens, tools, n_context)

    def expectation(self, cut: Cut, token_len: int) -> Json:
        """For kv_evidence.read_evidence: what was cut, to be set beside the server's own count of the prompt."""
        return {"full_tokens": token_len, "sent_tokens": cut.tokens, "exact": self.exact}


def _goal(token_len: int, level: Level) -> int:
    """How many tokens of a prompt stay."""
    return min(int(level.budget), token_len) if level.unit == Unit.TOKENS else n_kept(token_len, level.budget)


def _shorter(
    text: str, spans: Sequence[tuple[int, int]], n_context: int, context_chars: int, keep: int, mode: str
) -> tuple[str, int]:
    """`keep` tokens of `text`, and how many characters of the result are context."""
    of_context = keep - (len(spans) - n_context)
    if of_context <= 0:
        return text[spans[-keep][0] :], 0
    head = (of_context + 1) // 2 if mode == "middle" else 0
    tail = of_context - head
    first = text[: spans[head - 1][1]] if head else ""
    rest_at = spans[n_context - tail][0] if tail else context_chars
    return first + text[rest_at:], len(first) + context_chars - rest_at


def _shorter_conversation(
    text: str, spans: Sequence[tuple[int, int]], parts: Sequence[tuple[str, int]], keep: int, mode: str
) -> tuple[str, list[tuple[str, int]]]:
    """`keep` tokens of a conversation, and its messages. What is left before and behind the gap is one message where
    it is of one role, so that the roles go on taking turns.
    """
    head = (keep + 1) // 2 if mode == "middle" else 0
    head_end = spans[head - 1][1] if head else 0
    tail_at = spans[len(spans) - (keep - head)][0] if keep > head else len(text)
    before: list[tuple[str, int]] = []
    behind: list[tuple[str, int]] = []
    start = 0
    for role, n_chars in parts:
        end = start + n_chars
        if end <= head_end:
            before.append((role, n_chars))
        elif start >= tail_at:
            behind.append((role, n_chars))
        else:
            before += [(role, head_end - start)] if start < head_end else []
            behind += [(role, end - max(start, tail_at))] if end > tail_at else []
        start = end
    if before and behind and before[-1][0] == behind[0][0]:
        before[-1:], behind[:1] = [(before[-1][0], before[-1][1] + behind[0][1])], []
    return text[:head_end] + text[tail_at:], before + behind

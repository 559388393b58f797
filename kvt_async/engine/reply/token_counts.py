"""Usage objects -> the tokens of one reply, as far as its text does not belie them.

Servers write these counts under several names and types, in two dialects (reasoning inside of `completion_tokens`, or
beside it: then total - prompt = completion + reasoning), once or with every chunk; proxies write zeros. A count that
the reply contradicts is no count: it is unknown, and chunks can be counted instead.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kvt_async.records import Json

if TYPE_CHECKING:
    from kvt_async.engine.reply.transcript import Transcript

MAX_COUNT = 2**40  # tokens of one reply or prompt; what claims more counts nothing, and sums of it would overflow
MOST_CHARS = 16  # of a token, on average over a whole reply: beyond that it isn't the count of that text
_PLAIN = 3  # fields of a usage object that is prompt, completion and total
_PROMPT = ("prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "promptTokenCount", "prompt_eval_count")
_COMPLETION = (
    *("completion_tokens", "output_tokens", "generated_tokens", "completionTokens", "outputTokens"),
    *("candidatesTokenCount", "eval_count"),
)
_CACHED = (
    *("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens", "cached_prompt_tokens"),
    *("num_cached_tokens", "cachedTokens", "cacheReadInputTokens", "cachedContentTokenCount"),
)
_DRAFTS = ("draft_n", "draft_n_accepted")


TokenCounts = tuple[int | None, int | None, int | None]
"""Of the prompt; of all that was generated, streamed or not; of the prompt, from a prefix cache. None: unknown, or not
to be believed."""


def token_counts(transcript: "Transcript") -> TokenCounts:
    """Of a reply that is whole. `transcript.usage` becomes the usage that these are taken from: the last one whose
    completion tokens the reply does not contradict."""
    usage = transcript.usage
    if usage is None:
        return None, None, None
    if len(usage) == _PLAIN and "total_tokens" in usage and not transcript.has_reasoning and transcript.timings is None:
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if (
            (type(prompt) is int and 0 < prompt <= MAX_COUNT)
            and (type(completion) is int and 0 < completion <= MAX_COUNT)
            and transcript.n_chunks <= completion
            and transcript.n_choices == 1
        ):
            return prompt, completion, None  # what most servers send, in a third of the time
    is_streamed = transcript.has_reasoning
    completion = generated(usage, reasoning_streamed=is_streamed)
    if completion is not None and completion <= transcript.n_chunks and _is_belied(completion, transcript):
        completion = None
        for earlier in reversed(transcript.earlier_usage or ()):
            count = generated(earlier, reasoning_streamed=is_streamed)
            if count is not None and not _is_belied(count, transcript):
                transcript.usage = usage = earlier
                completion = count
                break
    if transcript.n_choices > 1:
        completion = None  # of all answers together
    return _first(usage, _PROMPT) or None, completion, _cached(usage, transcript.timings)


def outdoes(later: Json, earlier: Json) -> bool:
    """Whether the count of an earlier usage can't be believed where that of the later one is not."""
    for reasoning_streamed in (False, True):
        count, before = (generated(usage, reasoning_streamed=reasoning_streamed) for usage in (later, earlier))
        if before is not None and (count is None or count < before):
            return False
    return True


def generated(usage: Json, *, reasoning_streamed: bool = False) -> int | None:
    """Tokens that the server generated, reasoning included, in either dialect. `reasoning_streamed`: some came, so
    where none is counted apart and the total holds more than prompt and completion, the rest of it is reasoning."""
    completion = _first(usage, _COMPLETION)
    reasoning = reasoning_tokens(usage)
    if completion is None or not (reasoning or reasoning_streamed):
        return completion
    total, prompt = as_count(usage.get("total_tokens")), _first(usage, _PROMPT)
    rest = None if total is None or prompt is None else total - prompt
    if not reasoning:
        return completion if rest is None else max(completion, rest)
    is_beside = reasoning > completion if rest is None or rest == completion else rest == completion + reasoning
    return completion + reasoning if is_beside or reasoning > completion else completion


def reasoning_tokens(usage: Json) -> int:
    """Tokens of reasoning that a usage object counts apart; 0: it counts none."""
    details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    holder = details if type(details) is dict and "reasoning_tokens" in details else usage
    return as_count(holder["reasoning_tokens"]) or 0 if "reasoning_tokens" in holder else 0


def as_count(value: Any) -> int | None:
    """A token count of a usage object, also as a float or as digits; None for anything that isn't one."""
    if type(value) is int:
        return value if 0 <= value <= MAX_COUNT else None
    is_text = type(value) is str and value.isascii() and value.isdecimal() and len(value) < 20
    if is_text or (type(value) is float and value.is_integer()):
        return as_count(int(value))
    return None


def with_drafts(usage: Json | None, timings: Json) -> Json | None:
    """The usage of a reply of llama.cpp, beside it what its timings count of drafted tokens, which stands nowhere
    else."""
    drafts = {name: timings[name] for name in _DRAFTS if name in timings}
    return {**(usage or {}), "timings": drafts} if drafts else usage


def _is_belied(completion: int, transcript: "Transcript") -> bool:
    """Whether the reply holds more than so many tokens: none beside some output, fewer than chunks and too long for
    them, or fewer than the chunks that it was sent with, one by one."""
    n_chunks = transcript.n_chunks
    if completion == 0:
        return bool(n_chunks or transcript.tools or any(transcript.content) or transcript.has_reasoning)
    if completion >= n_chunks:
        return False
    return transcript.n_chars > MOST_CHARS * completion or transcript.n_usages >= n_chunks


def _cached(usage: Json, timings: Json | None) -> int | None:
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    if type(details) is dict and (count := as_count(details.get("cached_tokens"))) is not None:
        return count
    cached = _first(usage, _CACHED)
    return as_count(timings.get("cache_n")) if cached is None and timings else cached


def _first(usage: Json, names: Sequence[str]) -> int | None:
    """The first of these that holds a count."""
    for name in names:
        if name in usage and (count := as_count(usage[name])) is not None:
            return count
    return None

"""A request in a model's terms, what comes of it, and the loop from logits to text that every engine shares."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Literal

from kvt_async.serve.kv_request import KvRequest
from kvt_async.serve.sampling import Sampling, sampler
from kvt_async.serve.tokenizer import Detokenizer, StopWatch, Tokenizer
from kvt_async.serve.weights import F32, Ints

Reason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Work:
    """A checked request in the model's terms."""

    ids: Ints
    max_tokens: int
    kv: KvRequest = field(default_factory=KvRequest)
    context_tokens: int | None = None  # of ids; question_agnostic only
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False

    @property
    def compressible(self) -> int:
        """Tokens of the prompt that a policy may take from."""
        return len(self.ids) if self.context_tokens is None else self.context_tokens


@dataclass(slots=True)
class Held:
    """Entries of the cache, per layer and KV head, from when generation starts to its end."""

    now_tokens: float = 0
    peak_tokens: float = 0
    n_compressions: int = 0  # that evicted something, while generating
    compressed_tokens: float | None = None  # the most that was left by a compression; None: there was none
    compressed_fraction: float | None = None  # the same of the tokens seen by then

    def hold(self, tokens: float) -> None:
        self.now_tokens = tokens
        self.peak_tokens = max(self.peak_tokens, tokens)

    def compressed(self, tokens: float, seen: int) -> None:
        """A compression left so many of the `seen` tokens."""
        self.now_tokens = tokens
        self.compressed_tokens = max(self.compressed_tokens or 0, tokens)
        self.compressed_fraction = max(self.compressed_fraction or 0, tokens / seen)


@dataclass(frozen=True, slots=True)
class Usage:
    """What was really held in the cache, per layer and KV head: the evidence that a budget was applied."""

    policy: str
    mode: str
    when: str
    prompt_tokens: int
    compressible_tokens: int  # question_aware: the prompt; question_agnostic: the context
    kept_tokens: float  # of compressible_tokens, of the prompt; a mean where layers or heads keep different numbers
    bytes: int  # keys and values held for the prompt when generation starts; the most ever held where `when` says more
    prefill_cached: bool
    completion_tokens: int = 0
    held: Held = field(default_factory=Held)
    cached_tokens: int = 0  # of the prompt, those whose entries were kept from earlier requests

    @property
    def kept_fraction(self) -> float:
        return self.kept_tokens / self.compressible_tokens


@dataclass(frozen=True, slots=True)
class Text:
    """A generated token's text; `at` its time.monotonic()."""

    text: str
    at: float


@dataclass(frozen=True, slots=True)
class Finished:
    reason: Reason
    usage: Usage
    started_at: float
    prefilled_at: float  # the cache is ready to generate from
    at: float


Step = Callable[[int, int], F32]  # append this token at this position; logits after it, [vocab]


def answer(
    work: Work, logits: F32, step: Step, tokenizer: Tokenizer, eos_ids: frozenset[int]
) -> Generator[Text, None, tuple[Reason, int]]:
    """Yield the text of each token, from the logits after the prompt on; return why it ended and how many were made."""
    detokenizer, watch, choose = Detokenizer(tokenizer), StopWatch(work.stop), sampler(work.sampling)
    position, made = len(work.ids), 0
    reason: Reason = "length"
    while True:
        token = choose(logits)
        made += 1
        if token in eos_ids and not work.ignore_eos:
            reason = "stop"
            break
        text, stopped = watch.feed(detokenizer.feed(token))
        if text:
            yield Text(text, time.monotonic())
        if stopped:
            reason = "stop"
            break
        if made == work.max_tokens:
            break
        logits = step(token, position)
        position += 1
    rest = "" if watch.stopped else watch.flush(detokenizer.flush())
    if rest:
        yield Text(rest, time.monotonic())
    return reason, made

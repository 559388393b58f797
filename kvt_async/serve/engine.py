"""One request at a time: prefill (or find it), evict on a copy, generate. Knows tokens and text, no HTTP."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from kvt_async.serve.cache import KVCache, Prefill, PrefillStore
from kvt_async.serve.kv_request import KvRequest
from kvt_async.serve.model import Llama
from kvt_async.serve.policies import View
from kvt_async.serve.sampling import Sampling, sampler
from kvt_async.serve.text import Detokenizer, StopWatch, Tokenizer
from kvt_async.serve.weights import F32, Ints


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


@dataclass(frozen=True, slots=True)
class Usage:
    """What was really held in the cache, per layer and KV head: the evidence that a budget was applied."""

    policy: str
    mode: str
    prompt_tokens: int
    compressible_tokens: int  # question_aware: the prompt; question_agnostic: the context
    kept_tokens: int  # of compressible_tokens
    bytes: int  # keys and values held for the prompt when generation starts
    prefill_cached: bool
    completion_tokens: int = 0

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
    reason: Literal["stop", "length"]
    usage: Usage
    started_at: float
    prefilled_at: float  # the cache is ready to generate from
    at: float


class Engine:
    """Owns the model, its working cache and the kept prefills. Not thread-safe: one thread calls `generate`."""

    def __init__(self, folder: Path, prefill_cache_bytes: int) -> None:
        self.model = Llama(folder)
        self.tokenizer = Tokenizer(folder)
        self.store = PrefillStore(prefill_cache_bytes)
        self.max_tokens = self.model.config.max_positions
        self._cache = KVCache.empty(self.model.config, self.max_tokens)  # every request's working copy, in turn

    def generate(self, work: Work) -> Iterator[Text | Finished]:
        """Yield the text of each token as it is made, then Finished. Closing the iterator stops the work."""
        started_at = time.monotonic()
        logits, usage = self._prepare(work)
        prefilled_at = time.monotonic()
        detokenizer, watch, choose = Detokenizer(self.tokenizer), StopWatch(work.stop), sampler(work.sampling)
        position, made = len(work.ids), 0
        reason: Literal["stop", "length"] = "length"
        while True:
            token = choose(logits)
            made += 1
            if token in self.model.config.eos_ids and not work.ignore_eos:
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
            logits = self.model.step(self._cache, token, position)
            position += 1
        rest = "" if watch.stopped else watch.flush(detokenizer.flush())
        now = time.monotonic()
        if rest:
            yield Text(rest, now)
        yield Finished(reason, replace(usage, completion_tokens=made), started_at, prefilled_at, now)

    def prefill(self, ids: Ints) -> tuple[Prefill, bool]:
        """The prompt's prefill and whether it was kept from an earlier request."""

        def compute() -> Prefill:
            cache = KVCache.empty(self.model.config, len(ids))
            return Prefill(ids, cache, self.model.extend(cache, ids, 0))

        return self.store.get(ids, compute)

    def _prepare(self, work: Work) -> tuple[F32, Usage]:
        """Leave the cache to generate from in the working copy; return the logits of the first token, and the evidence.

        Where the budget keeps everything, this is the path without eviction: the whole prefill and its own logits.
        """
        ids, kv = work.ids, work.kv
        prefill, cached = self.prefill(ids)
        compressible = len(ids) if work.context_tokens is None else work.context_tokens
        keep = kv.keep_of(compressible)
        logits = prefill.logits
        if kv.choice is None or keep == compressible:
            self._cache.load(prefill.cache, None, len(ids))
        else:
            view = View(self.model, prefill, compressible)
            read_again = kv.mode == "question_aware" and kv.read_again
            self._cache.load(prefill.cache, kv.choice.kept(view, keep, read_again=read_again), compressible)
            self.store.resize(prefill)  # the ranking is remembered with it
            if kv.mode == "question_agnostic":
                logits = self.model.extend(self._cache, ids[compressible:], compressible)
            elif read_again:
                logits = self.model.step(self._cache, int(ids[-1]), len(ids) - 1)
        c = self.model.config
        held = self._cache.length * c.n_layers * c.n_kv_heads * c.head_dim * 2 * 4
        return logits, Usage(kv.policy, kv.mode, len(ids), compressible, keep, held, cached)

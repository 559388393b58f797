"""One request at a time: prefill (or find it), evict on a copy, generate. Knows tokens and text, no HTTP."""

import time
from collections.abc import Generator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from kvt_async.contract.errors import ConfigError
from kvt_async.serve.answer_budget import AnswerBudget
from kvt_async.serve.backend import About
from kvt_async.serve.cache import KVCache, Positions, Prefill, PrefillStore
from kvt_async.serve.catalogue import Catalogue, broken
from kvt_async.serve.kv_request import REFERENCE
from kvt_async.serve.model import QUERY_BLOCK, Llama
from kvt_async.serve.model_files import model_files
from kvt_async.serve.policies import Choice
from kvt_async.serve.prompt_format import ChatTemplate
from kvt_async.serve.tokenizer import Tokenizer
from kvt_async.serve.views import PromptView
from kvt_async.serve.weights import F32, Ints
from kvt_async.serve.work import Finished, Held, Text, Usage, Work, answer


class Engine:
    """Owns the model, its working cache and the kept prefills. Not thread-safe: one thread calls `generate`."""

    policies: Catalogue = REFERENCE

    def __init__(
        self, path: Path, prefill_cache_bytes: int, model_name: str | None = None, prefix_block: int = 0
    ) -> None:
        """`path`: a Hugging Face folder or a GGUF file; `prefix_block`: tokens of a block of which a prompt's beginning
        is found in kept prefills, 0: only whole prompts are. Raises ConfigError for a model that can't be served."""
        self._files = files = model_files(path)
        self.tokenizer = Tokenizer(files)  # first: a model without one costs no minutes
        # Rows are read together block by block: what begins at a block's edge is computed as if all had been read.
        self.model = Llama(files, prefix_block or QUERY_BLOCK)
        self.store = PrefillStore(prefill_cache_bytes, prefix_block)
        self._found_tokens = 0  # of the newest prompt's beginning, in a kept prefill
        c = self.model.config
        self.about = About(
            model_name or path.resolve().name,
            c.max_positions,
            c.vocab_size,
            "float32",
            c.n_layers * c.n_kv_heads * c.head_dim * 2 * 4,
        )
        self._cache = KVCache.empty(c, c.max_positions)  # every request's working copy, in turn

    @cached_property
    def template(self) -> ChatTemplate:
        """Read on first use: what only completes needs none."""
        return ChatTemplate(self._files)

    def generate(self, work: Work) -> Generator[Text | Finished, None, None]:
        """Yield the text of each token as it is made, then Finished. Closing the iterator stops the work."""
        started_at = time.monotonic()
        logits, usage = self._prepare(work)
        step = self._step
        if work.kv.while_generating:
            step = AnswerBudget(self.model, self._cache, work, usage.held).step
        prefilled_at = time.monotonic()
        reason, made = yield from answer(work, logits, step, self.tokenizer, self.model.config.eos_ids)
        usage.held.hold(self._cache.length)
        peak = usage.held.peak_tokens * self.about.token_bytes
        usage = replace(usage, completion_tokens=made, bytes=usage.bytes if work.kv.when == "prefill" else int(peak))
        yield Finished(reason, usage, started_at, prefilled_at, time.monotonic())

    def _step(self, token: int, position: int) -> F32:
        return self.model.step(self._cache, token, position)

    def prefill(self, ids: Ints) -> tuple[Prefill, bool]:
        """The prompt's prefill and whether it was kept from an earlier request."""
        self._found_tokens = 0

        def compute() -> Prefill:
            cache = KVCache.empty(self.model.config, len(ids))
            beginning, n = self.store.beginning(ids)
            if beginning is not None:
                cache.load(beginning, None, n)
            self._found_tokens = n
            return Prefill(ids, cache, self.model.extend(cache, ids[n:], n))

        return self.store.get(ids, compute)

    def _prepare(self, work: Work) -> tuple[F32, Usage]:
        """Leave the cache to generate from in the working copy; return the logits of the first token, and the evidence.

        Where the budget keeps everything, this is the path without eviction: the whole prefill and its own logits.
        """
        ids, kv = work.ids, work.kv
        prefill, cached = self.prefill(ids)
        compressible = work.compressible
        keep = kv.keep_of(compressible)
        logits = prefill.logits
        evicts = keep < compressible
        read_again = evicts and kv.mode == "question_aware" and kv.read_again
        view = PromptView(self.model, prefill, compressible if evicts else len(ids))
        try:
            choice = Choice.of(kv.policy, kv.params) if evicts or kv.while_generating else None
            kept = choice.kept(view, keep, read_again=read_again) if evicts and choice is not None else None
        except ConfigError as error:
            raise broken(error) from None
        self._cache.load(prefill.cache, kept, view.length)
        if kv.while_generating and choice is not None and choice.policy.counts_attention:
            self._cache.count_attention(_received(view, kept, but_last=read_again))
        if kept is not None:
            self.store.resize(prefill)  # the ranking is remembered with it
            if kv.mode == "question_agnostic":
                logits = self.model.extend(self._cache, ids[compressible:], compressible)
            elif read_again:
                logits = self.model.step(self._cache, int(ids[-1]), len(ids) - 1)
        held = Held()
        if keep < compressible:
            held.compressed(keep, compressible)
        held.hold(self._cache.length)
        n_bytes = self._cache.length * self.about.token_bytes
        usage = Usage(kv.policy, kv.mode, kv.when, len(ids), compressible, keep, n_bytes, cached, held=held)
        usage = replace(usage, cached_tokens=len(ids) if cached else self._found_tokens)
        return logits, usage


def _received(view: PromptView, kept: Positions | None, *, but_last: bool) -> F32:
    """Attention that the prompt's `kept` entries received, from all queries or all but the last."""
    received = view.received()
    if but_last:
        received -= view.attention_from(view.length - 1)
    return received if kept is None else np.take_along_axis(received, kept[:, :, None], axis=3)

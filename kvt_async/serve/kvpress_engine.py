"""One request at a time on transformers, its prompt compressed by a press of kvpress. Knows tokens and text, no HTTP.

kvpress decodes with the logits of the uncompressed prefill first, so its first token never sees the compressed cache;
here the last prompt token is read again on it, as the numpy engine does. `first_token: full` gives kvpress's way.
"""

import gc
import hashlib
import logging
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers

from kvt_async.serve.api_errors import ApiError
from kvt_async.serve.backend import About
from kvt_async.serve.cache import PrefillStore
from kvt_async.serve.catalogue import Catalogue, wrong
from kvt_async.serve.kvpress_answer_budget import AnswerPress, ReceivedAttention, in_order
from kvt_async.serve.kvpress_cache import drop_last, even, held_bytes, kept_tokens, last_keys
from kvt_async.serve.kvpress_model import HubTemplate, HubTokenizer, Loaded, restored
from kvt_async.serve.kvpress_presses import Presses, moves_keys, needs_attention, seed_of, shortest_prompt
from kvt_async.serve.tokenizer import Tokenizer
from kvt_async.serve.weights import F32
from kvt_async.serve.work import Finished, Held, Text, Usage, Work, answer

log = logging.getLogger(__name__)
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "defaultcpuallocator")


@dataclass(slots=True)
class Prompt:
    """A prompt that has been read: the cache to generate from, the logits after it, the evidence."""

    cache: Any
    logits: F32
    usage: Usage
    shift: int = 0  # added to positions: a press that moves keys lets the positions go on from its own
    received: ReceivedAttention | None = None  # for a budget while generating whose press looks at attention


class KvpressEngine:
    """Owns the model. Not thread-safe: one thread calls `generate`."""

    def __init__(self, loaded: Loaded, presses: Presses) -> None:
        self._model, self._attentions = loaded.model, loaded.attentions
        self.tokenizer: Tokenizer = HubTokenizer(loaded.tokenizer)
        self.template = HubTemplate(loaded.tokenizer)
        self._presses = presses
        self.policies: Catalogue = presses
        self.store = PrefillStore(0)  # a press compresses while the prompt is read: nothing is kept for other budgets
        config = loaded.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.about = About(
            loaded.name,
            int(config.max_position_embeddings),
            int(config.vocab_size),
            str(loaded.model.dtype).removeprefix("torch."),
            len(loaded.attentions) * heads * width * 2 * loaded.model.dtype.itemsize,
            splits_tokens=True,
            version={
                "backend": "kvpress",
                "kvpress": _version("kvpress"),
                "transformers": transformers.__version__,
                "torch": torch.__version__,
                "device": str(loaded.device),
                "dtype": str(loaded.model.dtype),
            },
        )
        eos = loaded.model.generation_config.eos_token_id
        self._eos = frozenset(() if eos is None else [eos] if isinstance(eos, int) else eos)

    def generate(self, work: Work) -> Generator[Text | Finished, None, None]:
        """Yield the text of each token as it is made, then Finished. The model is restored however this ends.

        ApiError 400 where the press can't be used here, 507 where the memory doesn't suffice.
        """
        problem = None
        try:
            yield from self._answer(work)
        except (RuntimeError, MemoryError) as failed:
            if not _is_out_of_memory(failed):
                raise
            problem = _no_memory(work)
        if problem is not None:
            gc.collect()  # the failed request's tensors hung on its traceback, which is gone now
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            raise problem

    def _answer(self, work: Work) -> Generator[Text | Finished, None, None]:
        started_at = time.monotonic()
        with restored(self._model):
            prompt = self._read_prompt(work)
            prefilled_at = time.monotonic()
            with self._counted(prompt.received), self._budget(work, prompt):
                step = partial(self._step, work, prompt)
                reason, made = yield from answer(work, prompt.logits, step, self.tokenizer, self._eos)
            prompt.usage.held.hold(kept_tokens(prompt.cache, self._attentions))
        held, n_bytes = prompt.usage.held, prompt.usage.bytes
        if work.kv.when != "prefill":
            n_bytes = round(held_bytes(prompt.cache) * held.peak_tokens / held.now_tokens)
        usage = replace(prompt.usage, completion_tokens=made, bytes=n_bytes)
        yield Finished(reason, usage, started_at, prefilled_at, time.monotonic())

    def _read_prompt(self, work: Work) -> Prompt:
        kv, length, n = work.kv, len(work.ids), work.compressible
        keep = kv.keep_of(n)
        ids = torch.from_numpy(work.ids)[None].to(self._model.device)
        cache = transformers.DynamicCache()
        # Whatever a press draws, equal requests draw alike.
        torch.manual_seed((_digest(work) + seed_of(kv.policy, kv.params)) % 2**63)
        counts = kv.while_generating and needs_attention(self._presses.make(kv.policy, kv.params, 0.0))
        received = ReceivedAttention() if counts else None
        if keep == n:
            with self._counted(received):
                logits = self._read(cache, ids, 0)
            return Prompt(cache, logits, self._usage(work, n, cache), received=received)
        # The ratio is kvpress's own word for the budget; a count of tokens needs one that rounds to it.
        ratio = 1 - kv.budget if kv.budget is not None else 1 - (keep + 0.5) / n
        press = self._presses.make(kv.policy, kv.params, ratio)
        read_again = kv.mode == "question_aware" and kv.read_again
        if read_again and moves_keys(press):
            raise wrong(
                "kv.first_token",
                f"must be 'full' with {kv.policy}: it moves the entries, and the last prompt token's "
                "own can't be found to read that token again",
            )
        if kv.while_generating:
            press = in_order(press, received, newest_stays=read_again)  # the one that is dropped then, and read again
        least, param = shortest_prompt(press)
        if n < least:
            raise ApiError(
                f"{kv.policy} with {param} = {least - 1} needs at least {least} tokens to compress; these are {n}",
                code="prompt_too_short",
                param=f"kv.params.{param}",
            )
        with self._counted(received, but_last=read_again):
            logits, keys = self._compress(work, press, cache, ids[:, :n])
        shift = cache.get_seq_length() - n if moves_keys(press) else 0
        with self._counted(received):
            if read_again:
                drop_last(cache, self._attentions, keys)
                if received is not None:
                    received.drop_last()
                logits = self._read(cache, ids[:, -1:], length - 1)
            kept = kept_tokens(cache, self._attentions)
            if kv.mode == "question_agnostic":
                # Layers of different lengths have no mask in common; one token at a time needs none.
                size = length - n if even(cache) else 1
                for start in range(n, length, size):
                    logits = self._read(cache, ids[:, start : start + size], start + shift)
        return Prompt(cache, logits, self._usage(work, kept, cache), shift, received)

    @contextmanager
    def _counted(self, received: ReceivedAttention | None, *, but_last: bool = False) -> Generator[None, None, None]:
        """Inside, `received` counts what is read; None: there is nothing to count."""
        if received is None:
            yield
            return
        with _eager(self._model), received.watch(self._attentions, but_last=but_last):
            yield

    def _compress(self, work: Work, press: Any, cache: Any, ids: Any) -> tuple[F32, list[Any]]:
        """Read `ids` under the press; the logits after them, before eviction, and the last token's keys by layer."""
        with self._usable(work, "prompt"):
            watched = _eager(self._model) if needs_attention(press) else nullcontext()
            with last_keys(self._attentions) as keys, watched, press(self._model):
                logits = self._read(cache, ids, 0)
            return logits, keys

    @contextmanager
    def _usable(self, work: Work, text: str) -> Generator[None, None, None]:
        """What a press fails on inside is its own refusal of this text, an ApiError; memory is another matter."""
        try:
            yield
            return
        except Exception as failed:
            if work.kv.policy == "full" or _is_out_of_memory(failed):
                raise
            log.debug("%s failed", work.kv.policy, exc_info=True)
            reason = (str(failed).strip() or type(failed).__name__).splitlines()[0]
            problem = f"{work.kv.policy} can't be used with {self.about.model_name} on this {text}: {reason}"
        raise ApiError(problem, code="press_not_usable", param="kv.policy")

    def _read(self, cache: Any, ids: Any, position: int) -> F32:
        """Append `ids`, the first at `position`, to the cache; return the logits after the last one, [vocab]."""
        positions = torch.arange(position, position + ids.shape[1], device=ids.device)[None]
        out = self._model(
            input_ids=ids, past_key_values=cache, position_ids=positions, use_cache=True, logits_to_keep=1
        )
        logits: F32 = out.logits[0, -1].float().cpu().numpy()
        return logits

    @contextmanager
    def _budget(self, work: Work, prompt: Prompt) -> Generator[None, None, None]:
        """Inside, the cache is kept to a budget that holds while generating."""
        kv = work.kv
        if not kv.while_generating:
            yield
            return
        press = self._presses.make(kv.policy, kv.params, 0.0)
        with AnswerPress(press, kv, prompt.usage.held, prompt.received)(self._model):
            yield

    def _step(self, work: Work, prompt: Prompt, token: int, position: int) -> F32:
        ids = torch.tensor([[token]], device=self._model.device)
        with self._usable(work, "answer"):
            return self._read(prompt.cache, ids, position + prompt.shift)

    def _usage(self, work: Work, kept: float, cache: Any) -> Usage:
        kv, n, held = work.kv, work.compressible, Held()
        if kept < n:
            held.compressed(kept, n)
        held.hold(kept_tokens(cache, self._attentions))
        return Usage(kv.policy, kv.mode, kv.when, len(work.ids), n, kept, held_bytes(cache), False, held=held)


@contextmanager
def _eager(model: Any) -> Generator[None, None, None]:
    """Inside, attention gives its weights too; fast attention else."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _digest(work: Work) -> int:
    content = hashlib.sha256(np.ascontiguousarray(work.ids[: work.compressible]).tobytes()).digest()
    return int.from_bytes(content[:6], "little")


def _is_out_of_memory(problem: BaseException) -> bool:
    if isinstance(problem, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(problem, RuntimeError) and any(words in str(problem).lower() for words in NO_MEMORY)


def _no_memory(work: Work) -> ApiError:
    return ApiError(
        f"Out of memory with a prompt of {len(work.ids)} tokens under policy {work.kv.policy!r}; the server goes on",
        status=507,
        kind="insufficient_storage",
        code="out_of_memory",
    )


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)

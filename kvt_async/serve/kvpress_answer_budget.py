"""kvpress's DecodingPress with the numpy engine's semantics, which answer_budget.py lists."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import kvpress
import torch
from kvpress.utils import compute_n_kept

from kvt_async.serve.kv_request import KvRequest
from kvt_async.serve.work import Held


class ReceivedAttention:
    """Attention that each entry has received from all queries, and from how many, by layer; with eager attention."""

    def __init__(self) -> None:
        self._sums: dict[int, Any] = {}  # [1, heads, entries]
        self._queries: dict[int, Any] = {}  # [1, KV heads, entries]

    @contextmanager
    def watch(self, attentions: Sequence[Any], *, but_last: bool = False) -> Iterator[None]:
        """Count what is read inside, before presses that come later evict anything.

        `but_last`: of every reading, the last query's attention is left out.
        """

        def hook(attention: Any, _: Any, kwargs: dict[str, Any], output: Any) -> None:
            self._count(attention, output[1][:, :, : -1 if but_last else None])

        handles = [attention.register_forward_hook(hook, with_kwargs=True) for attention in attentions]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _count(self, attention: Any, weights: Any) -> None:
        layer, heads = attention.layer_idx, attention.config.num_key_value_heads
        rows, length = weights.shape[2:]
        sums, queries = weights.sum(2), torch.full((1, heads, length), rows, device=weights.device)
        if layer in self._sums:
            before = self._sums[layer].shape[2]
            sums[..., :before] += self._sums[layer]
            queries[..., :before] += self._queries[layer]
        else:
            before = 0
        queries[..., before:] = torch.arange(length - before, 0, -1, device=weights.device)
        self._sums[layer], self._queries[layer] = sums, queries

    def evict(self, layer: int, kept: Any) -> None:
        """Go on with the entries at `kept` [1, KV heads, n]."""
        group = self._sums[layer].shape[1] // kept.shape[1]
        self._sums[layer] = self._sums[layer].gather(2, kept.repeat_interleave(group, dim=1))
        self._queries[layer] = self._queries[layer].gather(2, kept)

    def drop_last(self) -> None:
        """The last entry of every layer is read again."""
        for layer in self._sums:
            self._sums[layer] = self._sums[layer][..., :-1]
            self._queries[layer] = self._queries[layer][..., :-1]

    def as_weights(self, layer: int, press: Any) -> Any:
        """In the place of a prompt's attention weights, whose sum over the queries a press takes, [1, heads, 1, n].

        ObservedAttentionPress divides by the queries that a prompt would have had after each entry: that is undone.
        """
        sums = self._sums[layer]
        if isinstance(press, kvpress.ObservedAttentionPress):
            queries = self._queries[layer].repeat_interleave(sums.shape[1] // self._queries[layer].shape[1], dim=1)
            sums = sums / queries * torch.arange(sums.shape[2], 0, -1, device=sums.device)
        return sums[:, :, None]


class AnswerPress(kvpress.DecodingPress):
    """Brings every layer down to the budget after each interval of an answer, by a scoring press without a ratio."""

    def __init__(self, press: Any, kv: KvRequest, held: Held, received: ReceivedAttention | None = None) -> None:
        """`press` scores; `held` is told of every compression. `received`: for a press that looks at attention."""
        super().__init__(in_order(press, received), compression_interval=kv.interval)
        self._kv, self._held, self._received = kv, held, received
        self._rotate_ahead = getattr(press, "apply_avg_rope", None)
        self._window = getattr(press, "window_size", None)

    def compress(
        self, module: Any, hidden_states: Any, keys: Any, values: Any, attentions: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, Any]:
        """`hidden_states`: of the newest tokens since the last compression, this token's among them."""
        seen, length, recent = int(kwargs["position_ids"].max()) + 1, keys.shape[2], hidden_states.shape[1]
        keep, press = self._kv.keep_of_seen(seen), self.base_press
        counted = module.layer_idx == next(iter(self.layer_step_counts))  # the first layer stands for all
        if counted:
            self._held.hold(length)
        if keep >= length:
            return keys, values
        if self._rotate_ahead is not None:
            rotate = self._rotate_ahead
            press.apply_avg_rope = lambda module, mean, covariance, _: rotate(module, mean, covariance, seen)
            # It leaves the first `n_sink` states out, which are a text's first with a prompt only.
            spare = min(press.n_sink, length - recent)
            hidden_states = torch.cat([hidden_states[:, :1].expand(-1, spare, -1), hidden_states], dim=1)
        if self._window is not None:
            press.window_size = min(self._window, recent)
            hidden_states = torch.cat([hidden_states[:, :1], hidden_states], dim=1)  # it wants one more than its window
        positions = torch.arange(seen - recent, seen, device=keys.device)[None]
        rotations = module.rotary_emb(hidden_states, positions)
        weights = None if self._received is None else self._received.as_weights(module.layer_idx, press)
        press.compression_ratio = 1 - (keep + 0.5) / length
        compressed: tuple[Any, Any] = press.compress(
            module, hidden_states, keys, values, weights, {**kwargs, "position_embeddings": rotations}
        )
        if counted:
            self._held.n_compressions += 1
            self._held.compressed(keep, seen)
        return compressed


def in_order(press: Any, received: ReceivedAttention | None = None, *, newest_stays: bool = False) -> Any:
    """The scoring press, which now leaves entries in the order of their positions, of equal scores the newest.

    `received` follows what is evicted. `newest_stays`: whatever its score.
    """

    def compress(
        module: Any, hidden_states: Any, keys: Any, values: Any, attentions: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, Any]:
        if press.compression_ratio == 0:
            return keys, values
        scores = press.score(module, hidden_states, keys, values, attentions, kwargs)
        if newest_stays:
            scores[..., -1] = scores.max() + 1
        n_kept = compute_n_kept(keys.shape[2], press.compression_ratio)
        newest_first = scores.flip(-1).argsort(dim=-1, descending=True, stable=True)
        kept = (keys.shape[2] - 1 - newest_first[..., :n_kept]).sort(dim=-1).values
        if received is not None:
            received.evict(module.layer_idx, kept)
        kept = kept[..., None].expand(-1, -1, -1, module.head_dim)
        return keys.gather(2, kept).contiguous(), values.gather(2, kept).contiguous()

    press.compress = compress
    return press

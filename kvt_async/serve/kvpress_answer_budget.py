"""kvpress's DecodingPress with the numpy engine's semantics, which answer_budget.py lists."""

from typing import Any

import kvpress
import torch
from kvpress.utils import compute_n_kept

from kvt_async.serve.kv_request import KvRequest
from kvt_async.serve.work import Held


class AnswerPress(kvpress.DecodingPress):
    """Brings every layer down to the budget after each interval of an answer, by a scoring press without a ratio."""

    def __init__(self, press: Any, kv: KvRequest, held: Held) -> None:
        """`press` scores; `held` is told of every compression."""
        super().__init__(in_order(press), compression_interval=kv.interval)
        self._kv, self._held = kv, held
        self._rotate_ahead = getattr(press, "apply_avg_rope", None)

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
        positions = torch.arange(seen - recent, seen, device=keys.device)[None]
        rotations = module.rotary_emb(hidden_states, positions)
        press.compression_ratio = 1 - (keep + 0.5) / length
        compressed: tuple[Any, Any] = press.compress(
            module, hidden_states, keys, values, None, {**kwargs, "position_embeddings": rotations}
        )
        if counted:
            self._held.n_compressions += 1
            self._held.compressed(keep, seen)
        return compressed


def in_order(press: Any, *, newest_stays: bool = False) -> Any:
    """The scoring press, which now leaves entries in the order of their positions, of equal scores the newest.

    `newest_stays`: whatever its score.
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
        kept = kept[..., None].expand(-1, -1, -1, module.head_dim)
        return keys.gather(2, kept).contiguous(), values.gather(2, kept).contiguous()

    press.compress = compress
    return press

"""Write tests/serve/golden/answer_budget.npz: what kvpress keeps while an answer is generated, reference weights.

A text is read as a prompt and then fed token by token, so that what is kept depends on no choice of a token. No token
comes twice: in layer 0 a token's keys have one norm wherever they stand, and of equal scores kvpress keeps any. Needs
torch 2.13, transformers 5.2.0 and kvpress 0.5.5 beside kvt. Run it again whenever the reference weights change:

    python scripts/make_answer_budget_golden.py

kvpress as it is for knorm and tova. Where kvt departs from it (kvt_async/serve/answer_budget.py says why) a subclass
here sets that right in kvpress's own terms: the rotations of snapkv's window, the future of expected_attention. What
depends on the order that kvpress leaves entries in is stored until it does: of streaming_llm and of snapkv that pools
the first compression. So is expected_attention, whose scores are 0 in float32 for many entries: kvpress keeps any.
`knorm ratio` is CompressionRatioDecodingPress, `* both` is PrefillDecodingPress.
"""

from collections.abc import Callable
from typing import Any

import kvpress
import numpy as np
import torch
from make_parity_golden import GOLDEN, load_model
from transformers import DynamicCache

LENGTH, PROMPT, INTERVAL, TARGET = 200, 120, 20, 60


class Windowed(kvpress.SnapKVPress):
    """The window's queries at the positions of their own tokens."""

    def score(self, module: Any, hidden_states: Any, keys: Any, values: Any, attentions: Any, kwargs: Any) -> Any:
        newest = int(kwargs["position_ids"].max())
        positions = torch.arange(newest + 1 - hidden_states.shape[1], newest + 1)[None]
        kwargs = {**kwargs, "position_embeddings": module.rotary_emb(hidden_states, positions)}
        return super().score(module, hidden_states, keys, values, None, kwargs)


class Ahead(kvpress.ExpectedAttentionPress):
    """The future after the newest token, from all buffered states."""

    def score(self, module: Any, hidden_states: Any, keys: Any, values: Any, attentions: Any, kwargs: Any) -> Any:
        self.seen = int(kwargs["position_ids"].max()) + 1
        return super().score(module, hidden_states, keys, values, attentions, kwargs)

    def get_query_statistics(self, module: Any, hidden_states: Any) -> Any:
        queries = kvpress.utils.get_prerope_query_states(module, hidden_states)
        mean = queries.mean(dim=2, keepdim=True)
        centred = queries - mean
        covariance = torch.einsum("bnsi,bnsj->bnij", centred, centred) / queries.shape[2]
        return self.apply_avg_rope(module, mean.squeeze(2), covariance, self.seen)


def decoding(press: Any) -> Any:
    return kvpress.DecodingPress(press, compression_interval=INTERVAL, target_size=TARGET)


def both(press: Callable[..., Any]) -> Any:
    return kvpress.PrefillDecodingPress(press(compression_ratio=1 - (TARGET + 0.5) / PROMPT), decoding(press()))


PRESSES: dict[str, Callable[[], Any]] = {
    "knorm": lambda: decoding(kvpress.KnormPress()),
    "tova": lambda: decoding(kvpress.TOVAPress()),
    "streaming_llm": lambda: decoding(kvpress.StreamingLLMPress(n_sink=4)),
    "snapkv": lambda: decoding(Windowed(window_size=8, kernel_size=5)),
    "snapkv k1": lambda: decoding(Windowed(window_size=8, kernel_size=1)),
    "expected_attention": lambda: decoding(Ahead(n_future_positions=64)),
    "knorm ratio": lambda: kvpress.CompressionRatioDecodingPress(
        kvpress.KnormPress(), compression_interval=INTERVAL, target_compression_ratio=0.6
    ),
    "knorm both": lambda: both(kvpress.KnormPress),
    "tova both": lambda: both(kvpress.TOVAPress),
}


FIRST_ONLY = ("streaming_llm", "snapkv", "expected_attention")


@torch.no_grad()
def kept(model: Any, press: Any, ids: np.ndarray) -> list[np.ndarray]:
    """The entries left after each compression, [layers, kv_heads, tokens seen] bool, the prompt's the first if any.

    Found by matching the cache's keys with all that were ever appended: keys are distinct because RoPE makes them so.
    """
    attentions = [layer.self_attn for layer in model.model.layers]
    appended: list[list[Any]] = [[] for _ in attentions]
    cache, masks, length = DynamicCache(), [], 0

    def remember(attention: Any, _: Any, kwargs: dict[str, Any], output: Any) -> None:
        new = kwargs["hidden_states"].shape[1]
        appended[attention.layer_idx].append(cache.layers[attention.layer_idx].keys[0, :, -new:].clone())

    hooks = [attention.register_forward_hook(remember, with_kwargs=True) for attention in attentions]
    tokens = torch.from_numpy(ids)[None]
    with press(model):
        for start, end in [(0, PROMPT), *((n, n + 1) for n in range(PROMPT, len(ids)))]:
            position = torch.arange(start, end)
            model(tokens[:, start:end], past_key_values=cache, position_ids=position[None], cache_position=position)
            length += end - start
            if cache.get_seq_length() < length:
                length = cache.get_seq_length()
                mask = np.zeros((len(attentions), model.config.num_key_value_heads, end), bool)
                for layer, history in enumerate(appended):
                    same = torch.cdist(cache.layers[layer].keys[0], torch.cat(history, dim=1))
                    np.put_along_axis(mask[layer], same.argmin(dim=2).numpy(), True, axis=1)
                if not (mask.sum(axis=2) == length).all():
                    raise RuntimeError("two kept keys match one entry")
                masks.append(mask)
    for hook in hooks:
        hook.remove()
    return masks


def main() -> None:
    torch.set_num_threads(1)
    model = load_model()
    model.set_attn_implementation("sdpa")  # with eager attention kvpress scores by the newest query alone
    ids = np.random.default_rng(7).permutation(model.config.vocab_size)[:LENGTH]
    arrays: dict[str, Any] = {"ids": ids.astype(np.int16)}
    for name, make_press in PRESSES.items():
        for n, mask in enumerate(kept(model, make_press(), ids)[: 1 if name in FIRST_ONLY else None]):
            arrays[f"{name}/{n}"] = np.packbits(mask, axis=2)
    np.savez_compressed(GOLDEN / "answer_budget.npz", allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()

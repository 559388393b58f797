"""Bytes that a KV cache takes per token, estimated from the model's config.json. Pure: a mapping in, a number out."""

from collections.abc import Mapping
from typing import Any

GIB = 1024**3
_BITS = {
    "float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "fp16": 16, "bf16": 16, "half": 16,
    "fp8": 8, "fp8_e4m3": 8, "fp8_e5m2": 8, "float8_e4m3fn": 8, "float8_e5m2": 8, "int8": 8, "int4": 4,
}  # fmt: skip


def bytes_per_token(config: Mapping[str, Any], *, bits: float | None = None) -> float | None:
    """Keys and values of one token over all layers and KV heads; None where the config doesn't say.

    `bits` per element; None: the config's dtype. Multimodal configs are read from their `text_config`. Latent attention
    (`kv_lora_rank`) keeps one latent and one rotary key a layer. An upper bound for models with sliding windows, whose
    windowed layers stop growing. Scales of quantised caches (a few per cent) are not counted.
    """
    text = config.get("text_config")
    if isinstance(text, Mapping):
        config = {**config, **text}
    layers, width = _whole(config, "num_hidden_layers", "n_layer"), _elements(config)
    width_bits = bits if bits is not None else _BITS.get(_dtype(config))
    if layers is None or width is None or width_bits is None:
        return None
    return layers * width * width_bits / 8


def gib_saved(token_bytes: float, context_tokens: float, batch: int, kept_fraction: float) -> float:
    """GiB that a budget frees at a context length and batch size."""
    return token_bytes * context_tokens * batch * (1 - kept_fraction) / GIB


def _elements(config: Mapping[str, Any]) -> int | None:
    """Numbers kept per token and layer."""
    latent = _whole(config, "kv_lora_rank")
    if latent is not None:
        return latent + (_whole(config, "qk_rope_head_dim") or 0)
    heads = _whole(config, "num_attention_heads", "n_head")
    hidden = _whole(config, "hidden_size", "n_embd")
    head_dim = _whole(config, "head_dim") or (hidden // heads if hidden and heads else None)
    kv_heads = _whole(config, "num_key_value_heads") or (1 if config.get("multi_query") is True else heads)
    return 2 * kv_heads * head_dim if kv_heads and head_dim else None


def _dtype(config: Mapping[str, Any]) -> str:
    return str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch.")


def _whole(config: Mapping[str, Any], *names: str) -> int | None:
    found = next((config[name] for name in names if config.get(name) is not None), None)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None

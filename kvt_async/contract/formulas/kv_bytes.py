"""Bytes that a KV cache takes per token, estimated from the model's config.json. Pure: a mapping in, a number out."""

from collections.abc import Mapping
from typing import Any

from kvt_async.contract.formulas.cache_layers import cache_shape, text_part
from kvt_async.contract.formulas.data_types import data_type

GIB = 1024**3


def bytes_per_token(config: Mapping[str, Any], *, bits: float | None = None) -> float | None:
    """Keys and values of one token over all layers that hold them; None where the config doesn't say.

    `bits` per element; None: the config's dtype. Multimodal configs are read from their language model's part. Latent
    attention (`kv_lora_rank`) keeps one latent and one rotary key a layer. An upper bound for models with sliding
    windows, whose windowed layers stop growing (cache_shape says which). Scales of quantised caches (a few per cent),
    states of recurrent layers and layers for speculation are not counted. Raises UnknownCacheError where the config
    holds a pattern of layers or heads that isn't understood.
    """
    shape = cache_shape(config)
    width_bits = bits if bits is not None else _bits_of(text_part(config))
    if shape is None or width_bits is None:
        return None
    return shape.elements * width_bits / 8


def gib_saved(token_bytes: float, context_tokens: float, batch: int, kept_fraction: float) -> float:
    """GiB that a budget frees at a context length and batch size."""
    return token_bytes * context_tokens * batch * (1 - kept_fraction) / GIB


def _bits_of(config: Mapping[str, Any]) -> float | None:
    """Bits of the weights' data type, which is the cache's where nothing else is said."""
    dtype = data_type(str(config.get("dtype") or config.get("torch_dtype") or ""))
    return None if dtype is None else dtype.payload

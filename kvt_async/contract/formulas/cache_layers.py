"""Which layers of a model hold keys and values, and of which width, read from its config.json. Pure.

Key names are those of `transformers` (main in 2026-11) and of the models' own older files; beside each stands a family
that uses it. What isn't understood is said to be unknown: a wrong count is off by whole factors.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]

_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers")
_KV_HEADS = (
    "num_key_value_heads",
    "num_kv_heads",
    "n_head_kv",
    "n_kv_heads",
    "num_key_value_heads_per_layer",
    "num_attention_groups",
    "num_query_groups",
)  # Step-3, Megatron's
_HOLDS = ("full_attention", "attention", "global", "global_attention", "full", "hybrid", "*")
_WINDOW = ("sliding_attention", "chunked_attention", "local", "local_attention", "sliding_window", "attention_sliding")
_NONE = (
    *("linear_attention", "mamba", "mamba2", "conv", "short_conv", "recurrent", "ssm", "rwkv", "gated_deltanet", "kda"),
    *("mlp", "moe", "ffn", "M", "-", "E", "none"),
)
_LISTS = ("layer_types", "layers_block_type", "attention_layers", "hybrid_override_pattern", "block_types")
_INDICES = ("full_attn_idxs", "attn_layer_indices")
_KNOWN = {
    *(*_TEXT_PARTS, *_LAYERS, *_KV_HEADS, *_LISTS, *_INDICES),
    *("attn_type_list", "attn_layer_period", "attn_layer_offset", "full_attention_interval", "linear_attn_config"),
    *(
        "block_configs",
        "cross_attention_layers",
        "num_kv_shared_layers",
        "num_global_key_value_heads",
        "attention_types",
    ),
    *("cla_share_factor", "global_attn_every_n_layers"),
}
_PATTERN = re.compile(
    r"(?:^|_)(?:attn|attention|mixer|mamba|ssm|kv|recurrent|linear|full|global|hybrid|cross|layers?|blocks?)_"
    r"(?:\w*_)?(?:types?|patterns?|period|offset|interval|indices|idxs?|ids|map|reuse|shared?|sharing|every|freq|step|"
    r"layout|list|layers?|ratios?)$"
)
_HEADS = re.compile(
    r"(?:kv|key_value)\w*_?heads?$|heads?_(?:kv|key_value)|(?:kv|key_value|attention|query)\w*_groups?$"
)
_UNRELATED = re.compile(
    r"moe|expert|mlp|dense|rope|norm|mtp|nextn|sparse|init|drop|quant|vision|audio|eagle|draft|encoder|position|softcap"
)
_RECURRENT = re.compile(r"^(?:mamba|ssm|rwkv|kda|linear_(?:key|value|num|conv)|conv_L|short_conv|lru)|^state_size$")
_STATE_ONLY = re.compile(r"(?:falcon_|codestral_)?mamba2?$|rwkv|xlstm|retnet|hgrn|gla$|(?:gated_)?delta_?net")
"""model_type of families without attention: they keep a state of fixed size."""
_UNREAD = (
    "index_head_dim",
    "layer_group_size",
    "mb_per_layer",
    "compress_ratios",
    "kv_reuse_group",
    "num_self_decoder_layers",
)
"""They change the cache in ways that aren't reckoned: sparse indexers, grouped linear attention, shared caches."""
_UNREAD_MODELS = ("longcat_flash",)  # two attentions a layer


class UnknownCacheError(ValueError):
    """What a cached token takes can't be told from this config; the message says why, as a sentence without its end."""


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Numbers kept per token over all layers, whether some layers stop growing at a window, and how many hold any."""

    elements: int
    windowed: bool
    layers: int


def text_part(config: Config) -> Config:
    """The language model's own part of a multimodal config, with the dtype of the whole where it names none."""
    for name in _TEXT_PARTS:
        part = config.get(name)
        if isinstance(part, Mapping):
            outer = {key: config[key] for key in ("dtype", "torch_dtype") if key in config}
            return text_part({**outer, **part})
    return config


def cache_shape(config: Config) -> CacheShape | None:
    """None where the config lacks layers, heads or head size; UnknownCacheError where it has what isn't understood."""
    config = text_part(config)
    kinds = _kinds(config)
    if kinds is None:
        return None
    _check_known(config)
    widths = _widths(config, kinds)
    if widths is None:
        return None
    shared = _whole(config, "num_kv_shared_layers") or 0  # Gemma 3n: the last ones read caches of earlier ones
    if shared >= len(kinds):
        raise UnknownCacheError(f"num_kv_shared_layers = {shared} of {len(kinds)} layers")
    own = list(zip(kinds, widths, strict=True))[: len(kinds) - shared]
    windowed = any(kind in _WINDOW for kind, _ in own) or _has_window(config)
    held = [width for kind, width in own if kind not in _NONE]
    return CacheShape(sum(held), windowed, len(held))


def _kinds(config: Config) -> list[str] | None:
    """What each layer is, "full_attention" where nothing tells them apart; None without a number of layers."""
    n = _whole(config, *_LAYERS)
    listed = next((name for name in _LISTS if config.get(name)), None)
    if listed is not None:
        kinds = [str(kind) for kind in config[listed]]
        if listed == "block_types" and n is not None:  # RecurrentGemma: repeated
            kinds = [kinds[i % len(kinds)] for i in range(n)]
        return _checked(kinds, listed, n)
    if n is None:
        return None
    if config.get("attn_type_list"):  # MiniMax-01: 1 is softmax attention
        kinds = ["full_attention" if kind == 1 else "linear_attention" for kind in config["attn_type_list"]]
        return _checked(kinds, "attn_type_list", n)
    if config.get("block_configs"):  # Nemotron-NAS
        return _checked([_block_kind(block) for block in config["block_configs"]], "block_configs", n)
    holding = _holding(config, n)
    if holding is not None:
        if not all(isinstance(i, int) and 0 <= i < n for i in holding):
            raise UnknownCacheError(f"it names layers beyond its {n}")
        return ["full_attention" if i in holding else "none" for i in range(n)]
    if config.get("model_type") != "falcon_h1" and (odd := _first(config, _RECURRENT)):  # Falcon-H1: attention in each
        raise UnknownCacheError(f"{odd} says that some layers keep a state instead of keys and values, not which")
    return ["full_attention"] * n


def _holding(config: Config, n: int) -> set[int] | None:
    """The layers that hold a cache, from 0; None where no key says so."""
    for name in _INDICES:  # LFM2, Bamba
        if isinstance(config.get(name), Sequence):
            return set(config[name])
    period = _whole(config, "attn_layer_period")
    if period is not None:  # Jamba, Zamba
        offset = config.get("attn_layer_offset")
        return {i for i in range(n) if i % period == (offset if isinstance(offset, int) else 0)}
    interval = _whole(config, "full_attention_interval")
    if interval is not None:  # Qwen3-Next, Qwen3.5
        return {i for i in range(n) if (i + 1) % interval == 0}
    linear = config.get("linear_attn_config")
    if isinstance(linear, Mapping) and isinstance(linear.get("full_attn_layers"), Sequence):  # Kimi-Linear: from 1
        return {i - 1 for i in linear["full_attn_layers"]}
    if isinstance(config.get("cross_attention_layers"), Sequence):  # Llama 3.2 Vision: these hold the picture
        return set(range(n)) - set(config["cross_attention_layers"])
    share = _whole(config, "cla_share_factor")
    if config.get("use_cla") is True and share is not None:  # Hunyuan-Large: neighbours share one
        return set(range(0, n, share))
    return None


def _checked(kinds: list[str], name: str, n: int | None) -> list[str]:
    if n is not None and len(kinds) != n:
        raise UnknownCacheError(f"{name} names {len(kinds)} layers of {n}")
    odd = next((kind for kind in kinds if kind not in (*_HOLDS, *_WINDOW, *_NONE)), None)
    if odd is not None:
        raise UnknownCacheError(f"{name} holds {odd!r}, a kind of layer that isn't known")
    return kinds


def _block_kind(block: Any) -> str:
    attention = block.get("attention") if isinstance(block, Mapping) else None
    if not isinstance(attention, Mapping):
        raise UnknownCacheError("block_configs has a block that doesn't say what its attention is")
    return "none" if attention.get("no_op") or attention.get("replace_with_linear") else "full_attention"


def _check_known(config: Config) -> None:
    if config.get("is_encoder_decoder") is True:
        raise UnknownCacheError("it is an encoder and a decoder, whose caches grow with different texts")
    if _STATE_ONLY.match(str(config.get("model_type"))):
        raise UnknownCacheError(f"{config['model_type']} keeps a state of fixed size instead of keys and values")
    if config.get("model_type") in _UNREAD_MODELS:
        raise UnknownCacheError(f"how {config['model_type']} lays out its attention isn't known")
    for name, value in config.items():
        if value in (None, False, 0, [], {}, "") or name in _KNOWN or name.startswith("_"):
            continue
        if name in _UNREAD or (_PATTERN.search(name) and not _UNRELATED.search(name)):
            raise UnknownCacheError(f"what {name} means for the cache isn't known")
        if _HEADS.search(name) and not _UNRELATED.search(name):
            raise UnknownCacheError(f"{name} counts KV heads in a way that isn't known")


def _widths(config: Config, kinds: list[str]) -> list[int] | None:
    """Numbers kept per token in each layer that holds a cache."""
    n = len(kinds)
    latent = _whole(config, "kv_lora_rank")
    if latent is not None:  # DeepSeek: one latent and one rotary key
        return [latent + (_whole(config, "qk_rope_head_dim") or 0)] * n
    attention = config.get("attn_config")  # MPT, DBRX
    inner: Config = attention if isinstance(attention, Mapping) else {}
    heads = _whole(config, "num_attention_heads", "n_head", "n_heads", "num_heads")
    hidden = _whole(config, "hidden_size", "n_embd", "d_model", "n_embed", "model_dim")
    size = _whole(config, "head_dim", "kv_channels", "attention_head_dim") or (
        hidden // heads if hidden and heads else None
    )
    counts = _kv_heads(config, inner, heads, n)
    if size is None or counts is None:
        return None
    values = _whole(config, "v_head_dim") or size
    widths = [count * (size + values) for count in counts]
    large = _whole(config, "global_head_dim")
    if large is not None:  # Gemma 4: full attention has heads of its own
        own = _whole(config, "num_global_key_value_heads") if config.get("attention_k_eq_v") is True else None
        widths = [
            2 * (own or count) * large if kind == "full_attention" else width
            for kind, count, width in zip(kinds, counts, widths, strict=True)
        ]
    return widths


def _kv_heads(config: Config, attention: Config, heads: int | None, n: int) -> list[int] | None:
    """KV heads of each layer."""
    blocks = config.get("block_configs")
    if blocks and heads:
        groups = [(block.get("attention") or {}).get("n_heads_in_group") for block in blocks]
        return [heads // group if isinstance(group, int) and group > 0 else 0 for group in groups]
    single = config.get("multi_query") is True and not config.get("new_decoder_architecture")  # Falcon-7B, StarCoder
    if single and config.get("num_key_value_heads") is None:
        return [1] * n
    if config.get("multi_query_attention") is True:  # ChatGLM
        count = _whole(config, "multi_query_group_num")
        return None if count is None else [count] * n
    for name in _KV_HEADS:
        given = config.get(name)
        if isinstance(given, list):  # OpenELM, DeciLM: by layer
            if len(given) != n or not all(isinstance(count, int) and count >= 0 for count in given):
                raise UnknownCacheError(f"{name} names {len(given)} layers of {n}")
            return list(given)
    count = _whole(config, *_KV_HEADS) or _whole(attention, "kv_n_heads") or heads
    if attention.get("attn_type") == "multiquery_attention":
        count = 1
    return None if count is None else [count] * n


def _has_window(config: Config) -> bool:
    names = ("sliding_window", "attention_window_size", "attention_chunk_size", "global_attn_every_n_layers")
    window = next((config[name] for name in names if config.get(name)), None)
    return bool(window) and config.get("use_sliding_window") is not False and "layer_types" not in config


def _first(config: Config, names: re.Pattern[str]) -> str | None:
    return next((name for name, value in config.items() if names.search(name) and value not in (None, False)), None)


def _whole(config: Config, *names: str) -> int | None:
    value = next((config[name] for name in names if config.get(name) is not None), None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

"""Read a Llama model's files into the arrays that the numpy model multiplies with: Llama itself, and its near relatives
(Mistral without a window, Qwen2 with biases of q, k and v, Qwen3 with norms of q and k).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kvt_async.contract.errors import ConfigError
from kvt_async.serve.model_files import ModelFiles

F32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

REFERENCE_DIR = Path(__file__).parent / "reference"
FAMILY = ("llama", "mistral", "qwen2", "qwen3")
_OTHERS = "Choose another model, or --backend kvpress for other architectures."


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The numbers of config.json that the forward pass needs."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int
    norm_eps: float
    rope_base: float
    rope_divisors: tuple[float, ...] | None  # of each pair's frequency, [head_dim / 2]; None: plain RoPE
    max_positions: int
    eos_ids: frozenset[int]

    @classmethod
    def read(cls, files: ModelFiles) -> "LlamaConfig":
        """Raises ConfigError where config.json is missing or broken, or asks for what this server doesn't do."""
        raw, where = _json_object(files, "config.json"), str(files.path / "config.json")
        _check_family(raw, where)
        eos = _generation_eos(files, raw.get("eos_token_id"))
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        try:
            head_dim = raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"]
            base = float(rope.get("rope_theta") or raw.get("rope_theta", 10_000.0))
            return cls(
                n_layers=raw["num_hidden_layers"],
                d_model=raw["hidden_size"],
                n_heads=raw["num_attention_heads"],
                n_kv_heads=raw.get("num_key_value_heads", raw["num_attention_heads"]),
                head_dim=head_dim,
                vocab_size=raw["vocab_size"],
                norm_eps=raw["rms_norm_eps"],
                rope_base=base,
                rope_divisors=_rope_divisors(rope, head_dim, base, where),
                max_positions=raw["max_position_embeddings"],
                eos_ids=frozenset(() if eos is None else [eos] if isinstance(eos, int) else eos),
            )
        except KeyError as missing:
            raise ConfigError(f"key {missing} is missing", where=where, do="Use a complete model folder.") from None


def _check_family(raw: dict[str, Any], where: str) -> None:
    """Raises ConfigError for an architecture, or a variant of one, that the forward pass would compute wrongly."""
    if raw.get("model_type") not in FAMILY:
        raise ConfigError(
            f"model_type is {raw.get('model_type')!r}; this server runs {', '.join(FAMILY)}", where=where, do=_OTHERS
        )
    window = raw.get("sliding_window") if raw.get("use_sliding_window", raw["model_type"] == "mistral") else None
    for problem, is_there in (
        (f"attention over a window of {window} tokens", window is not None),
        ("layers of several kinds", any(kind != "full_attention" for kind in raw.get("layer_types") or ())),
        ("a bias in its MLP", bool(raw.get("mlp_bias"))),
        (f"the activation {raw.get('hidden_act')!r}", raw.get("hidden_act", "silu") != "silu"),
        ("quantised weights", "quantization_config" in raw),
    ):
        if is_there:
            raise ConfigError(f"the model has {problem}, which is not implemented", where=where, do=_OTHERS)


def _generation_eos(files: ModelFiles, of_config: Any) -> Any:
    """What ends an answer: generation_config.json names all such tokens where an instruct model has several."""
    text = files.read("generation_config.json")
    try:
        return (json.loads(text).get("eos_token_id") if text else None) or of_config
    except (ValueError, AttributeError):
        return of_config


def _rope_divisors(rope: dict[str, Any], head_dim: int, base: float, where: str) -> tuple[float, ...] | None:
    """By what each pair's frequency is divided. `llama3`: long waves by the factor, short ones not at all, and what
    lies between smoothly (transformers' modeling_rope_utils, "llama3"). Raises ConfigError for another scaling.
    """
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind == "divisors":
        return tuple(rope["divisors"])
    if kind == "linear":
        return (float(rope["factor"]),) * (head_dim // 2)
    if kind != "llama3":
        raise ConfigError(f"RoPE scaled as {kind!r} scales is not implemented", where=where, do=_OTHERS)
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    trained = float(rope["original_max_position_embeddings"])
    divisors = []
    for pair in range(head_dim // 2):
        turns = trained / (2 * math.pi) * base ** (-2 * pair / head_dim)  # of this pair over the trained length
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        divisors.append(1 / ((1 - share) / factor + share))
    return tuple(divisors)


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer as [in, out] matrices, with constant factors folded in.

    Norm weights go into what the norm feeds, 1/sqrt(head_dim) into the queries, 1/2 into the gate (silu through tanh).
    """

    qkv: F32
    out: F32
    gate_up: F32
    down: F32
    qkv_bias: F32 | None = None  # [q_width + 2 * kv_width], of q divided by sqrt(head_dim)
    qk_norm: F32 | None = (
        None  # [heads + kv_heads, head_dim]: weights of the norms of each head, q's with the same factor
    )


@dataclass(frozen=True, slots=True)
class Weights:
    embed: F32  # [vocab, d_model]
    layers: tuple[LayerWeights, ...]
    head: F32  # [d_model, vocab], final norm folded in


def read_weights(files: ModelFiles, config: LlamaConfig) -> Weights:
    """Widen to float32 and fuse; raises ConfigError where a file is missing or not of the configured shape."""
    tensors = dict(files.tensors())
    try:
        return _fuse(tensors, config)
    except (KeyError, ValueError) as problem:
        raise ConfigError(
            f"the weights do not fit config.json: {problem}",
            where=str(files.path),
            do="Use config and weights of one model.",
        ) from None


def _fuse(tensors: dict[str, F32], config: LlamaConfig) -> Weights:
    """Takes each layer's tensors out as it goes, so that no more than one layer is held twice."""
    embed = tensors["model.embed_tokens.weight"]
    if embed.shape != (config.vocab_size, config.d_model):
        raise ValueError(f"embeddings have shape {embed.shape}, not {(config.vocab_size, config.d_model)}")
    layers = tuple(_fused_layer(_taken(tensors, f"model.layers.{i}."), i, config) for i in range(config.n_layers))
    head = tensors.get("lm_head.weight", embed) * tensors["model.norm.weight"]
    return Weights(embed=embed, layers=layers, head=np.ascontiguousarray(head.T))


def _taken(tensors: dict[str, F32], prefix: str) -> dict[str, F32]:
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _fused_layer(t: dict[str, F32], i: int, config: LlamaConfig) -> LayerWeights:
    """Raises ValueError for a weight that the forward pass would leave out, and for a wrong shape."""
    before_attention, before_mlp = t.pop("input_layernorm.weight"), t.pop("post_attention_layernorm.weight")
    scale = 1 / np.float32(np.sqrt(config.head_dim))
    q, k, v = (t.pop(f"self_attn.{name}_proj.weight") for name in "qkv")
    biases = [t.pop(f"self_attn.{name}_proj.bias", None) for name in "qkv"]
    norms = [t.pop(f"self_attn.{name}_norm.weight", None) for name in "qk"]
    out, down = t.pop("self_attn.o_proj.weight"), t.pop("mlp.down_proj.weight")
    gate_up = np.concatenate([t.pop("mlp.gate_proj.weight") / 2, t.pop("mlp.up_proj.weight")])
    if left := sorted(name for name in t if not name.endswith("rotary_emb.inv_freq")):
        raise ValueError(f"layer {i} has {left[0]}, which is not implemented")
    qk_norm = None
    if norms[0] is not None and norms[1] is not None:  # the factor of q would not survive its norm
        heads = [np.tile(norms[0] * scale, (config.n_heads, 1)), np.tile(norms[1], (config.n_kv_heads, 1))]
        qk_norm, scale = np.concatenate(heads), np.float32(1)
    width = (config.n_heads + 2 * config.n_kv_heads) * config.head_dim
    qkv = np.concatenate([q * scale, k, v])
    if qkv.shape != (width, config.d_model):
        raise ValueError(f"layer {i} has q, k, v of {qkv.shape}, not {(width, config.d_model)}")
    bias = None
    if any(part is not None for part in biases):
        of_q, of_k, of_v = (
            np.zeros(len(w), np.float32) if b is None else b for b, w in zip(biases, (q, k, v), strict=True)
        )
        bias = np.concatenate([of_q * scale, of_k, of_v])
    return LayerWeights(
        qkv=np.ascontiguousarray((qkv * before_attention).T),
        out=np.ascontiguousarray(out.T),
        gate_up=np.ascontiguousarray((gate_up * before_mlp).T),
        down=np.ascontiguousarray(down.T),
        qkv_bias=bias,
        qk_norm=qk_norm,
    )


def _json_object(files: ModelFiles, name: str) -> dict[str, Any]:
    where = str(files.path / name)
    if (text := files.read(name)) is None:
        raise ConfigError("no such file", where=where, do="Name a complete Hugging Face folder, or a .gguf file.")
    try:
        raw = json.loads(text.decode("utf-8-sig"))
    except ValueError as problem:
        raise ConfigError(f"not JSON: {problem}", where=where, do="Repair or download the folder again.") from None
    if not isinstance(raw, dict):
        raise ConfigError("not a JSON object", where=where, do="Repair or download the folder again.")
    return raw

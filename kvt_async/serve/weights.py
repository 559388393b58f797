"""Read a Hugging Face Llama folder (config.json, model.safetensors) into the arrays the numpy model multiplies with."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kvt_async.contract.errors import ConfigError

F32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

REFERENCE_DIR = Path(__file__).parent / "reference"


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
    max_positions: int
    eos_ids: frozenset[int]

    @classmethod
    def read(cls, folder: Path) -> "LlamaConfig":
        raw = _read_json(folder / "config.json")
        where = str(folder / "config.json")
        if raw.get("model_type") != "llama":
            raise ConfigError(
                f"model_type is {raw.get('model_type')!r}; this server runs 'llama' only",
                where=where,
                do="Use a Llama-format folder, or --backend kvpress for other architectures.",
            )
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        if rope.get("rope_type", "default") != "default" or raw.get("attention_bias") or raw.get("mlp_bias"):
            raise ConfigError(
                "scaled RoPE and biases are not implemented",
                where=where,
                do="Use a plain Llama folder, or --backend kvpress.",
            )
        eos = raw.get("eos_token_id")
        try:
            return cls(
                n_layers=raw["num_hidden_layers"],
                d_model=raw["hidden_size"],
                n_heads=raw["num_attention_heads"],
                n_kv_heads=raw.get("num_key_value_heads", raw["num_attention_heads"]),
                head_dim=raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"],
                vocab_size=raw["vocab_size"],
                norm_eps=raw["rms_norm_eps"],
                rope_base=float(rope.get("rope_theta") or raw.get("rope_theta", 10_000.0)),
                max_positions=raw["max_position_embeddings"],
                eos_ids=frozenset(() if eos is None else [eos] if isinstance(eos, int) else eos),
            )
        except KeyError as missing:
            raise ConfigError(f"key {missing} is missing", where=where, do="Use a complete model folder.") from None


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer as [in, out] matrices, with constant factors folded in.

    Norm weights go into what the norm feeds, 1/sqrt(head_dim) into the queries, 1/2 into the gate (silu through tanh).
    """

    qkv: F32
    out: F32
    gate_up: F32
    down: F32


@dataclass(frozen=True, slots=True)
class Weights:
    embed: F32  # [vocab, d_model]
    layers: tuple[LayerWeights, ...]
    head: F32  # [d_model, vocab], final norm folded in


def read_weights(folder: Path, config: LlamaConfig) -> Weights:
    """Upcast to float32 and fuse; raises ConfigError where the file is missing or not of the configured shape."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / "model.safetensors"
    if not path.is_file():
        raise ConfigError("no such file", where=str(path), do="Point --model-dir to a folder with model.safetensors.")
    try:
        tensors = {name: value.astype(np.float32) for name, value in load_file(path).items()}
    except (SafetensorError, TypeError, AttributeError) as problem:
        raise ConfigError(
            f"can't be read: {problem}", where=str(path), do="Store float16 or float32 tensors."
        ) from None
    try:
        return _fuse(tensors, config)
    except (KeyError, ValueError) as problem:
        raise ConfigError(
            f"does not fit config.json: {problem}", where=str(path), do="Use config and weights of one model."
        ) from None


def _fuse(tensors: dict[str, F32], config: LlamaConfig) -> Weights:
    layers = []
    for i in range(config.n_layers):
        t = {name.removeprefix(f"model.layers.{i}."): w for name, w in tensors.items() if f"model.layers.{i}." in name}
        before_attention, before_mlp = t["input_layernorm.weight"], t["post_attention_layernorm.weight"]
        q = t["self_attn.q_proj.weight"] / np.float32(np.sqrt(config.head_dim))
        qkv = np.concatenate([q, t["self_attn.k_proj.weight"], t["self_attn.v_proj.weight"]])
        gate_up = np.concatenate([t["mlp.gate_proj.weight"] / 2, t["mlp.up_proj.weight"]])
        width = (config.n_heads + 2 * config.n_kv_heads) * config.head_dim
        if qkv.shape != (width, config.d_model):
            raise ValueError(f"layer {i} has q, k, v of {qkv.shape}, not {(width, config.d_model)}")
        layers.append(
            LayerWeights(
                qkv=np.ascontiguousarray((qkv * before_attention).T),
                out=np.ascontiguousarray(t["self_attn.o_proj.weight"].T),
                gate_up=np.ascontiguousarray((gate_up * before_mlp).T),
                down=np.ascontiguousarray(t["mlp.down_proj.weight"].T),
            )
        )
    embed = tensors["model.embed_tokens.weight"]
    if embed.shape != (config.vocab_size, config.d_model):
        raise ValueError(f"embeddings have shape {embed.shape}, not {(config.vocab_size, config.d_model)}")
    head = tensors.get("lm_head.weight", embed) * tensors["model.norm.weight"]
    return Weights(embed=embed, layers=tuple(layers), head=np.ascontiguousarray(head.T))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(
            "no such file", where=str(path), do="Point --model-dir to a Hugging Face Llama folder."
        ) from None
    except ValueError as problem:
        raise ConfigError(f"not JSON: {problem}", where=str(path), do="Repair or download the folder again.") from None
    if not isinstance(raw, dict):
        raise ConfigError("not a JSON object", where=str(path), do="Repair or download the folder again.")
    return raw

"""A GGUF file as the Hugging Face folder it was made from: config.json, tokenizer.json, tokenizer_config.json, weights.

Layout and keys: the GGUF specification of ggml, and the names that llama.cpp writes. The library `gguf` reads the file
and undoes the quantisation; what it doesn't know (which rows llama.cpp permuted, how a tokenizer splits) is here.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError

SUFFIX = ".gguf"
_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6  # token types of tokenizer.ggml.token_type
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
# How a text is split before byte pairs are merged, by tokenizer.ggml.pre. The expressions are the models' own.
_DIGITS_ALONE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS_BY_THREE = _DIGITS_ALONE.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_BYTES: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def _split(pattern: str) -> list[dict[str, Any]]:
    whole = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return [whole, _BYTES | {"use_regex": False}]


_SPLITS: Mapping[str, list[dict[str, Any]]] = {
    "gpt-2": [_BYTES],
    "smollm": [{"type": "Digits", "individual_digits": True}, _BYTES],
    "llama-bpe": _split(_DIGITS_BY_THREE),
    "qwen2": _split(_DIGITS_ALONE),
}


class GgufModel:
    """One file, opened: its fields are read at once, its weights one by one."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError for a file that is no GGUF or holds another architecture, MissingPrerequisiteError where
        the library isn't installed.
        """
        self.path = path
        try:
            from gguf import GGUFReader
        except ImportError:
            raise MissingPrerequisiteError(
                "reading GGUF needs the package gguf",
                where=str(path),
                do="Install it: pip install 'kvt[llm]'; in a checkout `make setup` does.",
            ) from None
        try:
            self._reader: Any = GGUFReader(path)
        except OSError as error:
            raise ConfigError(f"can't be read: {error.strerror or error}", where=str(path)) from None
        except Exception as error:  # the reader raises many kinds for what is no GGUF
            raise ConfigError(
                f"this is no GGUF file that can be read: {error}", where=str(path), do="Get it again, whole."
            ) from None
        architecture = str(self._field("general.architecture"))
        if architecture not in ARCHITECTURES:
            raise ConfigError(
                f"its architecture is {architecture!r}; known are {', '.join(ARCHITECTURES)}",
                where=str(path),
                do="Serve it with llama.cpp, or the folder it was made from with --backend kvpress.",
            )
        self.architecture = architecture

    def read(self, name: str) -> bytes | None:
        """The text of a file of the folder: config.json, tokenizer.json, tokenizer_config.json; None: it has no other.

        Raises ConfigError for a tokenizer that isn't known.
        """
        match name:
            case "config.json":
                return _as_json(self.config)
            case "tokenizer.json":
                return _as_json(self._tokenizer())
            case "tokenizer_config.json":
                return _as_json(self._tokenizer_config())
            case _:
                return None

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """(name in a Hugging Face folder, float32 array) of each weight, with the rows in that folder's order."""
        import numpy as np
        from gguf import dequantize

        heads = {"attn_q": self.config["num_attention_heads"], "attn_k": self.config["num_key_value_heads"]}
        for tensor in self._reader.tensors:
            if tensor.name == "rope_freqs.weight":
                continue  # it is part of the config
            part = tensor.name.split(".")[-2]
            try:
                weight = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
            except NotImplementedError as error:
                raise ConfigError(f"{tensor.name} can't be dequantised: {error}", where=str(self.path)) from None
            if self.architecture == "llama" and part in heads:
                weight = _halves(weight, heads[part])
            yield self._folder_name(tensor.name), weight

    @cached_property
    def config(self) -> dict[str, Any]:
        """What config.json says. Raises ConfigError where the file lacks a number."""
        heads = self._own("attention.head_count")
        width = self._own("embedding_length")
        eos = [self._field(f"tokenizer.ggml.{name}_token_id", None) for name in ("eos", "eot")]
        tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(self._own("rope.freq_base", 10_000.0))}
        scaling = self._own("rope.scaling.type", "none")
        if scaling == "linear":
            rope |= {"rope_type": "linear", "factor": float(self._own("rope.scaling.factor"))}
        elif scaling not in ("none", ""):
            rope["rope_type"] = str(scaling)  # not implemented, and refused by name
        if "rope_freqs.weight" in tensors:
            rope |= {"rope_type": "divisors", "divisors": [float(x) for x in tensors["rope_freqs.weight"].data]}
        return {
            "architectures": [ARCHITECTURES[self.architecture]],
            "model_type": self.architecture,
            "vocab_size": len(self._field("tokenizer.ggml.tokens")),
            "hidden_size": width,
            "intermediate_size": self._own("feed_forward_length"),
            "num_hidden_layers": self._own("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._own("attention.head_count_kv", heads),
            "head_dim": self._own("attention.key_length", width // heads),
            "rms_norm_eps": float(f"{self._own('attention.layer_norm_rms_epsilon'):.6g}"),
            "max_position_embeddings": self._own("context_length"),
            "rope_parameters": rope,
            "hidden_act": "silu",
            "tie_word_embeddings": "output.weight" not in tensors,
            "torch_dtype": "float32",
            "bos_token_id": self._field("tokenizer.ggml.bos_token_id", None),
            "eos_token_id": sorted({token for token in eos if token is not None}),
        }

    def _tokenizer(self) -> dict[str, Any]:
        """tokenizer.json, from the vocabulary and the merges of the file."""
        model = self._field("tokenizer.ggml.model")
        tokens, kinds = self._field("tokenizer.ggml.tokens"), self._field("tokenizer.ggml.token_type")
        special = [
            {"id": n, "content": token, "special": kind == _CONTROL, "normalized": False}
            | {"single_word": False, "lstrip": False, "rstrip": False}
            for n, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind in (_CONTROL, _USER_DEFINED)
        ]
        vocab = {token: n for n, token in enumerate(tokens)}
        if model == "gpt2":
            parts = self._byte_pairs(vocab)
        elif model == "llama":
            parts = self._sentence_pieces(vocab, kinds)
        else:
            raise self._unknown_tokenizer(f"{model!r}")
        adds_bos = self._field("tokenizer.ggml.add_bos_token", model == "llama" or self._pre == "llama-bpe")
        bos = self._field("tokenizer.ggml.bos_token_id", None)
        processor = _begins_with(tokens[bos], bos) if adds_bos and bos is not None else None
        whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special}
        return whole | parts | {"post_processor": processor}

    @property
    def _pre(self) -> str:
        return str(self._field("tokenizer.ggml.pre", "default"))

    def _byte_pairs(self, vocab: dict[str, int]) -> dict[str, Any]:
        if self._pre not in _SPLITS:
            raise self._unknown_tokenizer(f"split as {self._pre!r} splits")
        merges = [merge.split(" ") for merge in self._field("tokenizer.ggml.merges")]
        model = {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": self._pre == "llama-bpe"}
        return {
            "normalizer": {"type": "NFC"} if self._pre == "qwen2" else None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": _SPLITS[self._pre]},
            "decoder": _BYTES,
            "model": _BPE | model,
        }

    def _sentence_pieces(self, vocab: dict[str, int], kinds: list[int]) -> dict[str, Any]:
        """SentencePiece's byte pairs: two pieces are merged in the order of the score of what they make."""
        scores = self._field("tokenizer.ggml.scores")
        merges: list[tuple[float, int, str, str]] = []
        for piece, n in vocab.items():
            if kinds[n] in (_CONTROL, _USER_DEFINED, _BYTE):
                continue
            for cut in range(1, len(piece)):
                left, right = piece[:cut], piece[cut:]
                if left in vocab and right in vocab:
                    merges.append((-scores[n], n, left, right))
        merges.sort(key=lambda merge: (merge[0], vocab[merge[2]], vocab[merge[3]]))
        unknown = self._field("tokenizer.ggml.unknown_token_id", 0)
        model: dict[str, Any] = {"type": "BPE", "vocab": vocab, "merges": [list(merge[2:]) for merge in merges]}
        model |= {"unk_token": self._field("tokenizer.ggml.tokens")[unknown], "byte_fallback": True, "fuse_unk": True}
        prefix = [{"type": "Prepend", "prepend": "▁"}] if self._field("tokenizer.ggml.add_space_prefix", True) else []
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        decoders: list[dict[str, Any]] = [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]
        decoders += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
        return {
            "normalizer": {"type": "Sequence", "normalizers": [*prefix, spaces]},
            "pre_tokenizer": None,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": _BPE | model,
        }

    def _tokenizer_config(self) -> dict[str, Any]:
        tokens, names = self._field("tokenizer.ggml.tokens"), {"bos": "bos", "eos": "eos", "padding": "pad"}
        ids = {short: self._field(f"tokenizer.ggml.{name}_token_id", None) for name, short in names.items()}
        special = {f"{short}_token": tokens[n] for short, n in ids.items() if n is not None}
        template = self._field("tokenizer.chat_template", None)
        return special | ({"chat_template": template} if template else {})

    def _unknown_tokenizer(self, what: str) -> ConfigError:
        return ConfigError(
            f"its tokenizer is {what}, which kvt can't build",
            where=str(self.path),
            do="Put the model's tokenizer.json beside the file, in a folder with its config.json and weights.",
        )

    def _folder_name(self, name: str) -> str:
        """`blk.3.ffn_up.weight` -> `model.layers.3.mlp.up_proj.weight`. Raises ConfigError for a weight that no model
        of these architectures has.
        """
        first, *rest = name.split(".")
        if first in _TOP and len(rest) == 1:
            return f"{_TOP[first]}.{rest[0]}"
        if first == "blk" and len(rest) == 3 and rest[1] in _LAYER:
            return f"model.layers.{rest[0]}.{_LAYER[rest[1]]}.{rest[2]}"
        raise ConfigError(
            f"it has a weight {name!r}, which this server doesn't run",
            where=str(self.path),
            do="Serve it with llama.cpp, or the folder it was made from with --backend kvpress.",
        )

    def _own(self, key: str, *default: Any) -> Any:
        return self._field(f"{self.architecture}.{key}", *default)

    def _field(self, key: str, *default: Any) -> Any:
        """The value of a field. Raises ConfigError where it is missing and has no default."""
        field = self._reader.fields.get(key)
        if field is not None:
            return field.contents()
        if default:
            return default[0]
        raise ConfigError(f"the field {key} is missing", where=str(self.path), do="Get a complete GGUF file.")


_BPE: dict[str, Any] = {
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}


def _begins_with(token: str, token_id: int) -> dict[str, Any]:
    """The post-processor that puts a token before a plain text."""
    start, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [start, text],
        "pair": [start, text, {"SpecialToken": {"id": token, "type_id": 1}}, second],
        "special_tokens": {token: {"id": token, "ids": [token_id], "tokens": [token]}},
    }


def _halves(weight: Any, heads: int) -> Any:
    """Rows of a query or key projection (or its bias), from ggml's rotary pairs to Hugging Face's halves."""
    rows, *columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, *columns).swapaxes(1, 2).reshape(rows, *columns)


def _as_json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()

"""GGUF files against the folders they were made from: weights, token ids, chat template, counted and served alike."""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.model_config import token_bytes_of
from kvt_async.contract.gguf_model import GgufModel
from kvt_async.data.tokens import load_tokenizer
from kvt_async.serve.engine import Engine
from kvt_async.serve.model import Llama
from kvt_async.serve.model_files import FolderFiles, model_files
from tests.data.helpers import settings
from tests.serve.support import GOLDEN

FAMILIES = GOLDEN / "families"
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}<|im_start|>assistant: "
TEXTS = [
    "the rain in 2024, naïve café",
    "def f(x): return x**2",
    "It's 3.14 \n\n\t and THE end!",
    "雨 и дождь 12345 🙂",
]
NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.o_proj": "attn_output"}
NAMES |= {f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"}
NAMES |= {f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def byte_pairs(pre: Any, normalizer: Any = None) -> Tokenizer:
    """A small byte-level tokenizer of 96 to 400 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 5, trainer)
    return tokenizer


def pairs_of(weight: Any, heads: int) -> Any:
    """Rows as llama.cpp's converter orders them: the first half of a head's rows between those of its second half."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, family: str, arch: str, tokenizer: Tokenizer, pre: str, **more: Any) -> Path:
    """A GGUF of a golden folder's weights with this tokenizer (its ids beyond the vocabulary have no embedding)."""
    folder = FAMILIES / family
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model(more.get("model", "gpt2"))
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([token for token, _ in vocab])
    kinds = more.get("kinds") or [gguf.TokenType.CONTROL if n < 3 else gguf.TokenType.NORMAL for _, n in vocab]
    writer.add_token_types(kinds)
    if "scores" in more:
        writer.add_token_scores(more["scores"])
    else:
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHATML)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, weight in FolderFiles(folder).tensors():
        stem, _, kind = name.rpartition(".")
        layer, _, part = stem.removeprefix("model.layers.").partition(".")
        new = TOP.get(stem) or f"blk.{layer}.{NAMES[part]}"
        head_count = heads.get(new.split(".")[-1]) if arch == "llama" else None
        ordered = pairs_of(weight, head_count) if head_count else weight
        more_tokens = len(vocab) - len(weight) if stem in ("model.embed_tokens", "lm_head") else 0
        padded = np.pad(ordered, ((0, more_tokens), (0, 0))) if more_tokens else ordered
        writer.add_tensor(f"{new}.{kind}", np.ascontiguousarray(padded))
    return written(writer, path)


def written(writer: Any, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tokenizer_of(path: Path) -> Tokenizer:
    return Tokenizer.from_buffer(GgufModel(path).read("tokenizer.json") or b"")


def smollm() -> Tokenizer:
    parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return byte_pairs(pre_tokenizers.Sequence(parts))


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", "mistral", "llama", smollm(), "smollm")


def test_the_weights_are_those_of_the_folder_row_for_row(mistral: Path, tmp_path: Path) -> None:
    qwen = write_gguf(tmp_path / "q.gguf", "qwen2", "qwen2", smollm(), "smollm")
    for path, family in ((mistral, "mistral"), (qwen, "qwen2")):
        of_file, of_folder = dict(GgufModel(path).tensors()), dict(FolderFiles(FAMILIES / family).tensors())
        assert of_file.keys() == of_folder.keys()
        for name, weight in of_folder.items():
            assert (of_file[name][: len(weight)] == weight).all(), name


def test_quantised_weights_are_the_librarys_dequantisation(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    writer: Any = gguf.GGUFWriter(str(tmp_path / "q.gguf"), "qwen2")
    for key in ("head_count", "head_count_kv", "block_count", "context_length", "feed_forward_length"):
        getattr(writer, f"add_{key}")(1)
    writer.add_embedding_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list(["a"])
    kinds = (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.BF16)
    weights = [gguf.quantize(rng.normal(size=(4, 64)).astype(np.float32), kind) for kind in kinds]
    for n, (data, kind) in enumerate(zip(weights, kinds, strict=True)):
        writer.add_tensor(f"blk.{n}.ffn_up.weight", data, raw_dtype=kind)
    read = dict(GgufModel(written(writer, tmp_path / "q.gguf")).tensors())
    for n, (data, kind) in enumerate(zip(weights, kinds, strict=True)):
        assert (read[f"model.layers.{n}.mlp.up_proj.weight"] == gguf.dequantize(data, kind)).all()


@cache
def pairs() -> tuple[tuple[Tokenizer, Tokenizer], ...]:
    """A tokenizer of each way of splitting, beside what a GGUF of it gives."""
    made = {
        "gpt-2": byte_pairs(pre_tokenizers.ByteLevel(add_prefix_space=False)),
        "smollm": smollm(),
        "llama-bpe": byte_pairs(split_first(r"\p{N}{1,3}")),
        "qwen2": byte_pairs(split_first(r"\p{N}"), normalizers.NFC()),
    }
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.gguf" for name in made}
        return tuple(
            (tokenizer, tokenizer_of(write_gguf(files[name], "qwen2", "qwen2", tokenizer, name)))
            for name, tokenizer in made.items()
        )


def split_first(number: str) -> Any:
    """Words as Llama 3 and Qwen 2 take them, bytes then."""
    pattern = (
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{number}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    words = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@given(st.text(max_size=60))
def test_token_ids_are_those_of_the_tokenizer_it_was_made_from(text: str) -> None:
    for original, rebuilt in pairs():
        wanted, ids = original.encode(text).ids, rebuilt.encode(text, add_special_tokens=False).ids
        assert ids == wanted
        assert rebuilt.decode(ids) == original.decode(wanted)


def test_llama_3_puts_its_first_token_before_a_plain_text() -> None:
    rebuilt = pairs()[2][1]
    assert rebuilt.encode("x").ids == [1, *rebuilt.encode("x", add_special_tokens=False).ids]


def test_sentence_pieces_are_merged_by_their_scores(tmp_path: Path) -> None:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdn", "an", "▁b", "and", "▁ban"]
    scores = [0.0] * 259 + [-100.0] * 6 + [-1.0, -2.0, -3.0, -4.0]
    kinds = [2, 3, 3] + [6] * 256 + [1] * 10
    vocab = Tokenizer(models.WordLevel({piece: n for n, piece in enumerate(pieces)}, unk_token="<unk>"))
    path = write_gguf(
        tmp_path / "spm.gguf", "mistral", "llama", vocab, "default", model="llama", scores=scores, kinds=kinds
    )
    tokenizer = tokenizer_of(path)
    plain = tokenizer.encode("band é", add_special_tokens=False)
    assert plain.tokens == ["▁b", "and", "▁", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(plain.ids) == "band é"
    assert tokenizer.encode("band").tokens == ["<s>", "▁b", "and"]


def test_a_gguf_file_is_counted_and_served_like_a_folder(mistral: Path, tmp_path: Path) -> None:
    counter = load_tokenizer(settings(tmp_path, f"tokenizer.name={mistral}"))
    assert counter.count([TEXTS[0]], special=True) == [len(smollm().encode(TEXTS[0]).ids)]
    assert counter.chat is not None
    assert counter.chat.render([{"role": "user", "content": "x"}]).endswith("<|im_start|>assistant: ")
    engine = Engine(mistral, 1 << 20)
    assert engine.about.model_name == "m.gguf"
    assert engine.model.config.eos_ids == {2}
    assert token_bytes_of(str(mistral)).value == engine.about.token_bytes == 2 * 2 * 8 * 2 * 4
    ids = np.arange(3, 90)
    folder = Llama(FolderFiles(FAMILIES / "mistral"))
    assert np.abs(engine.model.logits(ids)[:, :96] - folder.logits(ids)).max() < 1e-5


def test_what_cannot_be_read_is_refused_by_name(mistral: Path, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no model")
    (tmp_path / "cut.gguf").write_bytes(mistral.read_bytes()[:500])
    for name in ("text.gguf", "cut.gguf"):
        with pytest.raises(ConfigError, match="no GGUF file that can be read"):
            model_files(tmp_path / name)
    written(gguf.GGUFWriter(str(tmp_path / "gemma.gguf"), "gemma3"), tmp_path)
    with pytest.raises(ConfigError, match="its architecture is 'gemma3'"):
        model_files(tmp_path / "gemma.gguf")
    other = write_gguf(tmp_path / "other.gguf", "mistral", "llama", smollm(), "deepseek-llm")
    with pytest.raises(ConfigError, match="split as 'deepseek-llm' splits, which kvt can't build"):
        GgufModel(other).read("tokenizer.json")

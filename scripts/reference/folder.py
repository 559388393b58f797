"""The model folder in Hugging Face format: config, tokenizer, chat template, fp16 weights."""

# Checked with torch installed and without; what torch leaves untyped is not ours to fix:
# mypy: disable-error-code="no-any-return"

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from kvt_async.data.sources import kvtext_words as words
from reference.network import Llama, Shape

# <bos> once, then turns; the words are exactly those of kvt_async.data.sources.kvtext.chat
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ ' <system> ' + message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ ' <user> ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ ' <assistant> ' + message['content'] + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('this model knows the roles system, user and assistant') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ ' <assistant>' }}{% endif %}"
)


def write_model_files(model: Llama, out: Path, max_new_tokens: int = 16) -> str:
    """Write everything but the card; return the SHA-256 of model.safetensors.

    `max_new_tokens`: what its longest answer takes.
    """
    out.mkdir(parents=True, exist_ok=True)
    _write_json(out / "config.json", _config(model.shape))
    _write_json(out / "generation_config.json", _generation_config(max_new_tokens))
    _write_json(out / "tokenizer_config.json", _tokenizer_config(model.shape))
    build_tokenizer().save(str(out / "tokenizer.json"))
    tensors = {f"model.{name}": weight.detach().to(torch.float16) for name, weight in model.named_parameters()}
    weights = out / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # it is written for its owner alone, and a package is for everybody
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def load_weights(shape: Shape, folder: Path) -> Llama:
    """The model of a folder, its float16 weights widened to float32."""
    model = Llama(shape)
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): weight.float() for name, weight in tensors.items()})
    return model.eval()


def build_tokenizer() -> Tokenizer:
    """One word, one token: lower case, split at spaces and punctuation, <unk> for any other word."""
    tokenizer = Tokenizer(models.WordLevel(dict(words.TOKEN_IDS), unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in words.SPECIALS])
    return tokenizer


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **shape.as_config(),
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "hidden_act": "silu",
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "pad_token_id": words.PAD,
        "bos_token_id": words.BOS,
        "eos_token_id": words.EOS,
    }


def _generation_config(max_new_tokens: int) -> dict[str, object]:
    return {
        "do_sample": False,
        "max_new_tokens": max_new_tokens,
        "pad_token_id": words.PAD,
        "bos_token_id": words.BOS,
        "eos_token_id": words.EOS,
    }


def _tokenizer_config(shape: Shape) -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "additional_special_tokens": ["<system>", "<user>", "<assistant>"],
        "model_max_length": shape.max_position_embeddings,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

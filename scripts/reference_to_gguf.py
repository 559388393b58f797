"""The reference model as a GGUF file, so that llama.cpp can serve it: the third-party row of the compatibility matrix.

    python -m venv venv && venv/bin/pip install gguf==0.19.0 safetensors
    venv/bin/python scripts/reference_to_gguf.py reference.gguf
    llama-server -m reference.gguf -c 4096 -np 1 -fa on -ctk q8_0 -ctv q8_0

For the reference model alone: models of the hub are converted by llama.cpp's own convert_hf_to_gguf.py. llama.cpp has
no word-level tokenizer; its unigram one (`t5`) gives the same ids where words and marks are separated by spaces and in
lower case, as in every kvtext prompt. Another text would be counted otherwise: kvt compares usage.prompt_tokens.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MODEL = Path(__file__).parents[1] / "kvt_async/serve/reference"
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how unigram vocabularies write the space before a word
Array = npt.NDArray[Any]

LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` -> `blk.3.ffn_up.weight`. The output layer is tied and stays out."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{LAYER[rest.removesuffix('.weight')]}.weight"


def interleaved(weight: Array, heads: int) -> Array:
    """Rows of a query or key projection, from halves (Hugging Face's rotary layout) to pairs (ggml's)."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def convert(folder: Path, out: Path) -> None:
    from gguf import GGUFWriter, LlamaFileType
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = GGUFWriter(str(out), "llama")
    writer.add_name("kvt-reference")
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    add_tokenizer(writer, folder, config)

    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, weight in load_file(folder / "model.safetensors").items():
        if name == "lm_head.weight":
            continue
        part = name.split(".")[-2]
        array = interleaved(weight, heads[part]) if part in heads else weight
        kind = np.float16 if array.ndim > 1 else np.float32
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(array, dtype=kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    """Words become unigram tokens of equal score; the chat template writes <bos> itself, so nothing is added."""
    from gguf import TokenType

    words = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    chat = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {token["id"] for token in words["added_tokens"]}
    ids = {idx: word for word, idx in words["model"]["vocab"].items()}
    order = range(config["vocab_size"])
    unknown = words["model"]["vocab"][words["model"]["unk_token"]]
    types = [TokenType.CONTROL if n in special else TokenType.NORMAL for n in order]
    types[unknown] = TokenType.UNKNOWN
    writer.add_tokenizer_model("t5")
    writer.add_token_list([ids[n] if n in special else SPACE + ids[n] for n in order])
    writer.add_token_scores([0.0 if n in special else -1.0 for n in order])
    writer.add_token_types(types)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_unk_token_id(unknown)
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_chat_template(chat["chat_template"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the reference model")
    arguments = parser.parse_args()
    convert(arguments.model, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()

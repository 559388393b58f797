"""Write tests/serve/golden/: what transformers and kvpress compute with the reference weights.

Needs torch 2.13, transformers 5.2.0 and kvpress 0.5.5 beside kvt. Run it again whenever the reference weights change:

    python scripts/make_parity_golden.py
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import kvpress
import numpy as np
import torch
import transformers
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedTokenizerFast

from kvt_async.data.sources.kvtext import chat, generate
from kvt_async.serve.weights import REFERENCE_DIR

GOLDEN = Path(__file__).parent.parent / "tests" / "serve" / "golden"
LENGTHS = (128, 512, 2048)
LOGIT_ROWS = 12  # per length: evenly spaced, the last one included
RATIOS = (0.25, 0.5, 0.9)
PRESSES: dict[str, Any] = {
    "snapkv": lambda ratio: kvpress.SnapKVPress(compression_ratio=ratio, window_size=32, kernel_size=5),
    "snapkv w8 k3": lambda ratio: kvpress.SnapKVPress(compression_ratio=ratio, window_size=8, kernel_size=3),
    "streaming_llm": lambda ratio: kvpress.StreamingLLMPress(compression_ratio=ratio, n_sink=4),
    "tova": lambda ratio: kvpress.TOVAPress(compression_ratio=ratio),
    "knorm": lambda ratio: kvpress.KnormPress(compression_ratio=ratio),
    "observed_attention": lambda ratio: kvpress.ObservedAttentionPress(compression_ratio=ratio),
    "expected_attention": lambda ratio: kvpress.ExpectedAttentionPress(compression_ratio=ratio),
}


def load_model() -> Any:
    """The reference model in float32, with attention weights observable."""
    model = LlamaForCausalLM.from_pretrained(REFERENCE_DIR, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def prompt_words(length: int) -> list[str]:
    """One multikey prompt of exactly `length` tokens."""
    example = next(generate("multikey", contexts=1, min_tokens=length, max_tokens=length, seed=7))
    return chat(example)


@torch.no_grad()
def logits(model: Any, ids: np.ndarray) -> np.ndarray:
    """[len(ids), vocab]"""
    out: np.ndarray = model(torch.from_numpy(ids)[None]).logits[0].numpy()
    return out


@torch.no_grad()
def kept(model: Any, press: Any, ids: np.ndarray) -> np.ndarray:
    """Which entries a press keeps, [layers, kv_heads, len(ids)] bool, found by matching keys with the full cache's.

    Keys are distinct because RoPE makes them so.
    """
    full, small = DynamicCache(), DynamicCache()
    tokens = torch.from_numpy(ids)[None]
    model(tokens, past_key_values=full)
    with press(model):
        model(tokens, past_key_values=small)
    config = model.config
    mask = np.zeros((config.num_hidden_layers, config.num_key_value_heads, len(ids)), bool)
    for layer in range(config.num_hidden_layers):
        for head in range(config.num_key_value_heads):
            # A later layer's input doesn't change when an earlier layer's cache shrinks after it was used.
            distance = torch.cdist(small.layers[layer].keys[0, head], full.layers[layer].keys[0, head])
            mask[layer, head, distance.argmin(dim=1).numpy()] = True
        if not (mask[layer].sum(axis=1) == small.layers[layer].keys.shape[2]).all():
            raise RuntimeError("two kept keys match one entry")
    return mask


def main() -> None:
    torch.set_num_threads(1)
    model = load_model()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(REFERENCE_DIR)
    arrays: dict[str, np.ndarray] = {}
    for length in LENGTHS:
        ids = np.array(tokenizer(" ".join(prompt_words(length)), add_special_tokens=False).input_ids)
        assert len(ids) == length
        all_logits = logits(model, ids)
        rows = np.linspace(0, length - 1, LOGIT_ROWS).round().astype(np.int32)
        arrays[f"{length}/ids"] = ids.astype(np.int16)
        arrays[f"{length}/rows"] = rows
        arrays[f"{length}/logits"] = all_logits[rows]
        arrays[f"{length}/argmax"] = all_logits.argmax(axis=1).astype(np.int16)
        for name, make_press in PRESSES.items():
            for ratio in RATIOS:
                arrays[f"{length}/kept/{name}/{ratio}"] = np.packbits(kept(model, make_press(ratio), ids), axis=2)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(GOLDEN / "parity.npz", allow_pickle=False, **arrays)
    messages = [
        {"role": "system", "content": "look"},
        {"role": "user", "content": "the code of mira is 112 140 . what is the code of mira ?"},
        {"role": "assistant", "content": "112 140"},
        {"role": "user", "content": "what is the code of mira ?"},
    ]
    card = {
        "weights_sha256": sha256((REFERENCE_DIR / "model.safetensors").read_bytes()).hexdigest(),
        "versions": {
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
            "kvpress": "0.5.5",
        },
        "chat": {
            "messages": messages,
            "rendered": tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True),
        },
    }
    (GOLDEN / "parity.json").write_text(json.dumps(card, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Write tests/serve/golden/families/: tiny random models of each architecture that `kvt serve` runs, as transformers
saves them, and the logits that transformers computes with them.

    python -m venv venv && venv/bin/pip install torch transformers==5.24.0
    venv/bin/python scripts/make_family_golden.py
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

GOLDEN = Path(__file__).parents[1] / "tests/serve/golden/families"
TOKENS = 160  # more than one block of queries
SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "eos_token_id": 1,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
# name -> class, what its config has beside SIZES, weights' type, largest file
MODELS: dict[str, tuple[str, dict[str, Any], torch.dtype, str]] = {
    "llama3": ("Llama", {"rope_parameters": LLAMA3}, torch.bfloat16, "4KB"),
    "linear": ("Llama", {"rope_parameters": LINEAR, "tie_word_embeddings": True}, torch.float16, "1GB"),
    "mistral": ("Mistral", {"head_dim": 8, "sliding_window": None}, torch.bfloat16, "1GB"),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}, torch.bfloat16, "1GB"),
    "qwen3": ("Qwen3", {"head_dim": 8}, torch.float32, "1GB"),
}


def main() -> None:
    arrays: dict[str, Any] = {}
    for seed, (name, (family, more, dtype, largest)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        config = getattr(transformers, f"{family}Config")(**SIZES, **more)
        kind = getattr(transformers, f"{family}ForCausalLM")
        model = kind(config)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim == 1:  # norms and biases begin as ones and zeros, which would prove nothing
                    weight.add_(torch.randn_like(weight) * 0.3)
        folder = GOLDEN / name
        shutil.rmtree(folder, ignore_errors=True)
        model.to(dtype).save_pretrained(folder, max_shard_size=largest)
        ids = torch.randint(0, SIZES["vocab_size"], (1, TOKENS))
        with torch.no_grad():
            logits = kind.from_pretrained(folder, dtype=torch.float32).eval()(ids).logits[0]
        arrays |= {f"{name}/ids": ids[0].numpy(), f"{name}/logits": logits.numpy()[:: TOKENS // 8]}
    np.savez_compressed(GOLDEN / "logits.npz", **arrays)


if __name__ == "__main__":
    main()

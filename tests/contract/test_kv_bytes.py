"""Bytes per token from config.json, against figures that anybody can work out by hand."""

import json

import pytest

from kvt_async.contract.kv_bytes import bytes_per_token, gib_saved
from kvt_async.serve.engine import Engine, Finished, Work
from kvt_async.serve.weights import REFERENCE_DIR

LLAMA_8B = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096,
            "torch_dtype": "bfloat16"}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "bits", "expected"),
    [
        (LLAMA_8B, None, 131_072),  # 2 * 32 layers * 8 heads * 128 * 2 bytes
        (LLAMA_8B, 8, 65_536),
        ({**LLAMA_8B, "head_dim": 64}, None, 65_536),
        ({"text_config": LLAMA_8B, "model_type": "llava"}, None, 131_072),
        ({"n_layer": 12, "n_head": 12, "n_embd": 768, "dtype": "float32"}, None, 73_728),
        ({"num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "dtype": "bfloat16"}, None, 70_272),
        ({"num_hidden_layers": 32}, 16, None),
        ({**LLAMA_8B, "torch_dtype": "auto"}, None, None),
    ],
)
def test_layers_times_heads_times_width_times_two_or_nothing_where_the_config_does_not_say(config, bits, expected):
    assert bytes_per_token(config, bits=bits) == expected


def test_the_reference_server_holds_as_many_bytes_as_its_config_says():
    config = json.loads((REFERENCE_DIR / "config.json").read_text())
    engine = Engine(REFERENCE_DIR, 1 << 20)
    ids = engine.tokenizer.encode("what is the code of mira ?", special=False).ids
    end = list(engine.generate(Work(ids, 1)))[-1]
    assert isinstance(end, Finished)
    assert bytes_per_token(config, bits=32) == end.usage.bytes / len(ids)


def test_gib_saved_at_a_context_length_and_batch():
    assert gib_saved(131_072, 8192, 4, 0.25) == 3.0

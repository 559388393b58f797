"""Bytes per token from config.json, against figures that anybody can work out by hand."""

import json
from typing import Any

import pytest

from kvt_async.contract.formulas.cache_layers import UnknownCacheError, cache_shape
from kvt_async.contract.formulas.kv_bytes import bytes_per_token, gib_saved
from kvt_async.serve.engine import Engine
from kvt_async.serve.weights import REFERENCE_DIR
from kvt_async.serve.work import Finished, Work

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
def test_layers_times_heads_times_width_times_two_or_nothing_where_the_config_does_not_say(
    config: dict[str, Any], bits: int | None, expected: int | None
) -> None:
    assert bytes_per_token(config, bits=bits) == expected


ATTENTION = {"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256}
WIDE = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
NARROW = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16}
MAMBA = {"mamba_d_state": 16, "mamba_d_conv": 4, "mamba_n_groups": 1, "mamba_expand": 2}
LINEAR = {"linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_conv_kernel_dim": 4}
THREE_OF_FOUR = ["linear_attention"] * 3 + ["full_attention"]


# model family: (config, layers that hold a cache x numbers kept of a token in each)
SHAPES: dict[str, tuple[dict[str, Any], int]] = {
    "Qwen3-Next": ({**ATTENTION, **LINEAR, "num_hidden_layers": 48, "layer_types": THREE_OF_FOUR * 12},
                   12 * 2 * 2 * 256),
    "Qwen3-Next, an interval": ({**ATTENTION, **LINEAR, "num_hidden_layers": 8, "full_attention_interval": 4},
                                2 * 2 * 2 * 256),
    "Nemotron-H": ({**WIDE, **MAMBA, "num_hidden_layers": 9, "hybrid_override_pattern": "M-M*-M*-E"}, 2 * 2 * 8 * 128),
    "Nemotron 3": ({**WIDE, "layers_block_type": ["mamba", "moe", "attention", "moe"]}, 1 * 2 * 8 * 128),
    "Jamba": ({**WIDE, **MAMBA, "num_hidden_layers": 32, "attn_layer_period": 8, "attn_layer_offset": 4,
               "expert_layer_period": 2, "expert_layer_offset": 1}, 4 * 2 * 8 * 128),
    "Step-3": ({"hidden_size": 7168, "num_attention_heads": 64, "num_attention_groups": 1, "head_dim": 256,
                "share_q_dim": 2048, "num_hidden_layers": 61}, 61 * 2 * 1 * 256),
    "Bamba": ({**WIDE, **MAMBA, "num_hidden_layers": 32, "attn_layer_indices": [9, 18, 27]}, 3 * 2 * 8 * 128),
    "Granite 4": ({**WIDE, **MAMBA, "num_hidden_layers": 4, "layer_types": ["mamba", "mamba", "attention", "mamba"]},
                  1 * 2 * 8 * 128),
    "Falcon-H1, attention in each": ({**WIDE, **MAMBA, "num_hidden_layers": 4, "model_type": "falcon_h1",
                                      "attn_layer_indices": None}, 4 * 2 * 8 * 128),
    "MiniMax-01": ({**WIDE, "num_hidden_layers": 16, "attn_type_list": ([0] * 7 + [1]) * 2}, 2 * 2 * 8 * 128),
    "LFM2": ({**WIDE, "num_hidden_layers": 3, "conv_L_cache": 3, "layer_types": ["conv", "conv", "full_attention"]},
             1 * 2 * 8 * 128),
    "LFM2, indices": ({**WIDE, "num_hidden_layers": 16, "conv_L_cache": 3, "full_attn_idxs": [2, 5, 8, 10, 12, 14]},
                      6 * 2 * 8 * 128),
    "RecurrentGemma": ({**WIDE, "num_hidden_layers": 7, "block_types": ["recurrent", "recurrent", "attention"],
                        "lru_width": 64, "attention_window_size": 2048}, 2 * 2 * 8 * 128),
    "Kimi-Linear": ({"num_hidden_layers": 8, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
                     "linear_attn_config": {"full_attn_layers": [4, 8], "kda_layers": [1, 2, 3, 5, 6, 7]}}, 2 * 576),
    "DeepSeek-V3": ({**WIDE, "num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "v_head_dim": 128,
                     "moe_layer_freq": 1, "first_k_dense_replace": 3, "num_nextn_predict_layers": 1}, 61 * 576),
    "Gemma 3": ({**NARROW, "num_hidden_layers": 6, "sliding_window": 8, "sliding_window_pattern": 6}, 6 * 2 * 16),
    "Gemma 3n": ({**ATTENTION, "num_hidden_layers": 35, "num_kv_shared_layers": 15,
                  "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7}, 20 * 2 * 2 * 256),
    "Gemma 4": ({**NARROW, "num_key_value_heads": 2, "global_head_dim": 32, "num_global_key_value_heads": 1,
                 "attention_k_eq_v": True, "num_hidden_layers": 3, "num_kv_shared_layers": 0,
                 "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
                2 * (2 * 2 * 16) + 2 * 1 * 32),
    "gpt-oss": ({**NARROW, "num_hidden_layers": 2, "sliding_window": 8,
                 "layer_types": ["sliding_attention", "full_attention"]}, 2 * 2 * 16),
    "Llama 4": ({"text_config": {**WIDE, "num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0],
                                 "attention_chunk_size": 8, "interleave_moe_layer_step": 1}}, 4 * 2 * 8 * 128),
    "Llama 3.2 Vision": ({"text_config": {**WIDE, "num_hidden_layers": 10, "cross_attention_layers": [3, 8]}},
                         8 * 2 * 8 * 128),
    "Qwen Omni": ({"thinker_config": {"text_config": {**WIDE, "num_hidden_layers": 2}}}, 2 * 2 * 8 * 128),
    "Falcon-40B": ({"num_hidden_layers": 60, "hidden_size": 8192, "num_attention_heads": 128, "num_kv_heads": 8,
                    "multi_query": True, "new_decoder_architecture": True}, 60 * 2 * 8 * 64),
    "Falcon-7B, one head whatever it names": (
        {"num_hidden_layers": 32, "hidden_size": 4544, "num_attention_heads": 71, "num_kv_heads": 71,
         "multi_query": True, "new_decoder_architecture": False}, 32 * 2 * 64),
    "Falcon, the first names": ({"n_layer": 60, "hidden_size": 8192, "n_head": 128, "n_head_kv": 8}, 60 * 2 * 8 * 64),
    "StarCoder": ({"n_layer": 40, "n_embd": 6144, "n_head": 48, "multi_query": True}, 40 * 2 * 128),
    "ChatGLM": ({"num_layers": 28, "hidden_size": 4096, "num_attention_heads": 32, "kv_channels": 128,
                 "multi_query_attention": True, "multi_query_group_num": 2}, 28 * 2 * 2 * 128),
    "MPT": ({"n_layers": 2, "d_model": 64, "n_heads": 4, "attn_config": {"attn_type": "multihead_attention"}},
            2 * 2 * 64),
    "DBRX": ({"n_layers": 40, "d_model": 6144, "n_heads": 48, "attn_config": {"kv_n_heads": 8}}, 40 * 2 * 8 * 128),
    "OpenELM": ({"num_transformer_layers": 4, "model_dim": 64, "head_dim": 16, "num_kv_heads": [3, 3, 4, 5],
                 "num_query_heads": [12, 12, 16, 20]}, 15 * 2 * 16),
    "KV heads by layer": ({**WIDE, "num_hidden_layers": 4, "num_key_value_heads": [8, 8, 4, 4]}, 24 * 2 * 128),
    "Nemotron-NAS": ({"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": None,
                      "block_configs": [{"attention": {"n_heads_in_group": 2}}, {"attention": {"no_op": True}},
                                        {"attention": {"n_heads_in_group": 4}}]}, 3 * 2 * 16),
    "Hunyuan-Large": ({**WIDE, "num_hidden_layers": 64, "use_cla": True, "cla_share_factor": 2}, 32 * 2 * 8 * 128),
    "keys and values of two sizes": ({**WIDE, "num_hidden_layers": 2, "v_head_dim": 64}, 2 * 8 * (128 + 64)),
}  # fmt: skip


@pytest.mark.parametrize("family", SHAPES)
def test_only_layers_that_hold_a_cache_count_under_whatever_name(family: str) -> None:
    config, elements = SHAPES[family]
    assert bytes_per_token({**config, "dtype": "bfloat16"}) == elements * 2


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"layer_types": ["full_attention", "quantum_attention"]}, "quantum_attention"),
        ({"layer_types": ["full_attention"]}, "1 layers of 2"),
        ({"hybrid_layer_pattern": [0, 1]}, "hybrid_layer_pattern"),
        ({"attn_every_n_layers": 2}, "attn_every_n_layers"),
        ({"kv_sharing_map": {"1": 0}}, "kv_sharing_map"),
        ({"layer_group_size": 8}, "layer_group_size"),
        ({"index_head_dim": 128, "kv_lora_rank": 512}, "index_head_dim"),
        ({"mamba_d_state": 16}, "mamba_d_state"),
        (LINEAR, "linear_num_key_heads"),
        ({"swa_num_key_value_heads": 4}, "swa_num_key_value_heads"),
        ({"num_key_value_heads": [8]}, "num_key_value_heads"),
        ({"num_kv_shared_layers": 2}, "num_kv_shared_layers"),
        ({"attn_layer_indices": [7]}, "beyond"),
        ({"is_encoder_decoder": True}, "decoder"),
        ({"model_type": "longcat_flash"}, "longcat_flash"),
        ({"model_type": "mamba2"}, "mamba2 keeps a state"),
        ({"model_type": "rwkv7"}, "rwkv7 keeps a state"),
        ({"state_size": 128}, "state_size"),
        ({"num_self_decoder_layers": 16}, "num_self_decoder_layers"),
        ({"shared_kv_groups": 2}, "shared_kv_groups"),
        ({"block_configs": [{}, {}]}, "block_configs"),
    ],
)
def test_a_pattern_that_is_not_understood_is_unknown_and_never_guessed(changes: Any, names: str) -> None:
    with pytest.raises(UnknownCacheError, match=names):
        bytes_per_token({**WIDE, "num_hidden_layers": 2, "dtype": "bfloat16", **changes})


@pytest.mark.parametrize(
    ("changes", "windowed"),
    [
        ({}, False),
        ({"sliding_window": 4096}, True),
        ({"sliding_window": 4096, "use_sliding_window": False}, False),
        ({"layer_types": ["sliding_attention", "full_attention"]}, True),
        ({"layer_types": ["full_attention", "full_attention"], "sliding_window": 4096}, False),
        ({"attention_chunk_size": 8192}, True),
    ],
)
def test_windows_are_told_since_they_make_the_figure_an_upper_bound(changes: dict[str, Any], windowed: bool) -> None:
    shape = cache_shape({**WIDE, "num_hidden_layers": 2, **changes})
    assert shape is not None
    assert (shape.windowed, shape.elements) == (windowed, 2 * 2 * 8 * 128)


def test_the_reference_server_holds_as_many_bytes_as_its_config_says() -> None:
    config = json.loads((REFERENCE_DIR / "config.json").read_text())
    engine = Engine(REFERENCE_DIR, 1 << 20)
    ids = engine.tokenizer.encode("what is the code of mira ?", special=False).ids
    end = list(engine.generate(Work(ids, 1)))[-1]
    assert isinstance(end, Finished)
    assert bytes_per_token(config, bits=32) == end.usage.bytes / len(ids)


def test_gib_saved_at_a_context_length_and_batch() -> None:
    assert gib_saved(131_072, 8192, 4, 0.25) == 3.0

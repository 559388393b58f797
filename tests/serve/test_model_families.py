"""Llama's near relatives and the ways their weights are stored, against transformers' logits (stored)."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.serve.cache import KVCache
from kvt_async.serve.model import Llama
from kvt_async.serve.model_files import FolderFiles, model_files
from tests.serve.support import GOLDEN

FAMILIES = GOLDEN / "families"
# llama3: RoPE scaled as Llama 3.1 does, bfloat16 in five files; linear: scaled linearly, float16; mistral: heads wider
# than their share of the model; qwen2: biases; qwen3: norms of each head.
NAMES = ("llama3", "linear", "mistral", "qwen2", "qwen3")


@pytest.fixture(scope="module")
def logits() -> Any:
    with np.load(FAMILIES / "logits.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_transformers_within_2e_3_with_the_same_argmax(logits: Any, name: str) -> None:
    model, ids, wanted = Llama(FolderFiles(FAMILIES / name)), logits[f"{name}/ids"], logits[f"{name}/logits"]
    ours = model.logits(ids)[:: len(ids) // 8]
    assert np.abs(ours - wanted).max() < 2e-3
    assert (ours.argmax(axis=1) == wanted.argmax(axis=1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_one_token_at_a_time_gives_the_logits_of_reading_all_at_once(logits: Any, name: str) -> None:
    model, ids = Llama(FolderFiles(FAMILIES / name)), logits[f"{name}/ids"]
    cache = KVCache.empty(model.config, len(ids))
    model.extend(cache, ids[:150], 0)
    stepped = np.array([model.step(cache, int(token), 150 + i) for i, token in enumerate(ids[150:])])
    assert np.abs(stepped - model.logits(ids)[150:]).max() < 1e-3


def test_rotation_tables_that_grow_give_the_same_bytes(logits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Llama(FolderFiles(FAMILIES / "llama3")).logits(logits["llama3/ids"])
    monkeypatch.setattr("kvt_async.serve.model.FIRST_POSITIONS", 16)
    assert (Llama(FolderFiles(FAMILIES / "llama3")).logits(logits["llama3/ids"]) == whole).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gemma3"}, "this server runs llama, mistral, qwen2, qwen3"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4}}, "'yarn' scales is not implemented"),
        ({"hidden_act": "gelu"}, "the activation 'gelu'"),
        ({"mlp_bias": True}, "a bias in its MLP"),
        ({"sliding_window": 64}, "a window of 64 tokens"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layers of several kinds"),
        ({"quantization_config": {"bits": 4}}, "quantised weights"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    shutil.copytree(FAMILIES / "mistral", tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(config | change))
    with pytest.raises(ConfigError, match=words):
        Llama(FolderFiles(tmp_path / "model"))


def test_a_weight_that_the_forward_pass_would_leave_out_is_refused(tmp_path: Path) -> None:
    shutil.copytree(FAMILIES / "linear", tmp_path / "model")
    path = tmp_path / "model/model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["model.layers.0.mlp.down_proj.bias"] = header["model.layers.0.input_layernorm.weight"]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    with pytest.raises(ConfigError, match=r"layer 0 has mlp\.down_proj\.bias, which is not implemented"):
        Llama(FolderFiles(tmp_path / "model"))


def test_a_folder_whose_parts_are_missing_or_broken_is_refused_by_the_files_name(tmp_path: Path) -> None:
    shutil.copytree(FAMILIES / "llama3", tmp_path / "model")
    part = tmp_path / "model/model-00002-of-00005.safetensors"
    whole = part.read_bytes()
    for data in (whole[:40], whole[: len(whole) // 2], b""):
        part.write_bytes(data)
        with pytest.raises(ConfigError) as broken:
            Llama(FolderFiles(tmp_path / "model"))
        assert broken.value.where == str(part)
    part.unlink()
    with pytest.raises(ConfigError) as missing:
        Llama(FolderFiles(tmp_path / "model"))
    assert missing.value.where == str(part)


def test_the_tokens_that_end_an_answer_are_those_of_the_generation_config(tmp_path: Path) -> None:
    shutil.copytree(FAMILIES / "qwen2", tmp_path / "model")
    (tmp_path / "model/generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    assert Llama(FolderFiles(tmp_path / "model")).config.eos_ids == {2, 7}


def test_a_path_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_text("x")
    for name, words in (("nowhere", "there is no such folder"), ("model.bin", "neither a folder nor a GGUF file")):
        with pytest.raises(ConfigError, match=words):
            model_files(tmp_path / name)

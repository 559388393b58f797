"""The numpy forward pass against transformers' LlamaForCausalLM (stored) and against itself."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvt_async.contract.errors import ConfigError
from kvt_async.serve.cache import KVCache
from kvt_async.serve.engine import Engine
from kvt_async.serve.model import Llama
from kvt_async.serve.model_files import FolderFiles
from kvt_async.serve.weights import REFERENCE_DIR
from tests.serve.support import GOLDEN

LENGTHS = (128, 512, 2048)


def test_the_stored_reference_values_are_of_the_weights_that_ship() -> None:
    stored = json.loads((GOLDEN / "parity.json").read_text())["weights_sha256"]
    shipped = sha256((REFERENCE_DIR / "model.safetensors").read_bytes()).hexdigest()
    assert stored == shipped, "the weights changed: run scripts/make_parity_golden.py"


@pytest.mark.parametrize("length", LENGTHS)
def test_logits_equal_transformers_within_2e_3_with_the_same_argmax_at_every_position(
    engine: Engine, golden: Any, length: int
) -> None:
    logits = engine.model.logits(golden[f"{length}/ids"].astype(np.int64))
    assert np.abs(logits[golden[f"{length}/rows"]] - golden[f"{length}/logits"]).max() < 2e-3
    assert (logits.argmax(axis=1) == golden[f"{length}/argmax"]).all()


@pytest.mark.parametrize("length", LENGTHS)
def test_prefill_skips_work_but_ends_in_the_same_logits(engine: Engine, golden: Any, length: int) -> None:
    ids = golden[f"{length}/ids"].astype(np.int64)
    prefill, _ = engine.prefill(ids)
    assert np.abs(prefill.logits - golden[f"{length}/logits"][-1]).max() < 2e-3


def test_one_token_at_a_time_gives_the_logits_of_reading_all_at_once(engine: Engine, golden: Any) -> None:
    model: Llama = engine.model
    ids = golden["512/ids"].astype(np.int64)[:300]
    cache = KVCache.empty(model.config, 300)
    model.extend(cache, ids[:290], 0)
    stepped = np.array([model.step(cache, int(token), 290 + i) for i, token in enumerate(ids[290:])])
    assert np.abs(stepped - model.logits(ids)[290:]).max() < 1e-3


def test_the_same_prompt_gives_the_same_bytes_however_its_tokens_are_split_into_calls_at_block_ends(
    engine: Engine, golden: Any
) -> None:
    model: Llama = engine.model
    ids = golden["512/ids"].astype(np.int64)
    whole, parts = KVCache.empty(model.config, 512), KVCache.empty(model.config, 512)
    logits = model.extend(whole, ids, 0)
    model.extend(parts, ids[:256], 0)
    assert (model.extend(parts, ids[256:], 256) == logits).all()
    assert (whole.keys == parts.keys).all()
    assert (whole.values == parts.values).all()


def test_observed_attention_rows_are_distributions_over_what_each_query_can_see_and_leave_the_cache_alone(
    engine: Engine, golden: Any
) -> None:
    ids = golden["512/ids"].astype(np.int64)
    prefill, _ = engine.prefill(ids)
    before = prefill.cache.keys.copy()
    seen = list(engine.model.observe(prefill.cache, ids, 500))
    assert [(one.layer, one.row) for one in seen] == [(0, 500), (1, 500), (2, 500), (3, 500)]
    for one in seen:
        assert one.queries.shape == (12, 4, 32)
        assert one.probabilities.shape == (2, 2, 12, 512)
        assert np.allclose(one.probabilities.sum(axis=3), 1, atol=1e-5)
        assert (one.probabilities[:, :, 0, 501:] == 0).all()
    assert (prefill.cache.keys == before).all()


def test_a_folder_that_is_no_llama_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as missing:
        Llama(FolderFiles(tmp_path))
    assert "config.json" in str(missing.value)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ConfigError) as wrong:
        Llama(FolderFiles(tmp_path))
    assert "'gpt2'" in str(wrong.value)
    (tmp_path / "config.json").write_text((REFERENCE_DIR / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(ConfigError) as broken:
        Llama(FolderFiles(tmp_path))
    assert "model.safetensors" in str(broken.value)

"""The numpy server against the live libraries: transformers 5.2 and kvpress 0.5.5 (`make test-parity`).

The everyday tests compare with values stored from these same functions; here nothing is stored.
"""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from kvt_async.contract.formulas.kv_budget import n_kept
from kvt_async.data.sources.kvtext import chat, generate
from kvt_async.serve.engine import Engine
from kvt_async.serve.kv_request import parse_kv
from kvt_async.serve.model_files import FolderFiles
from kvt_async.serve.policies import POLICIES, Choice
from kvt_async.serve.prompt_format import ChatTemplate, Message
from kvt_async.serve.views import PromptView
from kvt_async.serve.weights import REFERENCE_DIR, Ints
from kvt_async.serve.work import Text, Work

pytestmark = pytest.mark.parity

ROOT = Path(__file__).parent.parent.parent
SEEDS = (101, 102, 103)
# Each policy, its press and the names of its parameters in a request.
PRESSES: dict[str, dict[str, int]] = {
    "snapkv": {"window": 32, "kernel": 5},
    "streaming_llm": {"sinks": 4},
    "tova": {},
    "knorm": {},
    "observed_attention": {},
    "expected_attention": {},
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/make_parity_golden.py, which makes the stored values."""
    spec = importlib.util.spec_from_file_location("make_parity_golden", ROOT / "scripts" / "make_parity_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def theirs(script: ModuleType) -> Any:
    return script.load_model()


@pytest.fixture(scope="module")
def ours() -> Engine:
    return Engine(REFERENCE_DIR, 256 << 20)


@pytest.fixture(scope="module")
def prompt(ours: Engine) -> Callable[[int, int], Ints]:
    def ids(length: int, seed: int) -> Ints:
        example = next(iter(generate("multikey", contexts=1, min_tokens=length, max_tokens=length, seed=seed)))
        return ours.tokenizer.encode(" ".join(chat(example)), special=False).ids

    return ids


@pytest.mark.parametrize("length", [128, 300, 1024, 2048])
def test_logits_equal_transformers(
    script: ModuleType, theirs: Any, ours: Engine, prompt: Callable[[int, int], Ints], length: int
) -> None:
    ids = prompt(length, SEEDS[0])
    expected, found = script.logits(theirs, ids), ours.model.logits(ids)
    assert np.abs(expected - found).max() < 2e-3
    assert (expected.argmax(axis=1) == found.argmax(axis=1)).all()


@pytest.mark.parametrize("policy", PRESSES)
@pytest.mark.parametrize("seed", SEEDS)
def test_kept_sets_equal_kvpress_ties_within_1e_5_aside(
    script: ModuleType, theirs: Any, ours: Engine, prompt: Callable[[int, int], Ints], policy: Any, seed: int
) -> None:
    length = 400
    ids = prompt(length, seed)
    prefill, _ = ours.prefill(ids)
    view, choice = PromptView(ours.model, prefill, length), Choice(POLICIES[policy], PRESSES[policy])
    scores = choice.policy.score(view, {**choice.policy.defaults, **choice.params})
    for ratio in (0.2, 0.5, 0.8):
        n = n_kept(length, 1 - ratio)
        expected = script.kept(theirs, script.PRESSES[policy](ratio), ids)
        found = np.zeros_like(expected)
        np.put_along_axis(found, choice.kept(view, n), True, axis=2)
        tied = np.abs(scores - np.sort(scores, axis=2)[..., -n, None]) <= 1e-5
        assert (expected == found)[~tied].all()


@pytest.mark.parametrize("policy", ["snapkv", "streaming_llm", "tova"])
@pytest.mark.parametrize("seed", SEEDS)
def test_greedy_answers_on_the_compressed_cache_equal_kvpress_with_the_first_token_full(
    script: ModuleType, theirs: Any, ours: Engine, prompt: Callable[[int, int], Ints], policy: str, seed: int
) -> None:
    """The whole path at once: eviction in the cache, positions after it, decoding on it."""
    ids = prompt(400, seed)
    for ratio in (0.3, 0.6, 0.9):
        with script.PRESSES[policy](ratio)(theirs):
            expected = greedy(theirs, ids, 6)
        kv = parse_kv({"policy": policy, "budget": 1 - ratio, "first_token": "full", "params": PRESSES[policy]})
        events = ours.generate(Work(ids, 6, kv, ignore_eos=True))
        text = "".join(event.text for event in events if isinstance(event, Text))
        assert text == ours.tokenizer.decode(expected)


def greedy(model: Any, ids: Ints, count: int) -> list[int]:
    """`count` greedy tokens; positions go on from the prompt's length, however short the cache has become."""
    import torch
    from transformers import DynamicCache

    cache, tokens = DynamicCache(), []
    position = torch.arange(len(ids))
    given = torch.from_numpy(ids)[None]
    with torch.no_grad():
        for i in range(count):
            # cache_position tells kvpress that only the first call is a prefill.
            out = model(given, past_key_values=cache, position_ids=position[None], cache_position=position)
            tokens.append(int(out.logits[0, -1].argmax()))
            given = torch.tensor([[tokens[-1]]])
            position = torch.tensor([len(ids) + i])
    return tokens


def test_the_chat_template_and_the_tokenizer_equal_transformers(ours: Engine) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(REFERENCE_DIR)
    messages = [
        {"role": "system", "content": "look"},
        {"role": "user", "content": "what is the code of mira ?"},
        {"role": "assistant", "content": "112 140"},
        {"role": "user", "content": "what is the code of mira ?"},
    ]
    template = ChatTemplate(FolderFiles(REFERENCE_DIR))
    given = [Message(message["role"], message["content"]) for message in messages]
    begun = template.render([*given, Message("assistant", "the code is", is_open=True)])
    assert begun == tokenizer.apply_chat_template(
        [*messages, {"role": "assistant", "content": "the code is"}], tokenize=False, continue_final_message=True
    )
    rendered = template.render(given)
    assert rendered == tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert ours.tokenizer.encode(rendered, special=False).ids.tolist() == tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )


def test_the_stored_values_are_what_the_libraries_give_today(script: ModuleType, theirs: Any) -> None:
    stored = np.load(script.GOLDEN / "parity.npz")
    ids = stored["512/ids"].astype(np.int64)
    assert np.abs(script.logits(theirs, ids)[stored["512/rows"]] - stored["512/logits"]).max() < 1e-3
    card = json.loads((script.GOLDEN / "parity.json").read_text())
    assert card["versions"]["kvpress"] == "0.5.5"

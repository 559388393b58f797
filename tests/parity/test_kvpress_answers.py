"""Budgets while an answer is generated, on the kvpress backend: the numpy server's answers, entries and evidence, and
kvpress's own where kvt departs from nothing (`make test-parity`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("kvpress")  # the extra: what is below needs it to be imported at all

import kvpress
import numpy as np
import torch
from transformers import DynamicCache

from kvt_async.serve.api_errors import ApiError
from kvt_async.serve.engine import Engine
from kvt_async.serve.kv_request import parse_kv
from kvt_async.serve.kvpress_engine import KvpressEngine, Prompt
from kvt_async.serve.replies import usage_body
from kvt_async.serve.weights import REFERENCE_DIR
from kvt_async.serve.work import Finished, Text, Work
from tests.parity.kvpress_server import kvpress_engine
from tests.parity.test_kvpress_backend import ids_of, state_of

pytestmark = pytest.mark.parity

SHARED: dict[str, dict[str, int]] = {
    "snapkv": {"window": 15},  # longer than an interval, and shorter
    "streaming_llm": {},
    "tova": {},
    "knorm": {},
    "expected_attention": {"future": 64},
    "observed_attention": {},
    "h2o": {},
}


@pytest.fixture(scope="module")
def engine() -> KvpressEngine:
    return kvpress_engine()


@pytest.fixture(scope="module")
def numpy_engine() -> Engine:
    return Engine(REFERENCE_DIR, 256 << 20)


def ask(engine: Any, kv: dict[str, Any], tokens: int = 200, made: int = 45, **fields: Any) -> tuple[str, Any]:
    ids = ids_of(engine, tokens)
    *texts, end = engine.generate(Work(ids, made, parse_kv(kv, engine.policies), ignore_eos=True, **fields))
    assert isinstance(end, Finished)
    evidence = usage_body(end.usage)["kv"]
    evidence.pop("prefill_cached")
    return "".join(text.text for text in texts if isinstance(text, Text)), evidence


@contextmanager
def last_prompt(engine: KvpressEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Prompt]]:
    """The prompt, whose cache an answer grows, that the engine read last."""
    prompts: list[Prompt] = []
    read = engine._read_prompt

    def remembered(work: Work) -> Prompt:
        prompts[:] = [read(work)]
        return prompts[0]

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_read_prompt", remembered)
        yield prompts


@pytest.mark.parametrize("when", ["decode", "both"])
@pytest.mark.parametrize("policy", SHARED)
def test_answers_entries_and_evidence_are_the_numpy_servers(
    engine: KvpressEngine, numpy_engine: Engine, monkeypatch: pytest.MonkeyPatch, policy: str, when: str
) -> None:
    answers, shares = list[bool](), list[float]()
    for amount in ({"keep_tokens": 50}, {"keep_tokens": 120}, {"budget": 0.3}, {"budget": 0.6}):
        for every in (10, 20):
            for how in ({}, {"first_token": "full"}, {"mode": "question_agnostic", "context_chars": 1}):
                params = {**SHARED[policy], "compression_interval": every}
                kv = {"policy": policy, "when": when, "params": params, **amount, **how}
                fields = {"context_tokens": 190} if "mode" in how else {}
                with last_prompt(engine, monkeypatch) as prompts:
                    (theirs, found), (ours, expected) = (ask(e, kv, **fields) for e in (engine, numpy_engine))
                assert found == expected
                assert found["n_compressions"] == 44 // every
                cache = numpy_engine._cache
                entries = zip(prompts[0].cache.layers, cache.keys[:, :, : cache.length], strict=True)
                answers.append(ours == theirs)
                shares.append(
                    np.mean([np.isclose(layer.keys[0], keys, atol=1e-2).all(axis=-1) for layer, keys in entries])
                )
    # Of equal norms rounding decides: in layer 0 all keys of one token have one norm.
    assert np.mean(shares) >= (0.9 if policy == "knorm" else 0.98)
    assert np.mean(answers) >= 0.9
    print(f"{policy} {when}: {sum(answers)} of {len(answers)} answers, {np.mean(shares):.2%} of the entries in place")


@pytest.mark.parametrize("press", [kvpress.KeyDiffPress, kvpress.TOVAPress])
@pytest.mark.parametrize("when", ["decode", "both"])
def test_answers_are_those_of_kvpress_alone(engine: KvpressEngine, press: Any, when: str) -> None:
    ids = ids_of(engine, 200)
    theirs = kvpress.DecodingPress(press(), compression_interval=16, target_size=60)
    if when == "both":
        theirs = kvpress.PrefillDecodingPress(press(compression_ratio=1 - 60.5 / 200), theirs)
    cache, given, made = DynamicCache(), torch.from_numpy(ids)[None], []
    position = torch.arange(len(ids))
    with torch.no_grad(), theirs(engine._model):
        for n in range(60):
            out = engine._model(given, past_key_values=cache, position_ids=position[None], cache_position=position)
            made.append(int(out.logits[0, -1].argmax()))
            given, position = torch.tensor([made[-1:]]), torch.tensor([len(ids) + n])
    name = {kvpress.KeyDiffPress: "keydiff", kvpress.TOVAPress: "tova"}[press]
    params = {"compression_interval": 16}
    kv = {"policy": name, "when": when, "keep_tokens": 60, "first_token": "full", "params": params}
    text, evidence = ask(engine, kv, made=60)
    assert text == engine.tokenizer.decode(made)
    assert evidence["n_compressions"] == 3
    assert cache.get_seq_length() == evidence["kept_tokens"]


@pytest.mark.parametrize("policy", ["random", "keydiff", "lagkv", "SnapKVPress", "h2o"])
def test_other_scoring_presses_repeat_themselves_and_leave_the_model_as_it_was(
    engine: KvpressEngine, policy: str
) -> None:
    kv = {"policy": policy, "when": "both", "keep_tokens": 50, "params": {"compression_interval": 10}}
    before = state_of(engine._model)
    first = ask(engine, kv)
    assert state_of(engine._model) == before
    assert ask(engine, kv) == first
    assert first[1]["n_compressions"] == 4
    assert (first[1]["peak_tokens"], first[1]["bytes"]) == (60, 60 * 2048)


def test_the_model_is_the_same_after_a_client_that_left_in_the_middle(engine: KvpressEngine) -> None:
    before = state_of(engine._model)
    params = {"compression_interval": 4}
    kv = parse_kv({"policy": "tova", "when": "decode", "keep_tokens": 50, "params": params}, engine.policies)
    events = engine.generate(Work(ids_of(engine, 200), 40, kv, ignore_eos=True))
    for _ in range(12):
        next(events)
    events.close()
    assert state_of(engine._model) == before


def test_an_answer_too_short_for_the_sinks_is_a_400_and_the_model_is_the_same(engine: KvpressEngine) -> None:
    before = state_of(engine._model)
    params = {"sinks": 90, "compression_interval": 4}
    with pytest.raises(ApiError, match="streaming_llm can't be used with reference on this answer: Input should"):
        ask(engine, {"policy": "streaming_llm", "when": "decode", "keep_tokens": 50, "params": params}, tokens=80)
    assert state_of(engine._model) == before


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("kvzip", "DecodingPress takes a press that scores entries one by one, alone"),
        ("adakv_snapkv", "DecodingPress takes a press that scores entries one by one, alone"),
        ("compactor", "known of a prompt only"),
        ("pyramidkv", "known of a prompt only"),
    ],
)
def test_a_press_that_can_not_is_refused_with_those_that_can(engine: KvpressEngine, policy: str, says: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse_kv({"policy": policy, "when": "decode", "budget": 0.5}, engine.policies)
    assert refused.value.param == "kv.when"
    assert f"must be 'prefill' with policy '{policy}'" in str(refused.value)
    assert says in str(refused.value)
    can = "expected_attention, h2o, keydiff, knorm, lagkv, observed_attention, random, snapkv, streaming_llm, tova"
    assert f"can evict: {can}." in str(refused.value)

"""Eviction in place: what full means, kept prefills are never touched, modes, stops, sampling, the store's bound."""

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from kvt_async.serve.cache import KVCache, Prefill, PrefillStore
from kvt_async.serve.engine import Engine
from kvt_async.serve.kv_request import KvRequest, parse_kv
from kvt_async.serve.policies import POLICIES, Choice
from kvt_async.serve.sampling import Sampling, sampler
from kvt_async.serve.views import PromptView
from kvt_async.serve.weights import REFERENCE_DIR, Ints
from kvt_async.serve.work import Finished, Text, Usage, Work
from tests.serve.support import Encode, example

EVERY_POLICY = [*POLICIES]


def kv(policy: str, budget: float | None = None, **fields: object) -> KvRequest:
    return parse_kv({"policy": policy, **({} if budget is None else {"budget": budget}), **fields})


def run(engine: Engine, work: Work) -> tuple[str, Usage, str]:
    *texts, end = engine.generate(work)
    assert isinstance(end, Finished)
    return "".join(text.text for text in texts if isinstance(text, Text)), end.usage, end.reason


def logits_of(engine: Engine, work: Work, steps: int = 3) -> list[np.ndarray]:
    """The logits of the first tokens, made by feeding 7, 8, 9, ..."""
    logits, _ = engine._prepare(work)
    out = [logits.copy()]
    for i in range(steps):
        out.append(engine.model.step(engine._cache, 7 + i, len(work.ids) + i))
    return out


@pytest.fixture(scope="module")
def prompt(encode: Encode) -> tuple[Ints, int]:
    ex = example(400)
    ids = encode(ex)
    context_tokens = ex.meta["context_tokens"] + 2  # <bos> <user>
    return ids, context_tokens


@pytest.mark.parametrize("policy", EVERY_POLICY)
@pytest.mark.parametrize("mode", ["question_aware", "question_agnostic"])
def test_full_and_a_budget_that_keeps_all_are_bit_for_bit_the_model_without_any_eviction(
    engine: Engine, prompt: tuple[Ints, int], policy: str, mode: str
) -> None:
    ids, context = prompt
    cache = KVCache.empty(engine.model.config, len(ids) + 3)
    plain = [engine.model.extend(cache, ids, 0)]
    plain += [engine.model.step(cache, 7 + i, len(ids) + i).copy() for i in range(3)]
    agnostic = mode == "question_agnostic"
    where = {"mode": mode, **({"context_chars": 1} if agnostic else {})}
    for request in (kv("full"), kv(policy, 1.0, **where), kv(policy, None, keep_tokens=len(ids), **where)):
        work = Work(ids, 4, request, context if agnostic else None)
        assert all((a == b).all() for a, b in zip(logits_of(engine, work), plain, strict=True))


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_budgets_in_any_order_and_a_fresh_server_give_the_same_bytes(
    engine: Engine, prompt: tuple[Ints, int], policy: str
) -> None:
    ids, _ = prompt
    works = {budget: Work(ids, 4, kv(policy, budget)) for budget in (1.0, 0.5, 0.1)}
    fresh = {}
    for budget, work in works.items():
        engine.store = PrefillStore(256 << 20)
        fresh[budget] = logits_of(engine, work)
    for order in permutations(works):
        for budget in order:
            assert all((a == b).all() for a, b in zip(logits_of(engine, works[budget]), fresh[budget], strict=True))


def test_eviction_never_touches_the_kept_prefill(engine: Engine, prompt: tuple[Ints, int]) -> None:
    ids, context = prompt
    prefill, _ = engine.prefill(ids)
    before = prefill.cache.keys.copy(), prefill.cache.values.copy(), prefill.logits.copy()
    for policy in POLICIES:
        run(engine, Work(ids, 4, kv(policy, 0.3)))
        run(engine, Work(ids, 4, kv(policy, 0.3, mode="question_agnostic", context_chars=1), context))
    after = prefill.cache.keys, prefill.cache.values, prefill.logits
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


def test_question_aware_reads_the_last_token_again_on_exactly_n_entries(
    engine: Engine, prompt: tuple[Ints, int]
) -> None:
    ids, _ = prompt
    work = Work(ids, 4, kv("streaming_llm", None, keep_tokens=50))
    _, usage = engine._prepare(work)
    assert engine._cache.length == usage.kept_tokens == 50
    prefill, _ = engine.prefill(ids)
    kept = [0, 1, 2, 3, *range(len(ids) - 46, len(ids) - 1)]
    assert (engine._cache.keys[:, :, :49] == prefill.cache.keys[:, :, kept]).all()
    # Layer 0 sees the same input as before, so there the re-read entry is the old one; deeper layers saw less.
    assert np.allclose(engine._cache.keys[0, :, 49], prefill.cache.keys[0, :, -1], atol=1e-4)
    assert not np.allclose(engine._cache.keys[-1, :, 49], prefill.cache.keys[-1, :, -1], atol=1e-4)


def test_first_token_full_takes_the_first_token_from_before_the_eviction_as_kvpress_does(
    engine: Engine, prompt: tuple[Ints, int]
) -> None:
    ids, _ = prompt
    prefill, _ = engine.prefill(ids)
    free, _ = engine._prepare(Work(ids, 4, kv("random", 0.05, first_token="full")))
    assert (free == prefill.logits).all()
    seen, _ = engine._prepare(Work(ids, 4, kv("random", 0.05)))
    assert not np.allclose(seen, prefill.logits, atol=0.1)


def test_question_agnostic_compresses_the_context_alone_and_reads_the_question_on_what_is_left(
    engine: Engine, prompt: tuple[Ints, int]
) -> None:
    ids, context = prompt
    request = kv("snapkv", 0.25, mode="question_agnostic", context_chars=1)
    logits, usage = engine._prepare(Work(ids, 4, request, context))
    question = len(ids) - context
    assert (usage.compressible_tokens, usage.kept_tokens) == (context, int(context * 0.25))
    assert engine._cache.length == usage.kept_tokens + question
    prefill, _ = engine.prefill(ids)
    kept = Choice(POLICIES[request.policy], request.params).kept(
        PromptView(engine.model, prefill, context), int(usage.kept_tokens)
    )
    by_hand = KVCache.empty(engine.model.config, len(ids))
    by_hand.load(prefill.cache, kept, context)
    assert (engine.model.extend(by_hand, ids[context:], context) == logits).all()


def test_the_context_is_ranked_without_a_look_at_the_question(engine: Engine, prompt: tuple[Ints, int]) -> None:
    ids, context = prompt
    other = ids.copy()
    other[context:] = other[context:][::-1]
    views = [PromptView(engine.model, engine.prefill(one)[0], context) for one in (ids, other)]
    for policy in POLICIES.values():
        first, second = (Choice(policy).kept(view, context // 4) for view in views)
        both = zip(first.reshape(8, -1), second.reshape(8, -1), strict=True)
        agreement = np.mean([len(np.intersect1d(a, b)) for a, b in both])
        assert agreement >= 0.99 * (context // 4)  # the last bits of a sum may differ, nothing else


def test_usage_says_what_was_held(engine: Engine, prompt: tuple[Ints, int]) -> None:
    ids, _ = prompt
    engine.store = PrefillStore(256 << 20)
    _, first, _ = run(engine, Work(ids, 4, kv("snapkv", 0.5)))
    _, again, _ = run(engine, Work(ids, 4, kv("full")))
    assert (first.policy, first.kept_tokens, first.kept_fraction, first.prefill_cached) == ("snapkv", 200, 0.5, False)
    assert first.bytes == 200 * 4 * 2 * 32 * 2 * 4
    assert (again.policy, again.kept_tokens, again.kept_fraction, again.prefill_cached) == ("full", 400, 1.0, True)


def test_generation_ends_at_max_tokens_at_eos_and_at_a_stop_string(engine: Engine, prompt: tuple[Ints, int]) -> None:
    ids, _ = prompt
    work = Work(ids, 5, ignore_eos=True)
    text, usage, reason = run(engine, work)
    assert (usage.completion_tokens, reason) == (5, "length")
    words = text.split(" ")
    assert len(words) <= 5
    assert run(engine, replace(work, stop=(words[0],)))[0::2] == ("", "stop")
    stopped, used, reason = run(engine, replace(work, max_tokens=2, stop=("never said",)))
    assert (stopped, used.completion_tokens, reason) == (" ".join(words[:2]), 2, "length")


def test_sampling_is_repeatable_by_seed_and_follows_the_tempered_probabilities() -> None:
    logits = np.log(np.array([0.6, 0.3, 0.1], np.float32))
    draw = sampler(Sampling(temperature=1.0, seed=5))
    counts = Counter(draw(logits) for _ in range(3000))
    assert [counts[i] / 3000 for i in range(3)] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
    again = sampler(Sampling(temperature=1.0, seed=5))
    assert [again(logits) for _ in range(3000)].count(0) == counts[0]
    nucleus = sampler(Sampling(temperature=1.0, top_p=0.7, seed=5))
    assert {nucleus(logits) for _ in range(500)} == {0, 1}
    assert sampler(Sampling())(np.array([1.0, 3.0, 3.0], np.float32)) == 1


def test_the_prefill_store_stays_within_its_bytes_and_lets_the_least_recently_used_go(engine: Engine) -> None:
    def prefill(ids: np.ndarray) -> Prefill:
        return Prefill(ids, KVCache.empty(engine.model.config, 100), np.zeros(544, np.float32))

    prompts = [np.arange(100) + i for i in range(4)]
    store = PrefillStore(3 * prefill(prompts[0]).nbytes)
    for ids in (*prompts[:3], prompts[0], prompts[3]):  # 0 was used again, so 1 is the oldest
        store.get(ids, partial(prefill, ids))
    assert len(store) == 3
    assert store.used_bytes <= store.limit_bytes
    assert [store.get(ids, partial(prefill, ids))[1] for ids in (prompts[0], prompts[1])] == [True, False]
    assert (store.queried_tokens, store.hit_tokens) == (700, 200)
    nothing = PrefillStore(0)
    assert nothing.get(prompts[0], lambda: prefill(prompts[0]))[1] is False
    assert (len(nothing), nothing.used_bytes) == (0, 0)


def test_a_model_that_ships_with_the_package_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Engine(REFERENCE_DIR, 0).about.max_tokens >= 2048 + 256

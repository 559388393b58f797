"""Eviction while an answer is generated: when it happens, what stays, what is reported, and what it never touches."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvt_async.serve.answer_budget import AnswerBudget
from kvt_async.serve.api_errors import ApiError
from kvt_async.serve.cache import KVCache, Positions
from kvt_async.serve.engine import Engine
from kvt_async.serve.kv_request import KvRequest, parse_kv
from kvt_async.serve.policies import POLICIES, Choice
from kvt_async.serve.views import AnswerView, PromptView, RecentQueries
from kvt_async.serve.weights import Ints
from kvt_async.serve.work import Finished, Text, Usage, Work
from tests.serve.support import GOLDEN, Encode, example

SHORT = {"snapkv": {"window": 4}, "expected_attention": {"future": 16}}  # parameters that fit intervals of 8


def kv(policy: str, *, when: str = "decode", every: int = 8, **fields: Any) -> KvRequest:
    params = {**SHORT.get(policy, {}), "compression_interval": every}
    return parse_kv({"policy": policy, "when": when, "params": params, **fields})


def run(engine: Engine, work: Work) -> tuple[str, Usage]:
    *texts, end = engine.generate(work)
    assert isinstance(end, Finished)
    return "".join(text.text for text in texts if isinstance(text, Text)), end.usage


@pytest.fixture(scope="module")
def ids(encode: Encode) -> Ints:
    return encode(example(200))


@pytest.fixture
def evictions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Positions, Positions]]:
    """What each compression found and left; what is no entry any more becomes NaN, which every use would spread."""
    seen_by_each: list[tuple[Positions, Positions]] = []
    evict = KVCache.evict

    def evict_and_poison(self: KVCache, kept: Positions, seen: int) -> None:
        before = self.positions(seen)
        evict(self, kept, seen)
        seen_by_each.append((before, self.positions(seen)))
        self.keys[:, :, self.length :] = np.nan
        self.values[:, :, self.length :] = np.nan

    monkeypatch.setattr(KVCache, "evict", evict_and_poison)
    return seen_by_each


# ---- what stays


@pytest.mark.parametrize(
    ("when", "keep", "sinks"),
    [("decode", 20, 4), ("both", 20, 4), ("decode", 30, 0), ("both", 30, 0), ("decode", 3, 4)],
)
def test_streaming_llm_keeps_its_sinks_and_the_newest_at_every_compression(
    engine: Engine, ids: Ints, evictions: list[tuple[Positions, Positions]], when: str, keep: int, sinks: int
) -> None:
    params = {"sinks": sinks, "compression_interval": 8}
    request = parse_kv({"policy": "streaming_llm", "when": when, "keep_tokens": keep, "params": params})
    run(engine, Work(ids, 25, request, ignore_eos=True))  # 24 of 25 tokens are fed back
    first = min(sinks, keep)
    for n, (_, left) in enumerate(evictions, 1):
        newest = len(ids) + 8 * n
        assert (left == [*range(first), *range(newest - (keep - first), newest)]).all()
    assert len(evictions) == 3


@pytest.mark.parametrize("when", ["decode", "both"])
@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_evicted_never_comes_back_nor_matters(
    engine: Engine, ids: Ints, evictions: list[tuple[Positions, Positions]], policy: str, when: str
) -> None:
    text, usage = run(engine, Work(ids, 41, kv(policy, when=when, keep_tokens=50), ignore_eos=True))
    assert usage.held.n_compressions == 5
    held = None
    for before, left in evictions:
        assert left.shape == (4, 2, 50)
        assert (np.diff(before, axis=2) > 0).all()
        for found, stays in zip(before.reshape(8, -1), left.reshape(8, -1), strict=True):
            assert set(stays) <= set(found)
        if held is not None:
            assert (before[..., :50] == held).all()
        held = left
    assert np.isfinite(engine._cache.keys[:, :, : engine._cache.length]).all()
    assert text


def answer_view(engine: Engine, text: Ints, *, prompt: int) -> AnswerView:
    """The view of a compression after `text`, of which `prompt` tokens were read and the others fed back."""
    cache = KVCache.empty(engine.model.config, len(text))
    cache.load(engine.prefill(text[:prompt])[0].cache, None, prompt)
    recent = RecentQueries(engine.model, len(text) - prompt)
    for position in range(prompt, len(text)):
        engine.model.step(cache, int(text[position]), position, recent.slot())
    return AnswerView(engine.model, cache, text, cache.positions(len(text)), recent, {})


@pytest.mark.parametrize("policy", ["snapkv", "tova", "expected_attention"])
def test_a_first_compression_keeps_what_it_would_keep_of_a_prompt_of_the_same_tokens(
    engine: Engine, ids: Ints, policy: str
) -> None:
    """Nothing is evicted before it, so queries and attention are those of reading the text at once."""
    text = ids[:190]
    answer = answer_view(engine, text, prompt=150)
    whole = PromptView(engine.model, engine.prefill(text)[0], len(text))
    assert (answer.length, answer.seen, answer.first_query) == (190, 190, 150)
    assert (answer.positions == whole.positions).all()
    assert np.allclose(answer.attention_from(150), whole.attention_from(150), atol=1e-4)
    assert np.allclose(answer.queries(155), whole.queries(155), atol=1e-4)
    assert np.allclose(answer.keys, whole.keys, atol=1e-4)
    if policy != "expected_attention":  # the mean of its queries is over the generated tokens alone
        ours, theirs = (Choice(POLICIES[policy]).kept(view, 60) for view in (answer, whole))
        assert (ours == theirs).mean() > 0.99
    with pytest.raises(ValueError, match=r"query of entry 149 is gone.*from entry 150 on"):
        answer.attention_from(149)


@pytest.mark.parametrize(
    ("how", "context", "rereads"),
    [
        ({"when": "decode"}, 90, 0),
        ({"when": "both", "first_token": "full"}, 90, 0),
        ({"when": "both"}, 90, 1),
        ({"when": "both", "mode": "question_agnostic", "context_chars": 1}, 70, 20),
    ],
)
def test_attention_received_is_that_of_every_query_on_the_cache_as_it_stood(
    engine: Engine, ids: Ints, how: dict[str, Any], context: int, rereads: int
) -> None:
    """Each query hands out 1 in all: what the prompt's entries got, those evicted aside, and then 1 by every query."""
    text = ids[:101]
    work = Work(text[:90], 12, kv("h2o", every=500, keep_tokens=40, **how), context if "mode" in how else None)
    _, usage = engine._prepare(work)
    budget = AnswerBudget(engine.model, engine._cache, work, usage.held)
    for position in range(90, 101):
        budget.step(int(text[position]), position)
    cache = engine._cache
    assert cache.received is not None
    received = cache.received[..., : cache.length]
    if how["when"] == "decode":
        whole = PromptView(engine.model, engine.prefill(text)[0], 101)
        assert np.allclose(received, whole.attention_from(0), atol=1e-3)
        return
    view = PromptView(engine.model, engine.prefill(work.ids)[0], context)
    kept = Choice(POLICIES["h2o"]).kept(view, 40, read_again=rereads == 1)
    before = view.attention_from(0) - (view.attention_from(89) if rereads == 1 else 0)
    of_prompt = np.take_along_axis(before, kept[:, :, None], axis=3).sum(axis=3)
    assert np.allclose(received.sum(axis=3), of_prompt + rereads + 11, atol=1e-3)


STORED: dict[str, dict[str, Any]] = {
    "knorm": {"policy": "knorm"},
    "tova": {"policy": "tova"},
    "streaming_llm": {"policy": "streaming_llm"},
    "snapkv": {"policy": "snapkv", "params": {"window": 8}},
    "snapkv k1": {"policy": "snapkv", "params": {"window": 8, "kernel": 1}},
    "knorm ratio": {"policy": "knorm", "keep_tokens": None, "budget": 0.4},
    "knorm both": {"policy": "knorm", "when": "both", "first_token": "full"},
    "tova both": {"policy": "tova", "when": "both", "first_token": "full"},
}


@pytest.mark.parametrize("name", STORED)
def test_the_kept_sets_are_those_of_kvpress(
    engine: Engine, evictions: list[tuple[Positions, Positions]], name: str
) -> None:
    """Of scripts/make_answer_budget_golden.py: a prompt of 120 tokens, then 80 fed one by one."""
    stored = np.load(GOLDEN / "answer_budget.npz")
    text, fields = stored["ids"].astype(np.int64), {"when": "decode", "keep_tokens": 60, **STORED[name]}
    request = parse_kv({**fields, "params": {**fields.get("params", {}), "compression_interval": 20}})
    theirs = [key for key in stored.files if key.rpartition("/")[0] == name]
    work = Work(text[:120], 81, request)
    _, usage = engine._prepare(work)
    left = [engine._cache.positions(120)] if request.when == "both" else []
    budget = AnswerBudget(engine.model, engine._cache, work, usage.held)
    for position in range(120, 200):
        budget.step(int(text[position]), position)
    left += [after for _, after in evictions]
    for key, ours in zip(theirs, left, strict=name not in ("snapkv", "streaming_llm")):
        mask = np.unpackbits(stored[key], axis=2).astype(bool)
        expected = np.array([[np.flatnonzero(head) for head in layer] for layer in mask])
        assert (ours == expected).all(), key
    assert usage.held.n_compressions == 4


def test_expected_attention_keeps_what_kvpress_keeps_scores_that_are_0_in_float32_aside(engine: Engine) -> None:
    stored = np.load(GOLDEN / "answer_budget.npz")
    view = answer_view(engine, stored["ids"].astype(np.int64)[:140], prompt=120)
    choice = Choice(POLICIES["expected_attention"], {"future": 64})
    ours = np.zeros(view.shape(), bool)
    np.put_along_axis(ours, choice.kept(view, 60), True, axis=2)
    theirs = np.unpackbits(stored["expected_attention/0"], axis=2, count=140).astype(bool)
    above_0 = choice.policy.score(view, {**choice.policy.defaults, **choice.params}) > 1e-30
    assert (ours == theirs)[above_0].all()
    assert above_0.sum() > 8 * 40


def test_snapkvs_window_is_as_long_as_there_are_queries_since_the_last_compression(
    engine: Engine, ids: Ints, evictions: list[tuple[Positions, Positions]]
) -> None:
    def left(window: int) -> list[list[int]]:
        evictions.clear()
        params = {"window": window, "compression_interval": 8}
        request = parse_kv({"policy": "snapkv", "when": "decode", "keep_tokens": 60, "params": params})
        run(engine, Work(ids, 17, request, ignore_eos=True))
        return [after.tolist() for _, after in evictions]

    assert left(32) == left(8)
    assert left(32) != left(7)


def test_of_more_queries_than_are_kept_the_newest_are_looked_at(engine: Engine) -> None:
    recent = RecentQueries(engine.model, 5)
    for n in range(12):
        recent.slot()[:] = n
    assert recent.newest(3)[0, 0, :, 0].tolist() == [9, 10, 11]
    assert len(recent) == 5


# ---- when, and how much


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.integers(1, 60),
    amount=st.one_of(st.integers(1, 80), st.sampled_from([0.1, 0.3, 0.5, 0.9, 1.0])),
    every=st.integers(1, 30),
    made=st.integers(1, 60),
    when=st.sampled_from(["decode", "both"]),
)
def test_the_evidence_is_what_counting_by_hand_gives(
    engine: Engine, ids: Ints, prompt: int, amount: float, every: int, made: int, when: str
) -> None:
    """One token is made before any is fed back; after each `every` fed back, more than the target goes down to it."""
    share = isinstance(amount, float)
    fields = {"budget": amount} if share else {"keep_tokens": amount}
    request = kv("streaming_llm", when=when, every=every, **fields)
    _, usage = run(engine, Work(ids[:prompt], made, request, ignore_eos=True))

    def target(seen: int) -> int:
        return max(1, int(seen * (1 - (1 - amount)))) if share else int(amount)

    held, left = prompt, []
    if when == "both" and target(prompt) < prompt:
        held = target(prompt)
        left.append((held, prompt))
    compressions, peak = 0, held
    for fed in range(1, made):
        held += 1
        peak = max(peak, held)
        if fed % every == 0 and target(prompt + fed) < held:
            held = target(prompt + fed)
            compressions += 1
            left.append((held, prompt + fed))
    assert usage.held.n_compressions == compressions
    assert (usage.held.now_tokens, usage.held.peak_tokens) == (held, peak)
    assert usage.held.compressed_tokens == max((n for n, _ in left), default=None)
    assert usage.held.compressed_fraction == max((n / seen for n, seen in left), default=None)
    assert usage.bytes == peak * engine.about.token_bytes


def test_a_budget_that_is_never_reached_changes_nothing_and_says_so(engine: Engine, ids: Ints) -> None:
    full, _ = run(engine, Work(ids, 20, ignore_eos=True))
    for request in (kv("knorm", keep_tokens=300), kv("knorm", keep_tokens=9, every=20), kv("tova", budget=1.0)):
        text, usage = run(engine, Work(ids, 20, request, ignore_eos=True))
        assert text == full
        assert (usage.held.n_compressions, usage.held.compressed_tokens) == (0, None)
        assert usage.held.now_tokens == usage.held.peak_tokens == 219
    text, usage = run(engine, Work(ids, 21, kv("knorm", keep_tokens=9, every=20), ignore_eos=True))
    assert usage.held.n_compressions == 1


# ---- what else is asked of the same server


@pytest.mark.parametrize("when", ["decode", "both"])
@pytest.mark.parametrize("policy", POLICIES)
def test_equal_requests_have_equal_answers_and_no_other_request_notices(
    engine: Engine, ids: Ints, policy: str, when: str
) -> None:
    plain = Work(ids, 30, ignore_eos=True)
    small = Work(ids, 30, parse_kv({"policy": "snapkv", "budget": 0.2}), ignore_eos=True)
    alone = run(engine, plain)[0], run(engine, small)[0]
    work = Work(ids, 30, kv(policy, when=when, keep_tokens=40), ignore_eos=True)
    first, usage = run(engine, work)
    assert (run(engine, plain)[0], run(engine, small)[0]) == alone
    again, used = run(engine, work)
    assert (again, used.held) == (first, usage.held)


def test_an_answer_left_half_way_leaves_the_next_one_whole(engine: Engine, ids: Ints) -> None:
    full, _ = run(engine, Work(ids, 20, ignore_eos=True))
    events = engine.generate(Work(ids, 40, kv("knorm", keep_tokens=9), ignore_eos=True))
    for _ in range(15):
        next(events)
    events.close()
    assert run(engine, Work(ids, 20, ignore_eos=True))[0] == full


def test_random_draws_anew_at_every_compression_and_by_its_seed(
    engine: Engine, ids: Ints, evictions: list[tuple[Positions, Positions]]
) -> None:
    def left(seed: int) -> list[Positions]:
        evictions.clear()
        params = {"seed": seed, "compression_interval": 8}
        request = parse_kv({"policy": "random", "when": "decode", "keep_tokens": 100, "params": params})
        run(engine, Work(ids, 9, request, ignore_eos=True))
        return [after for _, after in evictions]

    first, again, other = left(0), left(0), left(1)
    assert (first[0] == again[0]).all()
    assert not (first[0] == other[0]).all()


# ---- refusals


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as problem:
        parse_kv({"budget": 0.5, "when": "decode", **fields})
    assert problem.value.status == 400
    return problem.value


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"policy": "knorm", "when": "decoding"}, "kv.when", "did you mean 'decode'?"),
        ({"policy": "knorm", "when": None}, "kv.when", "Known: both, decode, prefill"),
        ({"policy": "knorm", "params": {"compression_interval": 0}}, "kv.params.compression_interval", "at least 1"),
        ({"policy": "knorm", "params": {"compression_interval": 8.0}}, "kv.params.compression_interval", "an integer"),
        ({"policy": "knorm", "params": {"compresion_interval": 8}}, "kv.params.compresion_interval",
         "did you mean 'compression_interval'?"),
        ({"policy": "knorm", "when": "prefill", "params": {"compression_interval": 8}},
         "kv.params.compression_interval", "fits kv.when 'decode' or 'both' only"),
    ],
)  # fmt: skip
def test_a_refusal_names_what_is_wrong(fields: dict[str, Any], param: str, says: str) -> None:
    problem = refused(**fields)
    assert problem.param == param
    assert says in str(problem)

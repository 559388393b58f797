"""What eviction does to the shipped model's answers: the known physics, in bounds wide enough for 40 examples.

The demo's curves rest on this. Lengths 512 and 1024, because snapkv's cliff (about 25 to 50 kept entries) lies below
0.2 of both; 20 multikey prompts each, greedy, exact match.
"""

from collections.abc import Callable
from functools import cache

import pytest

from kvt_async.data.sources.kvtext import generate
from kvt_async.serve.engine import Engine
from kvt_async.serve.kv_request import parse_kv
from kvt_async.serve.work import Text, Work
from tests.serve.support import Encode

LENGTHS = (512, 1024)
EXAMPLES = 20
BUDGETS = (0.8, 0.5, 0.2)


@pytest.fixture(scope="module")
def exact_match(engine: Engine, encode: Encode) -> Callable[..., float]:
    examples = {
        length: list(generate("multikey", contexts=EXAMPLES, min_tokens=length, max_tokens=length, seed=11))
        for length in LENGTHS
    }
    prompts = {id(ex): encode(ex) for many in examples.values() for ex in many}

    @cache
    def share(policy: str, budget: float, *, agnostic: bool = False, length: int | None = None) -> float:
        """Share of right answers, over both lengths unless one is named."""
        right = []
        for ex in [ex for n in LENGTHS if length in (None, n) for ex in examples[n]]:
            where = {"mode": "question_agnostic", "context_chars": len(ex.context)} if agnostic else {}
            context_tokens = ex.meta["context_tokens"] + 2 if agnostic else None  # after <bos> <user>
            kv = parse_kv({"policy": policy, "budget": budget, **where})
            events = engine.generate(Work(prompts[id(ex)], 8, kv, context_tokens))
            right.append("".join(event.text for event in events if isinstance(event, Text)) in ex.answers)
        return sum(right) / len(right)

    return share


@pytest.mark.parametrize("length", LENGTHS)
def test_with_the_full_cache_the_model_answers(exact_match: Callable[..., float], length: int) -> None:
    assert exact_match("full", 1.0, length=length) >= 0.95


@pytest.mark.parametrize("length", LENGTHS)
def test_snapkv_that_saw_the_question_loses_next_to_nothing_at_a_fifth(
    exact_match: Callable[..., float], length: int
) -> None:
    assert exact_match("snapkv", 0.2, length=length) >= 0.9


@pytest.mark.parametrize("length", LENGTHS)
def test_snapkv_that_did_not_see_the_question_loses_most_of_it(exact_match: Callable[..., float], length: int) -> None:
    assert exact_match("snapkv", 0.2, agnostic=True, length=length) <= 0.5


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("agnostic", [False, True])
def test_streaming_llm_answers_about_as_often_as_the_fact_is_still_there(
    exact_match: Callable[..., float], budget: float, agnostic: bool
) -> None:
    assert exact_match("streaming_llm", budget, agnostic=agnostic) == pytest.approx(budget, abs=0.3)


def test_at_half_the_cache_snapkv_beats_streaming_llm_beats_random(exact_match: Callable[..., float]) -> None:
    snapkv, streaming, random = (exact_match(policy, 0.5) for policy in ("snapkv", "streaming_llm", "random"))
    assert snapkv > streaming + 0.2
    assert streaming > random + 0.1


def test_protecting_the_question_helps_random_more_than_it_costs(
    exact_match: Callable[..., float], engine: Engine, encode: Encode
) -> None:
    right = []
    for ex in generate("multikey", contexts=EXAMPLES, min_tokens=512, max_tokens=512, seed=11):
        kv = parse_kv({"policy": "random", "budget": 0.8, "params": {"protect_recent": 32}})
        events = engine.generate(Work(encode(ex), 8, kv))
        right.append("".join(event.text for event in events if isinstance(event, Text)) in ex.answers)
    assert sum(right) / len(right) > exact_match("random", 0.8, length=512) + 0.2

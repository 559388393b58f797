"""Which entries stay: against kvpress' own choices (stored), and by the rules that hold for every policy."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvt_async.contract.formulas.kv_budget import n_kept
from kvt_async.serve.engine import Engine
from kvt_async.serve.policies import POLICIES, Choice, Policy
from kvt_async.serve.views import PromptView, View

LENGTHS = (128, 512, 2048)
RATIOS = ("0.25", "0.5", "0.9")
PRESSES = {
    "snapkv": Choice(POLICIES["snapkv"]),
    "snapkv w8 k3": Choice(POLICIES["snapkv"], {"window": 8, "kernel": 3}),
    "streaming_llm": Choice(POLICIES["streaming_llm"]),
    "tova": Choice(POLICIES["tova"]),
    "knorm": Choice(POLICIES["knorm"]),
    "observed_attention": Choice(POLICIES["observed_attention"]),
    "expected_attention": Choice(POLICIES["expected_attention"]),
}


@pytest.fixture(scope="module")
def view_of(engine: Engine, golden: Any) -> Callable[..., View]:
    def view(length: int, of: int = 512) -> View:
        prefill, _ = engine.prefill(golden[f"{max(of, length)}/ids"].astype(np.int64))
        return PromptView(engine.model, prefill, length)

    return view


def mask(kept: np.ndarray, length: int) -> np.ndarray:
    """Positions to a bool per entry, [layers, kv_heads, length]."""
    out = np.zeros((*kept.shape[:2], length), bool)
    np.put_along_axis(out, kept, True, axis=2)
    return out


@pytest.mark.parametrize("press", PRESSES)
@pytest.mark.parametrize("length", LENGTHS)
def test_the_kept_sets_are_those_of_kvpress_ties_within_1e_5_aside(
    view_of: Callable[..., View], golden: Any, press: Any, length: int
) -> None:
    choice, view = PRESSES[press], view_of(length, of=length)
    scores = choice.policy.score(view, {**choice.policy.defaults, **choice.params})
    compared = 0
    for ratio in RATIOS:
        theirs = np.unpackbits(golden[f"{length}/kept/{press}/{ratio}"], axis=2, count=length).astype(bool)
        n = n_kept(length, 1 - float(ratio))
        assert (theirs.sum(axis=2) == n).all()
        if choice.policy.name == "snapkv" and n < {**choice.policy.defaults, **choice.params}["window"]:
            continue  # all of the window scores alike, so kvpress' choice within it is arbitrary
        ours = mask(choice.kept(view, n), length)
        last_in = np.sort(scores, axis=2)[..., -n, None]
        tied = np.abs(scores - last_in) <= np.minimum(1e-5, 1e-9 + 1e-4 * np.abs(last_in))
        assert (ours == theirs)[~tied].all()
        compared += 1
    assert compared >= 2


@given(st.integers(1, 4096), st.floats(0.0001, 1.0))
def test_n_kept_is_the_stated_expression_within_one_of_length_times_budget(length: int, budget: float) -> None:
    n = n_kept(length, budget)
    assert n == max(1, int(length * (1 - (1 - budget))))
    assert 1 <= n <= length
    assert abs(n - Fraction(budget) * length) <= 1 + Fraction(1, 10**9)


@pytest.mark.parametrize(("length", "budget", "n"), [(20, 0.1, 1), (1000, 0.2, 199), (7, 1.0, 7), (3, 0.01, 1)])
def test_n_kept_keeps_kvpress_rounding_which_may_lose_one_and_never_reaches_zero(
    length: int, budget: float, n: int
) -> None:
    assert n_kept(length, budget) == n


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_every_policy_keeps_n_distinct_rising_positions_in_every_head(
    view_of: Callable[..., View], name: str, data: st.DataObject
) -> None:
    length = data.draw(st.sampled_from([1, 2, 5, 31, 32, 33, 100]))
    n = data.draw(st.integers(1, length))
    protect = data.draw(st.integers(0, length + 3))
    again = data.draw(st.booleans())
    kept = Choice(POLICIES[name], {"protect_recent": protect}).kept(view_of(length), n, read_again=again)
    assert kept.shape == (4, 2, n - again)
    assert (np.diff(kept, axis=2) > 0).all()
    assert kept.size == 0 or (kept.min() >= 0 and kept.max() < length - again)
    newest = set(range(length - min(protect, n), length - again))
    assert all(newest <= set(head) for layer in kept.tolist() for head in layer)


@pytest.mark.parametrize("name", [name for name, policy in POLICIES.items() if not policy.recent_share])
def test_a_smaller_budget_keeps_a_subset(view_of: Callable[..., View], name: str) -> None:
    view = view_of(512)
    small, large = (mask(Choice(POLICIES[name]).kept(view, n), 512) for n in (60, 200))
    assert (small <= large).all()


@pytest.mark.parametrize(("n", "kept"), [(10, [0, 1, 2, 3, 94, 95, 96, 97, 98, 99]), (4, [0, 1, 2, 3]), (2, [0, 1])])
def test_streaming_llm_keeps_the_first_sinks_and_the_newest(
    view_of: Callable[..., View], n: int, kept: list[int]
) -> None:
    assert (Choice(POLICIES["streaming_llm"]).kept(view_of(100), n) == kept).all()


def test_streaming_llm_without_sinks_is_a_sliding_window(view_of: Callable[..., View]) -> None:
    assert (Choice(POLICIES["streaming_llm"], {"sinks": 0}).kept(view_of(100), 3) == [97, 98, 99]).all()


def test_snapkv_below_its_window_or_on_a_prompt_within_it_keeps_the_newest(view_of: Callable[..., View]) -> None:
    assert (Choice(POLICIES["snapkv"]).kept(view_of(100), 5) == range(95, 100)).all()
    assert (Choice(POLICIES["snapkv"]).kept(view_of(20), 5) == range(15, 20)).all()


def test_h2o_gives_half_of_its_budget_to_the_newest_and_half_to_what_received_most_attention(
    view_of: Callable[..., View],
) -> None:
    view = view_of(512)
    kept = mask(Choice(POLICIES["h2o"]).kept(view, 100), 512)
    assert kept[..., 462:].all()
    sums = view.attention_from(0).mean(axis=2)[..., :462]
    heavy = np.argsort(-sums, axis=2)[..., :50]
    assert (np.take_along_axis(kept, heavy, axis=2)).mean() > 0.99


def test_random_depends_on_the_tokens_and_the_seed_alone_and_differs_between_heads(
    view_of: Callable[..., View],
) -> None:
    first = Choice(POLICIES["random"]).kept(view_of(512), 100)
    assert (first == Choice(POLICIES["random"], {"seed": 0}).kept(view_of(512), 100)).all()
    assert not (first == Choice(POLICIES["random"], {"seed": 1}).kept(view_of(512), 100)).all()
    assert len({tuple(head) for layer in first.tolist() for head in layer}) == 8


def test_equal_scores_go_to_the_newest(view_of: Callable[..., View]) -> None:
    view = view_of(100)
    flat = Policy("flat", lambda view, params: np.zeros(view.shape(), np.float32), {"protect_recent": 0})
    assert (Choice(flat).kept(view, 3) == [97, 98, 99]).all()

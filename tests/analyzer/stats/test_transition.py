"""Fixed sequences, Holm, the step rule, the monotone curve: what they say on inputs where the answer is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.stats.half_loss import half_loss, monotone, zone_spread
from analyzer.stats.holm import holm
from analyzer.stats.transition import BudgetTest, Grid, against_full, claims, holm_claims, pairs_needed, step_drop
from analyzer.summarise.verdicts import verdict, zone


def level(budget: float, safe: float, loss: float, broken: float) -> BudgetTest:
    return BudgetTest(budget, f"r{budget:g}", 100, 100, 0.0, 0.0, 0.0, 0.3, 0, 0, safe, loss, broken)


SAFE, LOST, BROKEN, OPEN = (0.001, 0.9, 0.99), (0.9, 0.001, 0.4), (0.99, 0.001, 0.001), (0.5, 0.5, 0.9)


def test_safe_is_proven_from_the_top_and_losses_from_the_bottom() -> None:
    found = claims([level(0.8, *SAFE), level(0.5, *SAFE), level(0.3, *LOST), level(0.1, *BROKEN)], 0.025)
    assert (found.safe, found.loss, found.broken) == (0.5, 0.3, 0.1)


def test_a_sequence_stops_at_the_first_budget_that_is_not_proven() -> None:
    found = claims([level(0.8, *OPEN), level(0.5, *SAFE), level(0.3, *BROKEN), level(0.1, *OPEN)], 0.025)
    assert (found.safe, found.loss, found.broken) == (None, None, None)


P = st.floats(0, 1)


@given(st.lists(st.tuples(P, P), min_size=1, max_size=8), st.lists(st.integers(0, 1), min_size=0, max_size=400))
def test_zone_low_never_reaches_zone_high(noise: list[tuple[Any, Any]], flips: list[int]) -> None:
    rng = np.random.default_rng(len(flips))
    n = 40 + len(flips)
    base = (rng.random(n) < 0.7).astype(float)
    score = {"full": base}
    for i, (keep, _) in enumerate(noise):
        score[f"b{i}"] = np.where(rng.random(n) < keep, base, (rng.random(n) < 0.2).astype(float))
    grid = Grid(score, np.arange(n) % 4, np.arange(n))
    tests = [against_full(grid, "full", f"b{i}", 0.9 - i / 10, -1, margin=0.05, alpha=None) for i in range(len(noise))]
    found = zone(claims(tests, 0.025), "fraction")
    assert found.low is None or found.high is None or found.low < found.high


def p_safe(full_scores: Sequence[float], scores: Sequence[float], failed: dict[str, Any] | None = None) -> float:
    full, level = np.array(full_scores, dtype=float), np.array(scores, dtype=float)
    grid = Grid({"full": full, "b": level}, np.zeros(len(full), dtype=int), np.arange(len(full)), failed or {})
    return against_full(grid, "full", "b", 0.5, -1, margin=0.05, alpha=None).p_safe


def test_requests_that_failed_at_full_cache_never_buy_safe() -> None:
    """Six answers are lost and six failures at full cache are answered: on average nothing is lost, and yet."""
    full = [1.0] * 94 + [0.0] * 6
    here = [0.0] * 6 + [1.0] * 94
    gone = np.arange(100) >= 94
    assert p_safe(full, here) < p_safe(full, here, {"full": gone})
    assert p_safe(full, here, {"full": gone}) == pytest.approx(p_safe(full[:94], here[:94]))
    assert p_safe([0.0], [1.0], {"full": np.array([True])}) == 1.0  # nothing was answered there


def test_failures_at_the_budget_are_losses_and_change_nothing_else() -> None:
    full, here = [1.0] * 100, [0.0] * 3 + [1.0] * 97
    assert p_safe(full, here, {"b": np.arange(100) < 3}) == p_safe(full, here)


def test_a_pair_that_lacks_one_outcome_counts_as_lost_for_safe_alone() -> None:
    full, here = [1.0] * 100, [1.0] * 95 + [np.nan] * 5
    assert p_safe(full, here) == pytest.approx(p_safe(full, [1.0] * 95 + [0.0] * 5))
    assert p_safe([np.nan] * 5 + [1.0] * 95, [0.0] * 5 + [1.0] * 95) == pytest.approx(
        p_safe(full, [0.0] * 5 + [1.0] * 95)
    )
    grid = Grid({"full": np.array(full), "b": np.array(here)}, np.zeros(100, dtype=int), np.arange(100))
    found = against_full(grid, "full", "b", 0.5, -1, margin=0.05, alpha=None)
    assert (found.n, found.drop) == (95, 0.0)
    nothing_yet = p_safe([*full, np.nan], [*([1.0] * 100), np.nan])
    assert nothing_yet == pytest.approx(p_safe(full, [1.0] * 100))


def test_a_series_proven_to_its_end_hands_its_share_to_the_others() -> None:
    strong = [level(0.5, 0.0001, 0.9, 0.9)]
    middling = [level(0.5, 0.02, 0.9, 0.9)]  # not below 0.025 / 2, but below 0.025
    assert holm_claims({"a": strong, "b": middling}, 0.025)["b"].safe == 0.5
    assert holm_claims({"a": middling, "b": middling}, 0.025)["b"].safe is None


def test_holm_multiplies_and_never_decreases() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_step_rule_takes_the_first_fall_of_the_threshold_against_the_next_higher_budget() -> None:
    step = step_drop([(1.0, 0.9), (0.5, 0.85), (0.3, 0.7), (0.1, 0.2)], 0.1)
    assert step is not None
    assert (step.pre_budget, step.transition_budget) == (0.5, 0.3)
    assert step.drop == pytest.approx(0.15)


def test_step_rule_misses_a_gradual_decline_which_is_why_it_is_no_headline() -> None:
    assert step_drop([(1 - i / 10, 0.9 - 0.08 * i) for i in range(8)], 0.1) is None


def pool_adjacent_violators(y: Sequence[float]) -> list[float]:
    blocks: list[tuple[float, int]] = []
    for value in y:
        blocks.append((value, 1))
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            (a, m), (b, n) = blocks[-2:]
            blocks[-2:] = [((a * m + b * n) / (m + n), m + n)]
    return [value for value, size in blocks for _ in range(size)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_the_monotone_curve_is_that_of_pool_adjacent_violators(y: list[float]) -> None:
    assert monotone(np.array(y)) == pytest.approx(np.array(pool_adjacent_violators(y)))


def test_half_loss_lies_where_half_of_the_loss_has_happened() -> None:
    budgets = np.array([1.0, 0.5, 0.2])
    assert half_loss(np.array([0.9, 0.9, 0.1]), budgets) == pytest.approx(0.35)
    assert half_loss(np.array([0.9, 0.5, 0.1]), budgets) == pytest.approx(0.5)
    assert np.isnan(half_loss(np.array([0.5, 0.5, 0.6]), budgets))


def test_the_zones_spread_adds_up_to_all_resamples() -> None:
    acc = np.array([[0.9, 0.9, 0.1], [0.9, 0.2, 0.1], [0.9, 0.9, 0.88]])
    spread = zone_spread(acc, np.array([1.0, 0.5, 0.2]), 0.05)
    first_beyond, never = spread["first_beyond"], spread["never"]
    assert isinstance(first_beyond, list)
    assert first_beyond == pytest.approx([1 / 3, 1 / 3], abs=1e-3)
    assert never == pytest.approx(1 - sum(first_beyond), abs=1e-3)


@pytest.mark.parametrize(
    ("tests", "word"),
    [
        ([level(0.5, *SAFE), level(0.2, *BROKEN)], "transition"),
        ([level(0.5, *SAFE), level(0.2, *SAFE)], "no_transition_in_range"),
        ([level(0.5, *OPEN), level(0.2, *OPEN)], "cannot_tell"),
        ([level(0.5, *LOST)], "transition"),
        ([], "cannot_tell"),
    ],
)
def test_the_verdict_is_what_is_proven(tests: Any, word: str) -> None:
    assert verdict(tests, claims(tests, 0.025), acc_full=0.8, margin=0.05) == word


def test_nothing_to_lose_and_no_baseline_are_verdicts_too() -> None:
    tests = [level(0.5, *SAFE)]
    done = claims(tests, 0.025)
    assert verdict(tests, done, acc_full=0.03, margin=0.05) == "nothing_to_lose"
    assert verdict([], done, acc_full=None, margin=0.05) == "no_baseline"


def needed(drops: Sequence[float], sizes: Sequence[int] | None = None, questions: int = 1) -> Any:
    """Pairs needed by one budget with these drops; sizes: of the bins they lie in."""
    values = np.array(drops, dtype=float)
    bins = np.zeros(len(values), dtype=int) if sizes is None else np.repeat(np.arange(len(sizes)), sizes)
    grid = Grid({"full": values, "b": np.zeros(len(values))}, bins, np.arange(len(values)) // questions)
    test = against_full(grid, "full", "b", 0.5, -1, margin=0.05, alpha=None)
    return pairs_needed([test], claims([test], 0.025), margin=0.05)


@pytest.mark.parametrize(
    ("sizes", "questions"), [((2, 5, 20, 80, 200), 1), ((300,), 5), ((10, 100, 100, 100, 100), 1), ((71,), 1)]
)
def test_pairs_needed_are_more_than_there_are_and_enough_without_a_loss(sizes: tuple[int, ...], questions: int) -> None:
    """Bins of unequal size and questions that share a context: 72 pairs are not 72 equal contexts."""
    found = needed([0.0] * sum(sizes), sizes, questions)
    assert found > sum(sizes)
    grown = np.ceil(np.array(sizes) * found / sum(sizes)).astype(int)
    n = int(grown.sum())
    grid = Grid(
        {k: np.ones(n) for k in ("full", "b")}, np.repeat(np.arange(len(grown)), grown), np.arange(n) // questions
    )
    assert against_full(grid, "full", "b", 0.5, -1, margin=0.05, alpha=None).p_safe <= 0.025


def test_pairs_needed_forecast_a_loss_beyond_the_margin_only_where_a_loss_is_proven() -> None:
    assert needed([1.0] * 4 + [-1.0] * 2 + [0.0] * 19) is None  # 0.08 by chance, as often without any loss
    assert needed([1.0] * 15 + [0.0] * 185) > 200  # 0.075: a loss for certain, beyond 0.05 not yet
    assert needed([1.0] * 3 + [0.0] * 57) is None  # at the margin itself: a guess


def test_few_pairs_without_a_flip_are_no_proof_of_a_quiet_server() -> None:
    """The forecast is not the least number, with which a single flip would spoil the proof."""
    assert 100 < needed([0.0] * 50) < 200

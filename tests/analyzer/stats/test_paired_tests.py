"""The small-sample tests against scipy's exact ones, and properties that any honest test has."""

from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analyzer.stats.paired_tests import Units, each_positive, weighted_exponentials_positive

DROPS = st.lists(st.sampled_from([-1.0, -0.5, -0.2, 0.0, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40)


def units(drops: npt.ArrayLike, cluster: npt.ArrayLike | None = None, bins: npt.ArrayLike | None = None) -> Units:
    values = np.array(drops, dtype=float)
    n = len(values)
    return Units.of(
        values,
        np.arange(n) if cluster is None else np.array(cluster),
        np.zeros(n, dtype=int) if bins is None else np.array(bins),
    )


def pairs(worse: int, better: int, same: int) -> Units:
    return units([1.0] * worse + [-1.0] * better + [0.0] * same)


@pytest.mark.parametrize(("worse", "better", "same"), [(5, 0, 20), (5, 1, 9), (12, 3, 10), (30, 10, 210), (1, 1, 3)])
def test_a_loss_in_binary_pairs_is_tested_as_exactly_as_by_mcnemar(worse: int, better: int, same: int) -> None:
    exact = stats.binomtest(worse, worse + better, 0.5, alternative="greater").pvalue
    assert pairs(worse, better, same).p_drop_at_most(0.0) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(("losses", "n"), [(0, 15), (0, 72), (2, 100), (7, 250), (3, 10)])
def test_losses_alone_give_the_exact_binomial_test_of_the_margin(losses: int, n: int) -> None:
    exact = stats.binom.cdf(losses, n, 0.05)
    assert pairs(losses, 0, n - losses).p_drop_at_least(0.05) == pytest.approx(exact, abs=1e-9)


def test_seventy_two_pairs_without_a_loss_prove_the_usual_margin_and_seventy_one_do_not() -> None:
    assert pairs(0, 0, 72).p_drop_at_least(0.05) <= 0.025 < pairs(0, 0, 71).p_drop_at_least(0.05)


def test_the_interval_of_losses_alone_is_clopper_pearson() -> None:
    low, high = pairs(4, 0, 36).interval(0.05)
    exact = stats.binomtest(4, 40).proportion_ci(0.95, method="exact")
    assert high == pytest.approx(exact.high, abs=1e-6)
    assert low <= exact.low + 1e-9  # a gain was possible too, so the lower end reaches further


def test_with_many_graded_pairs_the_interval_is_the_paired_t_interval() -> None:
    rng = np.random.default_rng(3)
    drops = rng.beta(2, 3, 4000) - rng.beta(2, 2, 4000)
    low, high = units(drops).interval(0.05)
    t = stats.ttest_1samp(drops, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((t.low, t.high), abs=1e-3)


@pytest.mark.parametrize(
    ("value", "count", "exact"),
    [
        ((1.0, -1.0), (3.0, 2.0), stats.f.sf(2 * 2 / (2 * 3), 6, 4)),  # Gamma(3) > Gamma(2)
        ((0.95, -0.05), (1.0, 72.0), 0.95**72),
        ((2.0, -1.0), (1.0, 1.0), 2 / 3),
    ],
)
def test_weighted_exponentials_have_their_closed_form_probabilities(
    value: tuple[float, ...], count: tuple[float, ...], exact: Any
) -> None:
    found = weighted_exponentials_positive(np.array(value), np.array(count))
    assert found == pytest.approx(exact, abs=1e-9)


def test_weighted_exponentials_agree_with_simulation_for_any_values() -> None:
    rng = np.random.default_rng(1)
    value = rng.normal(-0.1, 0.5, 30)
    drawn = np.mean(rng.exponential(size=(400_000, 30)) @ value >= 0)
    assert weighted_exponentials_positive(value, np.ones(30)) == pytest.approx(drawn, abs=3e-3)


@given(
    st.lists(st.floats(-1, 1).map(lambda v: round(v, 3)), min_size=1, max_size=12),
    st.integers(0, 2**32),
    st.sampled_from([2, 20, 500]),
)
def test_many_counts_of_the_same_values_have_the_probabilities_of_each_alone(
    value: list[float], seed: int, most: int
) -> None:
    counts = np.random.default_rng(seed).integers(0, most, size=(8, len(value)))
    counts[0], counts[1] = 0, 1
    values = np.array(value)
    alone = [weighted_exponentials_positive(values[row > 0], row[row > 0].astype(np.float64)) for row in counts]
    assert each_positive(values, counts) == pytest.approx(alone, abs=1e-8)


@given(DROPS)
def test_the_interval_holds_the_mean_and_agrees_with_the_tests(drops: list[float]) -> None:
    found = units(drops)
    low, high = found.interval(0.05)
    assert -1 <= low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= high <= 1
    for m in (0.0, 0.05):
        assert (found.p_drop_at_least(m) <= 0.025) == (high < m) or abs(high - m) < 1e-5
        assert (found.p_drop_at_most(m) <= 0.025) == (low > m) or abs(low - m) < 1e-5


@given(DROPS, st.floats(-0.9, 0.9), st.floats(0, 0.05))
def test_a_larger_margin_is_never_harder_to_stay_below(drops: list[float], m: float, more: float) -> None:
    found = units(drops)
    assert found.p_drop_at_least(m + more) <= found.p_drop_at_least(m) + 1e-8
    assert found.p_drop_at_most(m + more) >= found.p_drop_at_most(m) - 1e-8


@given(DROPS, st.randoms(use_true_random=False))
def test_the_order_of_the_examples_changes_nothing(drops: list[float], random: Random) -> None:
    shuffled = drops[:]
    random.shuffle(shuffled)
    assert units(drops).p_drop_at_least(0.05) == pytest.approx(units(shuffled).p_drop_at_least(0.05), abs=1e-12)


@settings(max_examples=30)
@given(DROPS)
def test_a_further_loss_never_makes_a_budget_look_safer(drops: list[float]) -> None:
    assert units([*drops[:-1], 1.0]).p_drop_at_least(0.05) >= units(drops).p_drop_at_least(0.05) - 1e-8


def test_questions_on_one_context_count_as_one_unit() -> None:
    five_alike = units([0.0] * 100, cluster=np.arange(100) // 5)
    assert len(five_alike.drop) == 20
    assert five_alike.p_drop_at_least(0.05) == pytest.approx(0.95**20)


def test_bins_weigh_equally_however_many_examples_they_hold() -> None:
    found = units([1.0] * 10 + [0.0] * 90, bins=[0] * 10 + [1] * 90)
    assert found.mean == pytest.approx(0.5)


def test_a_context_whose_questions_lie_in_two_bins_is_one_unit_and_keeps_the_equal_weight_mean() -> None:
    """Nine questions of a context in a bin of ten, one in a bin of a hundred: the mean over bins is (0.9 + 0) / 2."""
    bins = [0] * 10 + [1] * 100
    cluster = [0] * 9 + [1] + [0, *range(2, 101)]
    found = units([1.0] * 9 + [0.0] * 101, cluster, bins)
    assert found.mean == pytest.approx(0.45)
    assert len(found.drop) == 101
    assert found.weight.mean() == pytest.approx(1)


@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), st.integers(0, 4), st.integers(0, 2)), min_size=1))
def test_units_keep_the_equal_weight_mean_of_the_bins_however_contexts_lie(
    examples: list[tuple[float, int, int]],
) -> None:
    drops, cluster, bins = zip(*examples, strict=True)
    by_bin = [[d for d, _, b in examples if b == one] for one in sorted(set(bins))]
    assert units(drops, cluster, bins).mean == pytest.approx(np.mean([np.mean(one) for one in by_bin]))


def test_without_pairs_nothing_is_proven() -> None:
    nothing = units([])
    assert (nothing.p_drop_at_least(0.05), nothing.p_drop_at_most(0.0)) == (1.0, 1.0)
    assert np.isnan(nothing.interval(0.05)).all()


def test_many_distinct_values_are_put_on_a_grid_without_moving_the_answer() -> None:
    rng = np.random.default_rng(7)
    drops = rng.uniform(-0.5, 0.6, 900)
    found = units(drops)
    assert len(found.grouped[0]) > 512
    for m in (0.02, 0.05, 0.07, 0.09):
        exact = weighted_exponentials_positive(np.append(drops - m, 1 - m), np.ones(901))
        assert found.p_drop_at_least(m) == pytest.approx(exact, rel=2e-3)


def test_the_interval_of_a_million_graded_pairs_takes_moments() -> None:
    rng = np.random.default_rng(7)
    drops = rng.beta(2, 3, 1_000_000) - rng.beta(2, 2.9, 1_000_000)
    found = units(drops)
    low, high = found.interval(0.05)
    half = 1.96 * drops.std() / 1000
    assert (low, high) == pytest.approx((drops.mean() - half, drops.mean() + half), abs=2e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_bound_near_the_worst_is_found_where_the_normal_guess_lies_beyond_it(sign: float) -> None:
    """10 units, of which two weigh as much as eight: mean 0.6; the bound would else be the worst that can be."""
    drop = sign * np.array([1, 0, 1, 1, 1, 1, 1, 0, 0, 1], dtype=np.float64)
    found = Units.of(drop, np.arange(10), np.array([0, 0, 1, 1, 1, 1, 1, 1, 1, 1]))
    low, high = found.interval(0.05)
    bound = high if sign > 0 else low
    p = found.p_drop_at_least(high) if sign > 0 else found.p_drop_at_most(low)
    assert abs(bound) < 0.95
    assert p == pytest.approx(0.025, abs=1e-5)

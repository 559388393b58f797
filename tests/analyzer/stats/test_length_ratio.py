"""Ratios of lengths: by hand, against planted truths, and that the interval never promises what a few answers can't."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.stats.length_ratio import _outermost, length_ratio, normal_of_t


def ratio_of(full: list[float], here: list[float], cluster: list[int] | None = None, alpha: float = 0.05) -> Any:
    n = len(full)
    contexts = np.arange(n) if cluster is None else np.array(cluster)
    return length_ratio(np.array(full, dtype=float), np.array(here, dtype=float), contexts, np.full(n, 1 / n), alpha)


def test_a_ratio_is_that_of_the_means_with_the_interval_of_a_test_of_each_ratio() -> None:
    full, here = [10.0, 20.0, 30.0, 40.0, 50.0, 30.0], [20.0, 20.0, 50.0, 60.0, 60.0, 30.0]
    seen = ratio_of(full, here)
    assert (seen.full, seen.here, seen.ratio) == pytest.approx((30.0, 40.0, 4 / 3))
    for end in (seen.low, seen.high):  # at both ends t is where 5% begins; by hand, one context an example
        d = np.array(here) - end * np.array(full)
        square = np.sum((d - d.mean()) ** 2) / 36 + max(np.max(np.abs(d)) / 6, 40 / 6) ** 2
        assert abs(normal_of_t(d.mean() / math.sqrt(square * 6 / 5), 5)) == pytest.approx(1.959964, abs=1e-5)


def test_lengths_that_grow_by_a_known_factor_are_found_within_the_interval() -> None:
    rng = np.random.default_rng(3)
    full = rng.lognormal(3, 0.6, 300)
    seen = ratio_of(list(full), list(1.4 * full * rng.lognormal(-0.02, 0.2, 300)))
    assert seen.low < 1.4 < seen.high < 1.5
    assert seen.p < 1e-6


def test_equal_lengths_prove_no_growth_and_have_an_interval_all_the_same() -> None:
    few, many = ratio_of([4.0] * 20, [4.0] * 20), ratio_of([4.0] * 400, [4.0] * 400)
    assert (few.ratio, few.p) == (1.0, 1.0)
    assert few.low < many.low < 1.0 < many.high < few.high


def test_a_single_long_answer_proves_no_growth() -> None:
    seen = ratio_of([10.0] * 60, [10.0] * 59 + [2000.0])
    assert seen.ratio > 4
    assert seen.p > 0.05


def test_answers_of_one_context_count_as_one() -> None:
    rng = np.random.default_rng(4)
    full = rng.lognormal(3, 0.5, 12)
    here = full * rng.lognormal(0.1, 0.3, 12)
    single = ratio_of(list(full), list(here))
    again = ratio_of(list(np.tile(full, 8)), list(np.tile(here, 8)), list(np.tile(np.arange(12), 8)))
    assert (again.low, again.high, again.p) == pytest.approx((single.low, single.high, single.p))


@pytest.mark.parametrize(("full", "here"), [([5.0] * 4, [9.0] * 4), ([0.0] * 20, [3.0] * 20), ([3.0] * 20, [0.0] * 20)])
def test_nothing_is_claimed_of_too_few_contexts_or_of_no_length(full: list[float], here: list[float]) -> None:
    seen = ratio_of(full, here)
    assert (seen.low, seen.high, seen.p) == (None, None, None)


@pytest.mark.parametrize(("freedom", "t"), [(4, 2.776), (9, 2.262), (19, 2.093), (99, 1.984)])
def test_t_becomes_the_normal_value_that_is_as_rare(freedom: float, t: float) -> None:
    assert normal_of_t(t, freedom) == pytest.approx(1.96, abs=0.01)
    assert normal_of_t(-t, freedom) == -normal_of_t(t, freedom)


LENGTHS = st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=6, max_size=40)


@given(LENGTHS)
def test_the_interval_holds_its_ratio_and_leaves_out_1_where_p_is_below_alpha(pairs: list[tuple[int, int]]) -> None:
    seen = ratio_of([a for a, _ in pairs], [b for _, b in pairs])
    if seen.low is not None and seen.high is not None:
        assert seen.low < seen.ratio < seen.high
        assert (seen.p < 0.05) == (not seen.low <= 1 <= seen.high) or seen.p == pytest.approx(0.05, abs=1e-6)


@given(LENGTHS)
def test_lengths_in_another_unit_have_the_same_ratio(pairs: list[tuple[int, int]]) -> None:
    seen, scaled = (ratio_of([a * unit for a, _ in pairs], [b * unit for _, b in pairs]) for unit in (1.0, 7.0))
    assert (scaled.ratio, scaled.p) == pytest.approx((seen.ratio, seen.p))
    assert (scaled.low is None) == (seen.low is None)


@given(LENGTHS, st.floats(0.001, 1000))
def test_the_largest_difference_is_among_the_outermost_pairs(pairs: list[tuple[int, int]], ratio: float) -> None:
    full, here = np.array(pairs, dtype=float).T
    outer_full, outer_here = _outermost(full, here)
    assert np.abs(outer_here - ratio * outer_full).max() == np.abs(here - ratio * full).max()


def test_growth_is_rarely_claimed_where_long_answers_are_as_rare_on_both_sides() -> None:
    """Where the logarithm of a ratio is taken for normal, 7% of these experiments claim growth."""
    rng, claims = np.random.default_rng(5), 0
    for _ in range(300):
        full, here = (np.where(rng.random(50) < 0.02, 60.0, rng.lognormal(0, 0.3, 50)) for _ in range(2))
        seen = ratio_of(list(full), list(here))
        claims += seen.p < 0.05 and seen.ratio > 1
    assert claims / 300 <= 0.025 + 2.576 * math.sqrt(0.025 * 0.975 / 300)

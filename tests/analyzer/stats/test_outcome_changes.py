"""What changes beside scores: known answers by hand, pairing of answers, medians with their intervals."""

from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.stats.outcome_changes import AnswerTraits, Change, EntryLayout, adjusted, changes, median_interval, paired
from kvt_async.contract.vocabulary import TIMES, Measure

NAN = float("nan")


def traits(n: int, k: int = 1, **given_values: Any) -> AnswerTraits:
    """Traits of n examples with k answers: nothing happened, but for the values given by measure."""
    values = {measure: np.zeros((n, k), dtype=np.float32) for measure in Measure}
    values[Measure.TOKENS] += 10
    values[Measure.IDENTICAL] += 1
    for measure in (Measure.DIVERGENCE, *TIMES):
        values[measure] += NAN
    for name, value in given_values.items():
        values[Measure(name)] = np.array(value, dtype=np.float32).reshape(n, k)
    return AnswerTraits(values)


def alone(n: int) -> EntryLayout:
    return EntryLayout(np.arange(n), np.zeros(n, dtype=np.int64))


def rows_of(
    full: AnswerTraits, here: AnswerTraits, repeats: Sequence[AnswerTraits] = (), layout: EntryLayout | None = None
) -> dict[str, Any]:
    layout = layout or alone(len(full.of[Measure.TOKENS]))
    return {row.measure: row for row in changes(full, here, repeats, layout, 0.05)}


def first(n: int, k: int) -> list[float]:
    """1 for the first k of n."""
    return [1.0] * k + [0.0] * (n - k)


def test_shares_are_paired_with_full_caches_answers_and_have_the_bound_of_the_paired_tests() -> None:
    row = rows_of(traits(100, cut_off=first(100, 2)), traits(100, cut_off=first(100, 14)))["cut_off"]
    assert (row.n, row.full, row.here, row.change) == pytest.approx((100, 0.02, 0.14, 0.12))
    assert row.low < 0.12 < row.high
    assert row.p == pytest.approx(2 * 0.5**12, rel=0.2), "12 pairs changed, all one way: McNemar"


def test_what_never_happens_has_an_interval_and_takes_no_part_in_the_adjustment() -> None:
    row = rows_of(traits(72), traits(72))["empty"]
    assert (row.full, row.here, row.change, row.p) == (0, 0, 0, None)
    assert (row.low, row.high) == pytest.approx((-0.05, 0.05), abs=0.001)
    assert adjusted([row, Change(Measure.EMPTY, 1, 0, 0, p=0.01), Change(Measure.EMPTY, 1, 0, 0, p=0.04)]) == [
        None,
        pytest.approx(0.02),
        pytest.approx(0.04),
    ]


def test_lengths_are_a_ratio_of_means() -> None:
    tokens = np.random.default_rng(1).integers(5, 60, 80).astype(float)
    row = rows_of(traits(80, completion_tokens=tokens), traits(80, completion_tokens=tokens * 1.5))["completion_tokens"]
    assert (row.full, row.here, row.change) == pytest.approx((tokens.mean(), tokens.mean() * 1.5, 1.5))
    assert row.low > 1


def test_bins_weigh_equally() -> None:
    layout = EntryLayout(np.arange(10), np.array([0] * 8 + [1] * 2))
    row = rows_of(traits(10), traits(10, empty=first(10, 8)), layout=layout)["empty"]
    assert row.here == pytest.approx(0.5)


def test_the_nth_answer_is_paired_with_the_nth_and_the_example_stays_the_unit() -> None:
    full = traits(30, 3, cut_off=np.tile([1, 0, 0], (30, 1)))
    here = traits(30, 2, cut_off=np.tile([1, 1], (30, 1)))
    row = rows_of(full, here)["cut_off"]
    assert (row.n, row.full, row.here) == pytest.approx((60, 0.5, 1.0))
    half = rows_of(traits(30), traits(30, cut_off=np.full(30, 0.5)))["cut_off"]
    assert (row.change, row.low, row.high, row.p) == pytest.approx((half.change, half.low, half.high, half.p))


def test_answers_that_only_one_side_has_are_no_pairs() -> None:
    full, here = np.array([[1.0, NAN], [0.0, 1.0], [NAN, NAN]]), np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    at_full, at_here, rows, n = paired(full.astype(np.float32), here.astype(np.float32))
    assert (at_full.tolist(), at_here.tolist(), rows.tolist(), n) == ([1.0, 0.5], [0.0, 1.0], [True, True, False], 3)
    gone = rows_of(traits(4), traits(4, cut_off=[NAN] * 4))
    assert "cut_off" not in gone


def test_texts_stand_beside_the_repeat_of_full_cache_or_beside_nothing() -> None:
    here = traits(40, identical=first(40, 10), first_divergence=[NAN] * 10 + list(range(30)))
    bare = rows_of(traits(40), here)
    assert (bare["identical"].full, bare["identical"].here, bare["identical"].change) == (None, 0.25, None)
    assert bare["first_divergence"].full is None
    repeat = traits(40, identical=first(40, 38), first_divergence=[NAN] * 38 + [90, 110])
    beside = rows_of(traits(40), here, [repeat])
    assert (beside["identical"].full, beside["identical"].here) == pytest.approx((0.95, 0.25))
    assert beside["identical"].change == pytest.approx(-0.7)
    assert (beside["first_divergence"].full, beside["first_divergence"].here) == (100, 14.5)
    assert beside["first_divergence"].n == 30


def test_where_no_text_parts_there_is_no_place_where_it_does() -> None:
    assert "first_divergence" not in rows_of(traits(5), traits(5), [traits(5)])


def test_a_median_lies_between_the_places_that_the_binomial_allows() -> None:
    value = np.arange(20, dtype=float)
    low, high = median_interval(value, np.arange(20), 0.05)
    assert (low, high) == (5.0, 14.0), "the 6th and the 15th of 20: the chance of fewer than 6 of 20 is 2.1%"
    together = median_interval(np.repeat(value, 3), np.repeat(np.arange(20), 3), 0.05)
    assert together == (low, high), "three answers of a context are one"
    assert median_interval(value[:4], np.arange(4), 0.05) == (None, None)


@given(st.lists(st.integers(0, 30), min_size=6, max_size=60))
def test_a_median_is_inside_its_interval(places: list[int]) -> None:
    value = np.array(places, dtype=float)
    low, high = median_interval(value, np.arange(len(value)), 0.05)
    if low is not None and high is not None:
        assert 0 <= low <= np.median(value) <= high <= value.max()


@given(st.lists(st.integers(0, 8), min_size=1, max_size=60))
def test_of_single_answers_the_interval_holds_the_places_that_their_number_allows(places: list[int]) -> None:
    value, n = np.array(places, dtype=float), len(places)

    def may_be_half(count: int) -> bool:
        return bool(
            sum(comb(n, k) for k in range(count + 1)) / 2**n > 0.025
        )  # so few or fewer of n, were it half of all

    ends = median_interval(value, np.arange(n), 0.05)
    if may_be_half(0):
        assert ends == (None, None)
        return
    ordered = np.unique(value)
    assert ends == (
        min(x for x in ordered if may_be_half(int((value <= x).sum()))),
        max(x for x in ordered if may_be_half(int((value >= x).sum()))),
    )


def test_times_are_compared_request_by_request() -> None:
    """Long requests and short ones, each a fifth slower here: the spread of their lengths is not in the interval."""
    seconds = np.geomspace(0.1, 10, 40)
    noise = np.tile([0.98, 1.02], 20)
    row = rows_of(traits(40, latency=seconds), traits(40, latency=1.2 * seconds * noise))["latency"]
    assert (row.n, row.full, row.here) == pytest.approx((40, float(np.median(seconds)), 1.2), rel=0.03)
    assert (row.change, row.low, row.high) == pytest.approx((1.2, 1.2 * 0.98, 1.2 * 1.02))
    assert row.p is None, "it takes no part in the adjustment"
    unknown = [NAN] * 40
    assert "ttft" not in rows_of(traits(40, ttft=unknown), traits(40, ttft=seconds)), "nothing is known of a pair"


def test_too_few_requests_give_a_ratio_without_an_interval() -> None:
    row = rows_of(traits(4, latency=[1.0, 2, 3, 4]), traits(4, latency=[2.0, 4, 6, 8]))["latency"]
    assert (row.change, row.low, row.high) == (2.0, None, None)

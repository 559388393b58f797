"""Lengths to bins: what holds for every list of lengths, and the choices within a bin."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.errors import ConfigError
from kvt_async.data.bins import Candidate, bin_of, bins_of, choose, counts, quantile_edges

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80)


@given(LENGTHS, st.integers(1, 9))
def test_there_are_exactly_n_bins_and_every_length_is_in_one(lengths: list[int], n_bins: int) -> None:
    edges = quantile_edges(Counter(lengths), n_bins)
    bins = bins_of(edges)
    assert [b.bin_idx for b in bins] == list(range(n_bins))
    assert edges == sorted(edges)
    assert (edges[0], edges[-1]) == (min(lengths), max(lengths))
    assert set(edges) <= set(lengths), "edges are on values that occur"
    for length in lengths:
        assert [b.bin_idx for b in bins if b.lo_tokens <= length <= b.hi_tokens] == [bin_of(length, edges)]
    assert sum(counts(Counter(lengths), edges)) == len(lengths)


@given(LENGTHS, st.integers(1, 9), st.randoms())
def test_bins_do_not_depend_on_the_order_of_examples(lengths: list[int], n_bins: int, random: Random) -> None:
    shuffled = list(lengths)
    random.shuffle(shuffled)
    assert quantile_edges(Counter(shuffled), n_bins) == quantile_edges(Counter(lengths), n_bins)


@given(st.integers(1, 9), st.integers(1, 20))
def test_distinct_lengths_are_shared_out_to_within_one(n_bins: int, per_bin: int) -> None:
    histogram = dict.fromkeys(range(10, 10 + n_bins * per_bin), 1)
    found = counts(histogram, quantile_edges(histogram, n_bins))
    assert max(found) - min(found) <= 1


def test_ties_stay_together_and_leave_an_empty_bin_that_is_shown() -> None:
    histogram = {5: 9, 8: 1}
    edges = quantile_edges(histogram, 3)
    assert counts(histogram, edges) == [9, 0, 1]
    empty = bins_of(edges)[1]
    assert empty.hi_tokens == empty.lo_tokens - 1


def test_one_length_alone_fills_the_first_bin() -> None:
    assert counts({7: 4}, quantile_edges({7: 4}, 5)) == [4, 0, 0, 0, 0]


def test_explicit_edges_include_both_ends_and_nothing_beyond() -> None:
    edges = [10, 20, 30]
    assert [bin_of(n, edges) for n in (9, 10, 20, 21, 30, 31)] == [None, 0, 0, 1, 1, None]


def test_no_examples_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no examples"):
        quantile_edges({}, 5)


CANDIDATES = st.lists(st.integers(1, 30), min_size=1, max_size=40).map(
    lambda lengths: [Candidate(f"e{i}", length) for i, length in enumerate(lengths)]
)


@given(CANDIDATES, st.integers(1, 50))
def test_shortest_takes_by_length_then_id(candidates: list[Candidate], n: int) -> None:
    expected = sorted(candidates, key=lambda c: (c.token_len, c.example_id))[:n]
    assert choose(reversed(candidates), n, "shortest", seed=1) == expected


@given(CANDIDATES, st.integers(1, 20), st.integers(1, 20), st.integers(0, 5))
def test_a_larger_uniform_sample_only_appends(candidates: list[Candidate], n: int, more: int, seed: int) -> None:
    small, large = (choose(candidates, k, "uniform", seed) for k in (n, n + more))
    assert large[: len(small)] == small
    assert len(set(large)) == len(large) == min(n + more, len(candidates))
    assert choose(reversed(candidates), n, "uniform", seed) == small
    assert choose(candidates, n, "focus_transition", seed) == small


def test_uniform_depends_on_the_seed_and_not_on_length() -> None:
    candidates = [Candidate(f"e{i}", i) for i in range(200)]
    one, two = (choose(candidates, 100, "uniform", seed) for seed in (1, 2))
    assert one != two
    assert 80 < sum(c.token_len for c in one) / 100 < 120

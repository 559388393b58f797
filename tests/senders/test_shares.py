"""Bounds of an invocation are divided among its processes: nothing is lost, nobody gets more than a unit more."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.errors import ConfigError
from kvt_async.senders.shares import sender_count, shares, shares_of_limits, usable_cores, whole_shares
from tests.worlds import settings_of


@given(st.integers(0, 100_000), st.integers(1, 1024))
def test_whole_shares_add_up_and_differ_by_one_at_most_larger_ones_first(total: int, n: int) -> None:
    parts = whole_shares(total, n)
    assert (len(parts), sum(parts)) == (n, total)
    assert max(parts) - min(parts) <= 1
    assert parts == sorted(parts, reverse=True)


@given(st.floats(0.001, 1e12), st.integers(1, 64))
def test_shares_of_a_rate_add_up_and_no_process_may_send_more_than_one_more(total: float, n: int) -> None:
    parts = shares(total, n)
    assert math.isclose(sum(parts), total)
    assert max(parts) - min(parts) <= 1


def test_each_process_gets_its_part_of_every_bound_and_no_processes_of_its_own() -> None:
    limits = settings_of("limits={concurrency: 7, requests_per_minute: 91, processes: 3}").limits
    parts = shares_of_limits(limits, 3)
    assert [part.concurrency for part in parts] == [3, 2, 2]
    assert [part.requests_per_minute for part in parts] == [31, 30, 30]
    assert {(part.tokens_per_minute, part.processes) for part in parts} == {(None, 1)}


def test_a_share_below_one_is_refused_with_the_key_and_both_ways_out() -> None:
    settings = settings_of("limits.processes=4")
    assert sender_count(settings, {"limits.concurrency": 4, "limits.tokens_per_minute": None}) == 4
    assert sender_count(settings_of(), {"limits.requests_per_minute": 0.5}) == 1
    with pytest.raises(ConfigError) as refused:
        sender_count(settings, {"limits.concurrency": 8, "limits.requests_per_minute": 3.5})
    assert "limits.requests_per_minute is 3.5: of 4 processes each would get less than 1" in str(refused.value)
    assert "at most 3, or limits.requests_per_minute to at least 4" in str(refused.value)


def test_auto_is_a_process_for_each_core_and_no_more_than_the_bounds_can_be_divided_into() -> None:
    settings = settings_of("limits.processes=auto")
    assert sender_count(settings, {"limits.concurrency": 100_000}) == usable_cores()
    assert sender_count(settings, {"bench.concurrency": None}) == usable_cores()
    assert sender_count(settings, {"limits.concurrency": 1}) == 1
    assert sender_count(settings, {"limits.requests_per_minute": 0.5}) == 1

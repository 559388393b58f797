"""A small, seeded run of scripts/bench/throughput.py: rates, intervals and ladders on servers whose speed is known."""

import throughput

RUNS = 40


def test_rates_of_closed_loops_are_right_and_their_intervals_hold_the_truth() -> None:
    assert throughput.closed(RUNS, seed=1, every=False)


def test_what_an_open_loop_keeps_up_with_is_right_and_its_interval_holds_the_truth() -> None:
    assert throughput.opened(RUNS, seed=1, every=False)


def test_a_capacity_is_found_and_a_server_that_never_slows_shows_no_plateau() -> None:
    assert throughput.ladders(RUNS // 2, seed=1, every=False)


def test_a_bar_is_missed_only_where_chance_does_not_explain_it() -> None:
    assert throughput.may_be(38, 40, 0.99)
    assert not throughput.may_be(34, 40, 0.99)
    assert not throughput.exceeds(3, 40, 0.025)
    assert throughput.exceeds(7, 40, 0.025)

"""Which load comes next: lists, automatic ladders, and the search for the highest rate within objectives."""

import numpy as np
import pytest

from kvt_async.bench.figures import Figures
from kvt_async.bench.ladder import Done, bracket, next_stage
from kvt_async.bench.loads import Load
from kvt_async.contract.bench_settings import Bench

CAPACITY = 37.0  # requests a second of the imagined server


def served(load: Load, latency_s: float = 0.1) -> Figures:
    """A hundred requests at a server that keeps up to its capacity and queues beyond it."""
    n, rate = 100, load.rate_per_s or float(load.concurrency or 1)
    begin = np.arange(n) / rate * 1e9
    end = np.maximum.accumulate(np.arange(n) / min(rate, CAPACITY) * 1e9) + latency_s * 1e9
    return Figures(
        load.rate_per_s, np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.bool_), begin, end, end, end,
        np.full(n, 10.0), np.full(n, 10.0), [None] * n,
    )  # fmt: skip


def climb(bench: Bench) -> list[Done]:
    done: list[Done] = []
    while (step := next_stage(bench, done)) is not None:
        assert len(done) < 100
        done.append(Done(step.load, step.repeat, served(step.load)))
    return done


def test_a_list_goes_repeat_by_repeat_and_leaves_out_what_lies_above_a_broken_rule() -> None:
    done = climb(Bench(sweep_rate=[10, 20, 80, 160], repeats=2))
    assert [(d.load.rate_per_s, d.repeat) for d in done] == [(10, 0), (20, 0), (80, 0), (10, 1), (20, 1), (80, 1)]


def test_an_automatic_ladder_climbs_until_the_rate_is_not_achieved() -> None:
    assert [d.load.rate_per_s for d in climb(Bench(sweep_rate="auto"))] == [1, 2, 4, 8, 16, 32, 64]


def test_a_closed_ladder_ends_when_more_streams_bring_no_more_output() -> None:
    assert [d.load.concurrency for d in climb(Bench(sweep_concurrency="auto"))] == [1, 2, 4, 8, 16, 32, 64, 128]


@pytest.mark.parametrize("given", [{}, {"low": 5.0, "high": 100.0}, {"low": 50.0, "high": 100.0}])
def test_a_search_closes_in_on_the_highest_rate_that_keeps_the_objectives(given: dict[str, float]) -> None:
    bench = Bench.model_validate(
        {"search_rate": True, "slo": {"ttft_p99_ms": 300}, "search": {**given, "max_stages": 20}}
    )
    low, high = bracket(bench, climb(bench))
    assert low is not None
    assert high is not None
    assert high / low <= 1.051
    assert low <= 40.5 < high * 1.05  # where the queue of a hundred requests grows by 200 ms


def test_the_ladder_is_a_function_of_what_was_seen_so_that_a_resume_goes_on_where_it_stood() -> None:
    bench = Bench(sweep_rate="auto", repeats=2)
    done = climb(bench)
    for n in range(len(done)):
        step = next_stage(bench, done[:n])
        assert step is not None
        assert (step.load, step.repeat) == (done[n].load, done[n].repeat)


def test_failures_count_as_infinite_latencies_and_take_from_the_achieved_rate() -> None:
    whole = served(Load(rate_per_s=10.0))
    some = Figures(**{**vars(whole), "ok": np.arange(100) % 20 != 0})
    assert some.value("latency_p90_ms") == pytest.approx(100.0)
    assert some.value("latency_p99_ms") == np.inf
    assert some.achieved_share == pytest.approx(0.95)

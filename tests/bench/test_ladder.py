"""Which load comes next: lists, automatic ladders, and the search for the highest rate within objectives."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kvt_async.bench.ladder import Done, bracket, next_stage
from kvt_async.bench.load_steps import Load
from kvt_async.bench.stage_figures import Figures
from kvt_async.contract.bench_settings import Bench
from kvt_async.contract.formulas.open_loop_throughput import of_window
from kvt_async.contract.formulas.request_lives import lives_of

CAPACITY = 37.0  # requests a second of the imagined server


def served(load: Load, latency_s: float = 0.1, *, failing: int = 0, n: int = 100) -> Done:
    """`n` requests at a server that gives its latency up to its capacity, beyond which everybody waits for their turn;
    every `failing`-th fails. A closed loop has one more round before, as a warm-up."""
    begin: Any  # arrays of numbers, as are `end` and `measured`
    end: Any
    measured: Any
    ok: Any = np.ones(n, dtype=np.bool_) if not failing else np.arange(n) % failing != 0
    if load.rate_per_s is not None:
        begin = np.arange(n) / load.rate_per_s
        end = np.arange(n) / min(load.rate_per_s, CAPACITY) + latency_s
        measured, until = np.ones(n), None
    else:
        places = load.concurrency or 1
        life = max(latency_s, places / CAPACITY)
        rounds = np.repeat(np.arange(12 * n), places)[: n + places]
        begin, end = rounds * life, (rounds + 1) * life
        measured, until = (rounds > 0).astype(float), float(end[-1])
        ok = np.ones(n + places, dtype=np.bool_)
    lives = lives_of({
        "begin": begin, "start": begin, "end": end, "finished": end, "first": end - 0.05, "last": end, "ok": ok * 1.0,
        "measured": measured, "input_tokens": np.full(len(ok), 40.0), "output_tokens": np.full(len(ok), 10.0),
    }, None)  # fmt: skip
    begin, end, ok = (values[measured > 0] for values in (begin, end, ok))
    figures = Figures(
        load.rate_per_s, np.zeros(len(ok), dtype=np.int64), ok, begin * 1e9, end * 1e9, end * 1e9, end * 1e9,
        np.full(len(ok), 10.0), np.full(len(ok), 10.0), [None] * len(ok),
    )  # fmt: skip
    return Done(load, 0, figures, of_window(lives, load.concurrency, until, whole=True))


def climb(bench: Bench, n: int = 100) -> list[Done]:
    done: list[Done] = []
    while (step := next_stage(bench, done)) is not None:
        assert len(done) < 100
        done.append(replace(served(step.load, n=max(n, 12 * (step.load.concurrency or 0))), repeat=step.repeat))
    return done


def test_a_list_goes_repeat_by_repeat_and_leaves_out_what_lies_above_a_broken_rule() -> None:
    done = climb(Bench(sweep_rate=[10, 20, 80, 160], repeats=2))
    assert [(d.load.rate_per_s, d.repeat) for d in done] == [(10, 0), (20, 0), (80, 0), (10, 1), (20, 1), (80, 1)]


def test_an_automatic_ladder_climbs_until_the_rate_is_not_achieved() -> None:
    assert [d.load.rate_per_s for d in climb(Bench(sweep_rate="auto"))] == [1, 2, 4, 8, 16, 32, 64]


def test_a_closed_ladder_ends_when_more_streams_bring_no_more_output() -> None:
    assert [d.load.concurrency for d in climb(Bench(sweep_concurrency="auto"))] == [1, 2, 4, 8]


def test_a_closed_ladder_goes_on_while_output_grows_and_where_nothing_can_be_told() -> None:
    fast = climb(Bench.model_validate({"sweep_concurrency": [1, 2, 3]}))  # the server's capacity is 3.7 in flight
    assert [d.load.concurrency for d in fast] == [1, 2, 3]
    short = [served(Load(concurrency=n), n=n) for n in (8, 16, 32)]  # beyond the capacity, in windows of a round each
    assert all(d.rates.reason is not None for d in short)
    step = next_stage(Bench(sweep_concurrency=[8, 16, 32, 64]), short)
    assert step is not None
    assert step.load.concurrency == 64


def test_a_rate_that_cannot_be_told_breaks_no_rule_and_decides_no_search() -> None:
    late = [served(Load(rate_per_s=rate), latency_s=20.0) for rate in (10.0, 20.0)]  # a window of 10 s and of 5
    assert all(d.rates.reason is not None for d in late)
    assert next_stage(Bench(sweep_rate=[10, 20, 40]), late) is not None
    search = Bench.model_validate(
        {"search_rate": True, "slo": {"ttft_p99_ms": 60_000}, "search": {"low": 10, "high": 20}}
    )
    assert bracket(search, late) == (20.0, None)


@pytest.mark.parametrize("latency_s", [0.1, 2.0, 12.9])
def test_a_constant_latency_of_any_length_is_kept_up_with(latency_s: float) -> None:
    done = served(Load(rate_per_s=30.0), latency_s, n=int(30 * 7 * latency_s) + 20)
    assert done.rates.kept_up.value == pytest.approx(1)
    assert done.rates.requests.value == pytest.approx(30)
    low, high = done.rates.requests.interval(0.05)
    assert 0.9 * 30 < low < 30 < high < 1.1 * 30


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


def test_failures_count_as_infinite_latencies_and_take_from_what_was_kept_up_with() -> None:
    some = served(Load(rate_per_s=10.0), failing=20)
    assert some.figures.value("latency_p90_ms") == pytest.approx(100.0)
    assert some.figures.value("latency_p99_ms") == np.inf
    assert some.rates.kept_up.value == pytest.approx(0.95, abs=0.01)

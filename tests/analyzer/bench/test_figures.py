"""What a bench says of its requests: exact tests, percentiles with failures, objectives, knees."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analyzer.bench.figures.distributions import (
    binomial_cdf,
    binomial_quantile,
    binomial_sf,
    clopper_pearson,
    t_quantile,
)
from analyzer.bench.figures.quantiles import summarise
from analyzer.bench.figures.schedule import dispersion
from analyzer.bench.figures.slo import MET, MISSED, OPEN, Objective, judge
from analyzer.bench.figures.spread import t_interval
from analyzer.bench.read.request_metrics import chunk_times
from kvt_async.contract.formulas.chunk_encoding import encode_chunks


@given(st.integers(1, 3000), st.floats(0.001, 0.999), st.data())
def test_binomial_tails_are_scipys(n: int, p: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    assert binomial_cdf(k, n, p) == pytest.approx(stats.binom.cdf(k, n, p), abs=1e-9)
    assert binomial_sf(k, n, p) == pytest.approx(stats.binom.sf(k, n, p), abs=1e-9)
    assert binomial_cdf(binomial_quantile(0.9, n, p), n, p) >= 0.9 - 1e-9


@given(st.integers(1, 400), st.floats(0.55, 0.9995))
def test_students_t_is_scipys(df: int, level: float) -> None:
    assert t_quantile(level, df) == pytest.approx(stats.t.ppf(level, df), rel=1e-8)


@given(st.integers(0, 50), st.integers(1, 50))
def test_a_shares_interval_is_scipys_exact_one(hits: int, more: int) -> None:
    n = hits + more
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(hits, n, 0.05) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.lists(st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(0, 70_000)), max_size=20), max_size=8))
def test_chunk_times_are_the_offsets_that_were_stored(replies: list[list[tuple[int, int]]]) -> None:
    rising = [[(sum(gap for gap, _ in reply[: i + 1]), chars) for i, (_, chars) in enumerate(reply)]
              for reply in replies]  # fmt: skip
    found = chunk_times([encode_chunks(reply) for reply in rising])
    assert [times.tolist() for times in found] == [[us / 1e6 for us, _ in reply] for reply in rising]


def test_a_reply_without_chunks_has_no_times() -> None:
    assert [times.tolist() for times in chunk_times([None, b"", encode_chunks([(5, 1)])])] == [[], [], [5e-6]]


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=200))
def test_percentiles_of_survivors_are_numpys(values: list[float]) -> None:
    found = summarise(np.array(values))
    assert found.quantiles["p99"] == pytest.approx(np.quantile(values, 0.99), abs=1e-9)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)


def test_failures_are_beyond_every_value_in_the_second_percentiles() -> None:
    found = summarise(np.arange(1.0, 99.0), n_failed=2)  # 98 answered, 2 failed
    assert (found.n, found.n_failed, found.maximum) == (98, 2, 98.0)
    assert found.quantiles["p99"] == pytest.approx(97.03)
    assert found.censored["p95"] == pytest.approx(95.05)
    assert found.censored["p99"] == math.inf
    assert found.stat("mean", with_failures=True) == math.inf
    assert found.stat("mean") == pytest.approx(49.5)


def test_nothing_answered_is_nan_and_with_failures_infinite() -> None:
    found = summarise(np.empty(0), n_failed=3)
    assert math.isnan(found.quantiles["p50"])
    assert found.censored["p50"] == math.inf
    assert math.isnan(summarise(np.empty(0)).censored["p50"])


def test_a_weighted_percentile_counts_each_value_so_often() -> None:
    repeated = np.repeat([1.0, 2.0, 10.0], [5, 4, 1])
    found = summarise(np.array([1.0, 2.0, 10.0]), weights=np.array([5.0, 4.0, 1.0]))
    assert found.mean == pytest.approx(repeated.mean())
    assert (found.quantiles["p50"], found.quantiles["p99"]) == (1.0, 10.0)


def test_the_mean_of_repeats_has_students_interval() -> None:
    values = np.array([1.0, 2.0, 4.0])
    expected = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert t_interval(values, 0.05) == pytest.approx(expected)
    assert math.isnan(t_interval(values[:1], 0.05)[0])


P99 = Objective.of("ttft_p99_ms", 500)


@pytest.mark.parametrize(
    ("fast", "slow", "failed", "verdict"),
    [
        (367, 0, 0, OPEN),  # one short of what a proof takes
        (368, 0, 0, MET),
        (360, 0, 10, MISSED),  # failures are beyond every limit
        (1000, 4, 0, OPEN),
        (1000, 30, 0, MISSED),
        (3, 0, 0, OPEN),
    ],
)
def test_an_objective_is_proven_by_counting_who_is_beyond_it(fast: int, slow: int, failed: int, verdict: str) -> None:
    finding = judge(P99, np.array([0.1] * fast + [0.9] * slow), failed, 0.05)
    assert finding.verdict == verdict
    assert finding.n_beyond == slow + failed


def test_what_a_proof_takes_is_said() -> None:
    assert judge(P99, np.full(100, 0.1), 0, 0.05).n_needed == 368
    assert judge(P99, np.full(100, 0.9), 0, 0.05).n_needed is None


def test_false_proofs_are_as_rare_as_alpha_says() -> None:
    """The true p90 lies exactly on the limit: neither claim may be made more often than alpha / 2."""
    dice, verdicts = np.random.default_rng(2), []
    limit = Objective.of("latency_p90_s", -math.log(0.1))
    for _ in range(3000):
        verdicts.append(judge(limit, dice.exponential(size=200), 0, 0.05).verdict)
    assert verdicts.count(MET) / 3000 <= 0.025 + 0.009
    assert verdicts.count(MISSED) / 3000 <= 0.025 + 0.009


def test_gaps_of_one_reply_do_not_count_as_many_requests() -> None:
    gaps = np.full(100_000, 0.01)
    assert judge(Objective.of("itl_p99_ms", 50), gaps, 0, 0.05, units=20).verdict == OPEN
    assert judge(Objective.of("itl_p99_ms", 50), gaps, 0, 0.05, units=400).verdict == MET


@pytest.mark.parametrize(("shape", "expected"), [(1.0, 1.0), (0.25, 4.0), (1e6, 0.0)])
def test_dispersion_tells_poisson_from_bursts_from_a_steady_beat(shape: float, expected: float) -> None:
    gaps = np.random.default_rng(3).gamma(shape, 1e9 / shape, 200_000)
    # cells of four arrivals see most, not all, of a burst
    assert dispersion(np.cumsum(gaps)) == pytest.approx(expected, rel=0.35, abs=0.05)

"""Arrival schedules: reproducible, prefix-stable, and of the distribution they claim."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kvt_async.bench.arrivals import n_within, offsets_ns, unit_gaps
from kvt_async.bench.load_steps import Load

POISSON = Load(rate_per_s=50.0)


def dispersion(offsets: np.ndarray, width_ns: float, windows: int) -> float:
    """Variance over mean of the counts in equal windows: 1 for a Poisson process."""
    counts = np.histogram(offsets, bins=windows, range=(0, width_ns * windows))[0]
    return float(counts.var() / counts.mean())


def test_poisson_gaps_are_exponential_and_their_counts_have_dispersion_one_over_4000_windows() -> None:
    offsets = offsets_ns(POISSON, 45_000, (7,))
    gaps = np.diff(offsets) / 1e9 * 50
    assert stats.kstest(gaps, "expon").pvalue > 0.01
    assert dispersion(offsets, 0.2e9, 4000) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("shape", [0.25, 4.0])
def test_gamma_gaps_have_the_asked_burstiness(shape: float) -> None:
    gaps = unit_gaps(Load(rate_per_s=1.0, arrival="gamma", burstiness=shape), 40_000, (3,))
    assert stats.kstest(gaps, "gamma", args=(shape, 0, 1 / shape)).pvalue > 0.01
    assert gaps.var() == pytest.approx(1 / shape, rel=0.1)


def test_constant_gaps_are_all_equal() -> None:
    offsets = offsets_ns(Load(rate_per_s=8.0, arrival="constant"), 5, (1,))
    assert offsets.tolist() == [125_000_000, 250_000_000, 375_000_000, 500_000_000, 625_000_000]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9000), st.integers(0, 9000), st.integers(0, 2**40), st.floats(0.01, 1e5))
def test_a_longer_schedule_begins_with_the_shorter_one_and_never_goes_back(
    n: int, more: int, seed: int, rate: float
) -> None:
    load = Load(rate_per_s=rate)
    whole = offsets_ns(load, n + more, (seed, 1))
    assert whole[:n].tolist() == offsets_ns(load, n, (seed, 1)).tolist()
    assert (np.diff(whole) >= 0).all()


def test_two_rates_meet_the_same_pattern_and_two_repeats_different_ones() -> None:
    slow, fast = (offsets_ns(Load(rate_per_s=rate), 100, (5, 0)) for rate in (10.0, 20.0))
    assert np.abs(slow - 2 * fast).max() <= 2
    assert offsets_ns(POISSON, 100, (5, 0)).tolist() != offsets_ns(POISSON, 100, (5, 1)).tolist()


@settings(deadline=None, max_examples=30)
@given(st.floats(0.5, 500), st.integers(0, 50), st.floats(0.1, 20), st.integers(0, 1000))
def test_a_duration_holds_exactly_the_arrivals_that_are_due_within_it(
    rate: float, warm_up: int, duration_s: float, seed: int
) -> None:
    load = Load(rate_per_s=rate)
    n = n_within(load, warm_up, duration_s, (seed,))
    offsets = offsets_ns(load, warm_up + n + 1, (seed,))
    assert n >= 1
    assert offsets[warm_up + n] - offsets[warm_up] > duration_s * 1e9 - 1
    assert n == 1 or offsets[warm_up + n - 1] - offsets[warm_up] <= duration_s * 1e9

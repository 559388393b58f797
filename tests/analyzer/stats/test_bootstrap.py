"""The joint bootstrap against scipy's, and what makes it paired and repeatable."""

import os
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analyzer.stats import bootstrap
from analyzer.stats.bootstrap import Columns, draw_counts, mean_of_bins, percentile_interval, resample_means

RNG = np.random.default_rng(11)


def columns(values: npt.ArrayLike, cluster: npt.ArrayLike | None = None) -> Columns:
    value = np.asarray(values, dtype=float)
    return Columns(value, np.arange(len(value)) if cluster is None else np.asarray(cluster))


def test_interval_of_a_mean_is_scipys_within_monte_carlo_error() -> None:
    score = RNG.beta(2, 2, 60)
    ours = percentile_interval(resample_means(columns(score[:, None]), 20_000, 1337, 0)[:, 0], 0.05)
    theirs = stats.bootstrap((score,), np.mean, n_resamples=20_000, method="percentile", rng=5).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=4e-3)


def test_differences_between_columns_are_paired() -> None:
    full = RNG.random(80)
    below = full - 0.3  # the very same examples, each 0.3 worse
    means = resample_means(columns(np.stack([full, below], axis=1)), 400, 1, 0)
    assert np.ptp(means[:, 0]) > 0.05
    assert means[:, 0] - means[:, 1] == pytest.approx(0.3)


def test_another_column_changes_nothing_in_the_first() -> None:
    score = RNG.random((30, 1))
    alone = resample_means(columns(score), 200, 1337, 2)
    together = resample_means(columns(np.concatenate([score, RNG.random((30, 3))], axis=1)), 200, 1337, 2)
    assert np.array_equal(alone[:, 0], together[:, 0])


def test_examples_of_one_context_are_drawn_together() -> None:
    score = np.repeat(RNG.random(12), 5)  # five identical questions per context
    by_context = resample_means(columns(score[:, None], np.arange(60) // 5), 3000, 1, 0)
    apart = resample_means(columns(score[:, None]), 3000, 1, 0)
    assert by_context.std() / apart.std() == pytest.approx(np.sqrt(5), rel=0.1)


def test_missing_scores_are_left_out_and_an_empty_column_is_nan() -> None:
    score = np.array([[1.0, np.nan], [0.0, np.nan], [np.nan, np.nan]])
    means = resample_means(columns(score), 200, 1, 0)
    assert set(np.unique(means[~np.isnan(means[:, 0]), 0])) <= {0.0, 0.5, 1.0, round(1 / 3, 12), round(2 / 3, 12)}
    assert np.isnan(means[:, 1]).all()


@given(st.integers(1, 40), st.integers(1, 30))
def test_every_resample_draws_as_many_as_there_are(units: int, rows: int) -> None:
    counts = draw_counts(np.random.default_rng(units), rows, units)
    assert counts.shape == (rows, units)
    assert (counts.sum(axis=1) == units).all()


def test_every_unit_is_drawn_equally_often_and_counts_vary_as_a_multinomials_do() -> None:
    counts = draw_counts(np.random.default_rng(5), 20_000, 50)
    assert counts.mean(axis=0) == pytest.approx(np.ones(50), abs=0.03)
    assert counts.var(axis=0) == pytest.approx(np.full(50, 1 - 1 / 50), abs=0.06)


def test_bins_weigh_equally_and_an_empty_bin_is_left_out() -> None:
    a, b, empty = np.full((4, 1), 1.0), np.full((4, 1), 0.0), np.full((4, 1), np.nan)
    assert mean_of_bins([a, b, empty]) == pytest.approx(np.full((4, 1), 0.5))


def test_the_number_of_blas_threads_changes_no_digit() -> None:
    code = (
        "import numpy as np, hashlib; from analyzer.stats.bootstrap import Columns, resample_means;"
        "r = np.random.default_rng(3); v = r.random((700, 12));"
        "m = resample_means(Columns(v, np.arange(700)), 800, 1337, 0);"
        "print(hashlib.sha256(np.round(m, 9).tobytes()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"OPENBLAS_NUM_THREADS": n, "OMP_NUM_THREADS": n, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for n in ("1", "2")
    }
    assert len(seen) == 1


def test_a_kept_draw_is_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = columns(np.random.default_rng(5).random((300, 1)))
    kept = [resample_means(scores, 700, 3, 1), resample_means(scores, 700, 3, 1)]
    monkeypatch.setattr(bootstrap, "_KEPT_CELLS", 0)
    anew = resample_means(scores, 700, 3, 1)
    assert all(np.array_equal(each, anew) for each in kept)

"""One joint, paired, seeded bootstrap; the only randomness of the analysis.

Contexts (clusters of examples that share one) are resampled with replacement within each bin, the same resample for
every column: every run, series and metric. So differences between columns are paired without asking, and adding a
column changes no other. Counts come from integers and bincount, means from one matrix product, in chunks that bound
memory. A bin of more than 2,048 contexts is first dealt into 2,048 groups of them at random, and groups are resampled:
the same variance (its estimate within about 3%), at a cost that no longer grows. Figures are rounded to 12 decimals,
so the number of BLAS threads changes no printed digit.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_CHUNK_CELLS = 25_000  # resample x cluster counts at once: they stay in the cache, too few for BLAS to thread
_PRODUCT_CELLS = 262_144  # rows x clusters x columns: beyond it BLAS starts threads, which mostly wait
_MAX_UNITS = 2_048
_KEPT_CELLS = 6_000_000  # resample x cluster counts of a bin that are kept: 12 MB


@dataclass(frozen=True)
class Columns:
    """What is averaged in one bin: value [n, k] with NaN where an example has none; cluster [n] = its context."""

    value: Floats
    cluster: npt.NDArray[np.int64]


def resample_means(columns: Columns, resamples: int, seed: int, bin_idx: int) -> Floats:
    """Means of each column over `resamples` resamples of the bin's clusters: [resamples, k].

    NaN where a resample holds no value of a column. The draw depends on (seed, bin_idx) and the number of clusters.
    """
    present = ~np.isnan(columns.value)
    _, unit = np.unique(columns.cluster, return_inverse=True)
    n_units = int(unit.max()) + 1 if len(unit) else 0
    k = columns.value.shape[1]
    if n_units == 0:
        return np.full((resamples, k), np.nan)
    rng, kept = np.random.default_rng([seed, bin_idx]), None
    if n_units * resamples <= _KEPT_CELLS and n_units <= _MAX_UNITS:
        kept = _kept_counts(seed, bin_idx, resamples, n_units)
    if n_units > _MAX_UNITS:
        group = rng.permutation(n_units) % _MAX_UNITS
        unit, n_units = group[unit], _MAX_UNITS
    patterns, pattern_of = _patterns(present)
    total = _sum_by(unit, np.where(present, columns.value, 0.0), n_units)
    size = _sum_by(unit, patterns.astype(np.float64), n_units)
    both = np.concatenate([total, size], axis=1)
    sums = np.empty((resamples, both.shape[1]))
    chunk = _chunk(n_units)
    at_once = max(1, _PRODUCT_CELLS // both.size)
    for start in range(0, resamples, chunk):
        part = sums[start : start + chunk]
        again = None if kept is None else kept[start : start + chunk].astype(np.float64)
        counts = draw_counts(rng, len(part), n_units) if again is None else again
        for row in range(0, len(part), at_once):
            np.matmul(counts[row : row + at_once], both, out=part[row : row + at_once])
    drawn = sums[:, k:] if patterns.shape[1] == 1 else sums[:, k:][:, pattern_of]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.round(sums[:, :k] / drawn, 12)


@lru_cache(maxsize=8)
def _kept_counts(seed: int, bin_idx: int, resamples: int, n_units: int) -> npt.NDArray[np.uint16]:
    """Every draw of a bin, [resamples, n_units], kept for other tasks that have as many contexts in it."""
    rng, chunk = np.random.default_rng([seed, bin_idx]), _chunk(n_units)
    parts = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    return np.concatenate([draw_counts(rng, rows, n_units).astype(np.uint16) for rows in parts])


def _patterns(present: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Distinct columns of present [n, k]: [n, p]; and which of them each column is: [k]."""
    if present.all():
        return present[:, :1], np.zeros(present.shape[1], dtype=np.int64)
    patterns, pattern_of = np.unique(present, axis=1, return_inverse=True)
    return patterns, pattern_of.ravel()


def _chunk(n_units: int) -> int:
    """Resamples drawn at once: part of the draw's definition, in which columns play no part."""
    return max(1, _CHUNK_CELLS // n_units)


def draw_counts(rng: np.random.Generator, rows: int, n_units: int) -> Floats:
    """How often each of at most 65,535 units is drawn: [rows, n_units]; every row, a resample, sums to n_units."""
    draw = (
        rng.integers(0, n_units, size=(rows, n_units), dtype=np.uint16) + np.arange(0, rows * n_units, n_units)[:, None]
    )
    return np.bincount(draw.ravel(), minlength=rows * n_units).reshape(rows, n_units).astype(np.float64)


def percentile_interval(replicates: Floats, alpha: float) -> tuple[float, float]:
    """Percentile interval of one column's replicates; NaN without any."""
    finite = np.sort(replicates[~np.isnan(replicates)])  # sorting is quicker than np.quantile's partition
    if not len(finite):
        return float("nan"), float("nan")
    return _quantile(finite, alpha / 2), _quantile(finite, 1 - alpha / 2)


def mean_of_bins(per_bin: list[Floats]) -> Floats:
    """Equal-weight mean over bins of [resamples, k] replicates; a bin without values of a column is left out of it."""
    whole = sum(per_bin[1:], start=per_bin[0])
    if not np.isnan(whole).any():
        return np.asarray(whole / len(per_bin))
    total = np.zeros_like(per_bin[0])
    count = np.zeros_like(per_bin[0])
    for replicates in per_bin:
        present = ~np.isnan(replicates)
        np.add(total, replicates, out=total, where=present)
        count += present
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.nan)


def _quantile(rising: Floats, share: float) -> float:
    """Linear between order statistics, as np.quantile."""
    at = share * (len(rising) - 1)
    low = min(int(at), len(rising) - 2) if len(rising) > 1 else 0
    high = min(low + 1, len(rising) - 1)
    return float(rising[low] + (rising[high] - rising[low]) * (at - low))


def _sum_by(unit: npt.NDArray[np.int64], value: Floats, n_units: int) -> Floats:
    """Sum rows of value [n, k] by unit: [n_units, k]."""
    order = np.argsort(unit, kind="stable")
    starts = np.searchsorted(unit[order], np.arange(n_units))
    return np.add.reduceat(value[order], starts, axis=0)

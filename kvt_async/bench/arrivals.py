"""When requests are due in open loop: computed once, from a seed, before anything is sent.

Gaps have mean 1 / rate: all equal (constant), exponential (poisson), or gamma of shape `burstiness`, whose squared
coefficient of variation is 1 / burstiness. One seed gives the same pattern at every rate, only stretched, so that two
rates, or two servers, meet the same bursts.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kvt_async.bench.load_steps import Load
from kvt_async.contract.formulas.shape_times import due_at

_BLOCK = 4096


def unit_gaps(load: Load, n: int, seed: tuple[int, ...]) -> NDArray[np.float64]:
    """`n` gaps of mean 1; the first n of a longer draw are the same."""
    if load.arrival == "constant":
        return np.ones(n)
    parts = []
    for block in range(-(-n // _BLOCK)):  # a block has its own stream, so that a prefix never depends on n
        rng = np.random.default_rng([*(value % 2**32 for value in seed), block])
        if load.arrival == "poisson":
            parts.append(rng.standard_exponential(_BLOCK))
        else:
            parts.append(rng.standard_gamma(load.burstiness, _BLOCK) / load.burstiness)
    return np.concatenate(parts)[:n] if parts else np.empty(0)


def offsets_ns(load: Load, n: int, seed: tuple[int, ...]) -> NDArray[np.int64]:
    """Due times of `n` requests in ns from the stage's start, rising; the first one is due after its gap."""
    assert load.rate_per_s is not None
    return np.rint(np.cumsum(unit_gaps(load, n, seed)) / load.rate_per_s * 1e9).astype(np.int64)


def shape_begins_s(load: Load, n_warm_up: int, seed: tuple[int, ...]) -> float:
    """When the shape of a load begins, seconds from the stage's start: with the last request that warms up."""
    assert load.shape is not None
    return 0.0 if n_warm_up == 0 else float(unit_gaps(load, n_warm_up, seed).sum()) / load.shape.first


def shaped_offsets_ns(
    load: Load, n_warm_up: int, seqs: Sequence[int], seed: tuple[int, ...], *, resumes: bool = False
) -> NDArray[np.int64]:
    """Due times in ns of a window's warm-up and of its measured requests `seqs`, numbered from 0 in the order of the
    shape. A window that resumes begins where the first of them has its place, after a warm-up at the rate there."""
    assert load.shape is not None
    units = np.cumsum(unit_gaps(load, n_warm_up + (seqs[-1] + 1 if len(seqs) else 0), seed))
    warm = units[:n_warm_up]
    due = due_at(load.shape, units[n_warm_up:] - (warm[-1] if n_warm_up else 0.0))[np.asarray(seqs, dtype=np.int64)]
    begun, rate = 0.0, load.shape.first
    if resumes and len(seqs) and seqs[0] > 0:
        before = units[n_warm_up + seqs[0] - 1] - (warm[-1] if n_warm_up else 0.0)
        begun = float(due_at(load.shape, np.array([before]))[0])
        rate = load.shape.size_at(begun)
    warm = warm / rate if n_warm_up else warm
    seconds = np.concatenate((warm, (warm[-1] if n_warm_up else 0.0) + due - begun))
    return np.rint(seconds * 1e9).astype(np.int64)


def n_in_shape(load: Load, n_warm_up: int, seed: tuple[int, ...]) -> int:
    """How many measured requests are due within the shape of a load; at least one."""
    assert load.shape is not None
    n = n_warm_up + int(load.shape.area * 1.2) + 64
    while True:
        units = np.cumsum(unit_gaps(load, n, seed))
        end = load.shape.area + (units[n_warm_up - 1] if n_warm_up else 0.0)
        if units[-1] > end:
            return max(1, int(np.searchsorted(units, end, side="right")) - n_warm_up)
        n *= 2


def n_within(load: Load, n_warm_up: int, duration_s: float, seed: tuple[int, ...]) -> int:
    """How many measured requests are due within `duration_s` of the first of them; at least one."""
    assert load.rate_per_s is not None
    n = n_warm_up + int(load.rate_per_s * duration_s * 1.2) + 64
    while True:
        offsets = offsets_ns(load, n, seed)
        end = offsets[n_warm_up] + int(duration_s * 1e9)
        if offsets[-1] > end:
            return max(1, int(np.searchsorted(offsets, end, side="right")) - n_warm_up)
        n *= 2

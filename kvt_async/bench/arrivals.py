"""When requests are due in open loop: computed once, from a seed, before anything is sent.

Gaps have mean 1 / rate: all equal (constant), exponential (poisson), or gamma of shape `burstiness`, whose squared
coefficient of variation is 1 / burstiness. One seed gives the same pattern at every rate, only stretched, so that two
rates, or two servers, meet the same bursts.
"""

import numpy as np
from numpy.typing import NDArray

from kvt_async.bench.load_steps import Load

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

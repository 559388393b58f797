"""The largest loss that the data leave possible, and the share of full cache's score that was lost.

A bound belongs to the test that proves safety: the loss is below m for every margin m that test would have passed, so
"no more than U is lost" and "less than m is lost, since U < m" never contradict each other.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from analyzer.stats.margin import Margin, MarginKind
from analyzer.stats.paired_tests import Units
from analyzer.stats.transition import Bools, Grid, safety_units

_STEPS = 40  # bisections: 1e-12 of the range searched


@dataclass(frozen=True)
class LostShare:
    """(full - here) / full of two means, and its 1 - alpha interval; low is -inf where full cache may score nothing."""

    share: float
    low: float
    high: float


def loss_bound(grid: Grid, full: str, run_id: str, bin_idx: int, *, kind: MarginKind, level: float) -> float:
    """Upper confidence bound at one-sided `level` of the mean drop, or of the share lost: the least margin of `kind` at
    which p_safe is at most the level. 1.0 without pairs."""
    if kind == "absolute":
        bounds = [units.upper(level) for units in safety_units(grid, full, run_id, bin_idx, Margin(0.5))]
        return 1.0 if any(np.isnan(bounds)) else max(bounds)

    def is_safe(rho: float) -> bool:
        margin = Margin(rho, "relative")
        return all(u.p_drop_at_least(rho) <= level for u in safety_units(grid, full, run_id, bin_idx, margin))

    return _first(is_safe, *_reach(is_safe))


def lost_share(grid: Grid, full: str, run_id: str, bin_idx: int, alpha: float) -> LostShare | None:
    """The share lost over the pairs that have both scores; None without any, or where full cache scored 0.

    Its interval holds every share that neither one-sided relative test at alpha/2 rejects (Fieller's question, answered
    by the bounded test in place of the normal one): both p values move one way in the share, so it is an interval.
    """
    paired = grid.rows(bin_idx) & ~np.isnan(grid.score[full] - grid.score[run_id])
    mean_full, mean_here = (grid.units(grid.score[run], paired).mean for run in (full, run_id))
    if not paired.any() or mean_full <= 0:
        return None
    share = (mean_full - mean_here) / mean_full

    def is_less(rho: float) -> bool:
        return _units(grid, full, run_id, paired, rho).p_drop_at_least(rho) <= alpha / 2

    def is_not_more(rho: float) -> bool:
        return _units(grid, full, run_id, paired, rho).p_drop_at_most(rho) > alpha / 2

    return LostShare(share, _first(is_not_more, *_reach(is_not_more)), _first(is_less, *_reach(is_less)))


def _units(grid: Grid, full: str, run_id: str, paired: Bools, rho: float) -> Units:
    margin = Margin(rho, "relative")
    return replace(grid.units(margin.judged(grid.score[full], grid.score[run_id]), paired), lowest=margin.lowest)


def _reach(holds: Callable[[float], bool]) -> tuple[float, float]:
    """Where to search for the share from which on `holds` holds: below 1, and below 0 where gains reach so far."""
    low = -1.0
    while low > -1e6 and holds(low):
        low *= 4
    return low, 1.0


def _first(holds: Callable[[float], bool], low: float, high: float) -> float:
    if holds(low):
        return float("-inf")
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high

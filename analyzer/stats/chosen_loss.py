"""The paired loss over some of the answers, chosen one by one.

An example weighs as much with one chosen answer as with all of them; lengths aren't weighted, since how many answers of
a length bin are chosen is part of what is seen. Interval and p values are those of any drop (paired_tests.py). They are
about the answers that were chosen, whatever chose them: chosen by how they came out here, they compare a group that the
level itself made; chosen by how they came out at full cache, one that it can't have made.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analyzer.stats.paired_tests import Units

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ChosenLoss:
    """Answers and contexts that were chosen, the mean of full minus here over them, and its interval."""

    n: int
    contexts: int
    drop: float
    low: float
    high: float


def chosen_loss(full: Floats, here: Floats, chosen: Bools, cluster: Ints, alpha: float) -> ChosenLoss | None:
    """Of scores and choices [examples, answers], NaN where there is no score; cluster [examples] numbers contexts.

    None where no chosen answer is scored on both sides.
    """
    loss = np.where(chosen, full - here, np.nan)
    known = ~np.isnan(loss).all(axis=1)
    if not known.any():
        return None
    value = np.nanmean(loss[known], axis=1)
    units = Units.of(value, cluster[known], np.zeros(len(value), dtype=np.int64))
    low, high = units.interval(alpha)
    return ChosenLoss(int((~np.isnan(loss)).sum()), len(units.drop), units.mean, low, high)

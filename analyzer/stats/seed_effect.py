"""Does a server keep to its seeds? Told from two repeats of full cache: one with the same seeds, one with others.

Answers with the same seed differ by the server's own noise, answers with another seed by sampling as well. Where a seed
is ignored both differ alike. What is asked is which share of the differences goes away with the same seed. That is the
question of a relative margin (margin.py): with other seeds' differences in full cache's place and the same seed's in
the budget's, "less than a fifth goes away" is "less than a fifth is lost".
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analyzer.stats.loss_bound import LostShare, lost_share
from analyzer.stats.margin import Margin
from analyzer.stats.transition import Grid, against_full, more_pairs
from kvt_async.contract.vocabulary import SeedVerdict

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST_SHARE = 0.2  # of the differences: a seed that takes away less than that is ignored


@dataclass(frozen=True)
class SeedEffect:
    """How often answers differ from full cache's with the same and with other seeds: server noise, sampling noise.

    removed: the share of the differences that the same seed takes away, with its interval; None where nothing differs.
    n_needed: examples that would tell in 4 of 5 experiments, were what is seen true; None: none needed, or a guess.
    """

    n: int
    same: float
    other: float
    removed: LostShare | None
    verdict: SeedVerdict
    n_needed: int | None = None


def seed_effect(same: Floats, other: Floats, cluster: Ints, bin_idx: Ints, *, alpha: float) -> SeedEffect:
    """Of same [n] and other [n]: the share of an example's answers that differ from full cache's first run, NaN where
    that isn't known. cluster [n] numbers contexts, which are the units; bins weigh equally.

    Kept and ignored are each tested at one-sided alpha/2, and only one of them can be proven.
    """
    grid = Grid({"other": other, "same": same}, bin_idx, cluster)
    known = ~np.isnan(same - other)
    mean_same, mean_other = (grid.units(each, known).mean for each in (same, other))
    margin = Margin(LEAST_SHARE, "relative")
    test = against_full(grid, "other", "same", 0.0, -1, margin=margin, alpha=None)
    removed = lost_share(grid, "other", "same", -1, alpha)
    needed = None
    if not known.any():
        verdict = SeedVerdict.CANNOT_TELL
    elif mean_other == 0 and mean_same == 0:
        verdict = SeedVerdict.NOTHING_DIFFERS
    elif test.p_safe <= alpha / 2:
        verdict = SeedVerdict.IGNORED
    elif test.p_broken <= alpha / 2:
        verdict = SeedVerdict.KEPT
    else:
        verdict = SeedVerdict.CANNOT_TELL
        needed = more_pairs(test, alpha / 2, margin=LEAST_SHARE)
    return SeedEffect(int(known.sum()), mean_same, mean_other, removed, verdict, needed)

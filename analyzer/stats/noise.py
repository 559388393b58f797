"""The A/A control: full cache run again. What differs between its repeats is noise, not the budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from analyzer.stats.transition import BudgetTest


@dataclass(frozen=True)
class Noise:
    """What repeats of full cache show: pairs, units (contexts), how many pairs changed their score, the largest drop.

    square: mean square of one unit's drop; variance: of the overall drop, as the units' weights made it, times units.
    """

    repeats: int
    n: int
    units: int
    flips: int
    drop: float
    square: float
    variance: float

    def explains(self, test: BudgetTest, alpha: float) -> bool:
        """Whether noise alone would give a drop of this size, in either direction, in 1 - alpha of cases.

        The larger of two variances: as the repeats' units had it, weights and contexts included, and as it were if
        every unit flipped as often as all do together, since heavy units are few and may not have flipped by chance.
        Student's t at as many degrees of freedom as contexts flipped if their questions do so together, since few
        flips are a guess at their rate.
        """
        if not self.flips or not test.n:
            return False
        variance = max(self.variance / test.n_clusters, self.square / test.kish)
        freedom = max(1, round(self.flips * self.units / self.n))
        return abs(test.drop) <= _student(1 - alpha / 2, freedom) * sqrt(variance)


def noise(repeats: Sequence[BudgetTest]) -> Noise | None:
    """Noise over all A/A repeats of one bin; None when there is none."""
    seen = [test for test in repeats if test.n]
    if not seen:
        return None
    flips = sum(test.n_worse + test.n_better for test in seen)
    return Noise(
        len(seen),
        sum(t.n for t in seen),
        sum(t.n_clusters for t in seen),
        flips,
        max((t.drop for t in seen), key=abs),
        square=sum(t.square for t in seen) / len(seen),
        variance=sum(t.spread**2 + t.drop**2 for t in seen) / len(seen),
    )


def _student(share: float, freedom: int) -> float:
    """Quantile of Student's t by Cornish-Fisher's expansion: within 1% from 4 degrees on, too small below."""
    z = NormalDist().inv_cdf(share)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)

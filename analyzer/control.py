"""The A/A control: full cache run again. What differs between its repeats is noise, not the budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from analyzer.transition import BudgetTest


@dataclass(frozen=True)
class Noise:
    """What repeats of full cache show: the share of pairs whose score changed, and the drops themselves."""

    repeats: int
    n: int
    flips: int
    drop: float

    @property
    def flip_rate(self) -> float:
        return self.flips / self.n if self.n else float("nan")

    def explains(self, test: BudgetTest, alpha: float) -> bool:
        """Whether a drop of this size, in either direction, is what the repeats' own flips would give."""
        if not self.flips or not test.n:
            return False
        spread = sqrt(self.flip_rate / test.n)  # each flip moves one pair by at most 1, either way
        return abs(test.drop) <= NormalDist().inv_cdf(1 - alpha / 2) * spread


def noise(repeats: Sequence[BudgetTest]) -> Noise | None:
    """Noise over all A/A repeats of one bin; None when there is none."""
    seen = [test for test in repeats if test.n]
    if not seen:
        return None
    flips = sum(test.n_worse + test.n_better for test in seen)
    return Noise(len(seen), sum(t.n for t in seen), flips, max((t.drop for t in seen), key=abs))

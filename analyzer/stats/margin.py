"""How much may be lost: a margin in score units, or as a share of what full cache scores.

A relative margin rho asks whether a budget keeps more than 1 - rho of full cache's mean, mean(b) > (1 - rho) mean(f).
That is the absolute question about another difference: with d' = f - b + rho (1 - f) the claim is mean(d') < rho, and
d' lies in [rho - 1, 1], so paired_tests.py answers it as it is. What full cache does not get can't be lost, and counts
as lost by the margin: an example it fails says nothing for safety, and a task at its floor is never proven.
"""

from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MarginKind = Literal["absolute", "relative"]


@dataclass(frozen=True)
class Margin:
    """`size` in score units, or as a share of full cache's mean where `kind` is relative; in (0, 1)."""

    size: float
    kind: MarginKind = "absolute"

    @classmethod
    def of(cls, margin: "float | Margin") -> "Margin":
        """A number is an absolute margin."""
        return margin if isinstance(margin, Margin) else cls(margin)

    @property
    def is_relative(self) -> bool:
        return self.kind == "relative"

    @property
    def lowest(self) -> float:
        """The least that judged() can be: an example that full cache fails and the budget answers."""
        return self.size - 1 if self.is_relative else -1.0

    def judged(self, full: Floats, here: Floats) -> Floats:
        """What is compared with `size`, of scores in [0, 1]: the drop, or d' (module's docstring). Same shape."""
        drop = full - here
        return drop + self.size * (1 - full) if self.is_relative else drop

    @overload
    def at(self, full_mean: float) -> float: ...
    @overload
    def at(self, full_mean: Floats) -> Floats | float: ...
    def at(self, full_mean: float | Floats) -> Floats | float:
        """The margin in score units where full cache scores `full_mean`: where charts draw its line below full."""
        return self.size * full_mean if self.is_relative else self.size

"""How examples lie in contexts and bins, as far as a plan needs it: how many units of which weight."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analyzer.stats.paired_tests import Units

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_MOST_GROUPS = 8  # of unequal weights; more cost time and change no digit that is printed


@dataclass(frozen=True)
class Layout:
    """`count` [g] units (contexts) of each `weight` [g], mean 1, that hold `examples` examples in `bins` bins."""

    weight: Floats
    count: Ints
    examples: int
    bins: int = 1

    @classmethod
    def even(cls, examples: int, bins: int = 1) -> "Layout":
        """Every example has a context of its own, every bin as many."""
        return cls(np.ones(1), np.array([examples]), examples, bins)

    @classmethod
    def of(cls, cluster: Ints, bin_idx: Ints, task: Ints | None = None) -> "Layout":
        """Of a manifest: cluster [n] numbers each example's context, bin_idx [n] its bin. Of several: contexts and bins
        numbered over all of them, and task [n] each example's task."""
        weight = np.sort(np.round(Units.of(np.zeros(len(cluster)), cluster, bin_idx, task).weight, 9))
        distinct, count = np.unique(weight, return_counts=True)
        if len(distinct) > _MOST_GROUPS:  # the heaviest stay alone: the imagined unit is as heavy as they are
            light, heavy = weight[weight < distinct[-1]], weight[weight == distinct[-1]]
            parts = [part for part in np.array_split(light, _MOST_GROUPS - 1) if len(part)] + [heavy]
            distinct, count = np.array([part.mean() for part in parts]), np.array([len(part) for part in parts])
        return cls(distinct, count, len(cluster), len(np.unique(bin_idx)))

    @property
    def contexts(self) -> int:
        return int(self.count.sum())

    def grown(self, examples: int) -> "Layout":
        """The same with about so many examples: every bin alike, contexts as large as they are."""
        count = np.maximum(1, np.round(self.count * (examples / self.examples))).astype(np.int64)
        return Layout(self.weight, count, examples, self.bins)

    def least(self, margin: float, level: float) -> int:
        """Examples that prove "drop < margin" at one-sided `level` where nothing is lost; whole contexts in every bin.

        72 contexts at 0.05 and 2.5%, 75 in five bins.
        """
        contexts = -math.log(level) / self._proof(margin) * self.contexts
        per_bin = math.ceil(contexts / self.bins - 1e-9)
        return math.ceil(per_bin * self.bins * self.examples / self.contexts - 1e-9)

    def reach(self, level: float) -> float:
        """The least margin that can be proven at one-sided `level`, where nothing is lost: 1 - level^(1/n) of n equal
        contexts."""
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if self._proof(middle) >= -math.log(level) else (middle, high)
        return high

    def _proof(self, margin: float) -> float:
        """-log of the p value of "drop >= margin" where nothing is lost."""
        return float(self.count @ np.log1p(margin / (1 - margin) * self.weight / self.weight.max()))

    def rounded(self, examples: int) -> int:
        """The next number that every bin has an equal share of."""
        return -(-examples // self.bins) * self.bins

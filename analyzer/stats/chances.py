"""The chance that an experiment which isn't made yet will prove something: drawn, and put through the verdict's tests.

Answers are 0 or 1 and flip by noise; questions of one context flip together, the k answers to one question each by
itself. So an example's drop is a multiple of 1/k, and a whole experiment a few counts of units with each drop.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from analyzer.stats.paired_tests import each_positive
from analyzer.stats.sample_layout import Layout

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DRAWS = 1000
POWER = 0.8
_SIZES = (25, 30, 40, 50, 60, 75, 100, 125, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800, 1000, 1250, 1500)
_LARGE = (2000, 3000, 5000, 10_000)
_MOST_SAMPLES = 16  # more answers change no digit that is printed


@dataclass(frozen=True)
class Chances:
    """Chances that experiments of a layout prove something at one-sided `alpha`, by simulation.

    samples: k answers an example. Where they flip, each does by itself: the noise of a mean falls with their number.
    """

    margin: float
    alpha: float
    seed: int
    draws: int = DRAWS
    samples: int = 1

    def safe(self, layout: Layout, flip_rate: float, budgets: int = 1) -> float:
        """The chance that all of `budgets` budgets without any true drop are proven safe."""
        if budgets == 1:
            return float(self._proven(layout, self._drawn(layout, flip_rate, 0.0), self.margin).mean())
        proven = np.ones(self.draws, dtype=bool)
        for drawn in self._beside(layout, flip_rate, budgets):
            proven &= self._proven(layout, drawn, self.margin)
        return float(proven.mean())

    def loss(self, layout: Layout, flip_rate: float, drop: float) -> float:
        """The chance that a loss is proven where the true drop is `drop`."""
        return float(self._proven(layout, self._drawn(layout, flip_rate, drop), None).mean())

    def smallest_drop(self, layout: Layout, flip_rate: float) -> float | None:
        """Smallest true drop, in steps of 0.01, that is found with a chance of 80%; None: not even 0.9."""
        low, high = 0, 90
        if self.loss(layout, flip_rate, high / 100) < POWER:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            if self.loss(layout, flip_rate, middle / 100) >= POWER:
                high = middle
            else:
                low = middle
        return high / 100

    def needed(self, layout: Layout, flip_rate: float, budgets: int = 1) -> int | None:
        """Examples that prove so many harmless budgets safe with a chance of 80%; None: more than 10,000."""
        least = layout.least(self.margin, self.alpha)
        sizes = [least, *(layout.rounded(n) for n in (*_SIZES, *_LARGE) if n > least)]
        return next((n for n in sizes if self.safe(layout.grown(n), flip_rate, budgets) >= POWER), None)

    @cached_property
    def k(self) -> int:
        return min(self.samples, _MOST_SAMPLES)

    @cached_property
    def drops(self) -> Floats:
        """The drops that a unit can have: [2k + 1], from -1 to 1."""
        return np.arange(-self.k, self.k + 1) / self.k

    def _drawn(self, layout: Layout, flip_rate: float, drop: float) -> Ints:
        """How many units of every draw and group have each drop: [draws, g, 2k + 1]; they are multinomial."""
        flipped = _flipped(self.k, flip_rate)
        noise = np.convolve(flipped, flipped[::-1])  # of here's flipped answers minus full cache's
        chance = noise * (1 - drop)
        chance[-1] += drop
        rng = np.random.default_rng([self.seed, layout.examples])
        return np.stack([rng.multinomial(n, chance, size=self.draws) for n in layout.count], axis=1)

    def _beside(self, layout: Layout, flip_rate: float, budgets: int) -> list[Ints]:
        """The same for several budgets: each run flips answers of its own, and all share the flips of full cache."""
        rng, flipped, k = np.random.default_rng([self.seed, layout.examples]), _flipped(self.k, flip_rate), self.k
        right = rng.binomial(layout.count, 0.5, size=(self.draws, len(layout.count)))
        at_full = [rng.multinomial(n, flipped) for n in (right, layout.count - right)]  # [draws, g, k + 1] each
        draws = []
        for _ in range(budgets):
            counts = np.zeros((*right.shape, 2 * k + 1), dtype=np.int64)
            for f in range(k + 1):  # flipped at full cache, which is one side of the difference
                steady, unsteady = (rng.multinomial(side[..., f], flipped) for side in at_full)
                counts[..., k - f : 2 * k - f + 1] += steady
                counts[..., f : k + f + 1] += unsteady[..., ::-1]
            draws.append(counts)
        return draws

    def _proven(self, layout: Layout, drawn: Ints, margin: float | None) -> npt.NDArray[np.bool_]:
        """Whether less than `margin` is proven lost, or None: whether a loss is, of each draw: [draws].

        The tests are those of Units.p_drop_at_least(margin) and p_drop_at_most(0). Equal draws are tested once.
        """
        outcomes, of = np.unique(drawn.reshape(len(drawn), -1), axis=0, return_inverse=True)
        weight = layout.weight / np.average(layout.weight, weights=layout.count)
        value = np.outer(weight, -self.drops if margin is None else self.drops - margin).ravel()
        worst = weight.max() * (1.0 if margin is None else 1.0 - margin)
        p = each_positive(np.append(value, worst), np.column_stack([outcomes, np.ones(len(outcomes), dtype=np.int64)]))
        return np.asarray(p <= self.alpha)[of.ravel()]


def answer_flips(changed: float, samples: int) -> float:
    """The share of answers that flip between two runs, where the mean of `samples` changed in a share of examples.

    Solved for flips that are alike in all examples; where few of them make most of the flips, there are more.
    """
    if samples == 1:
        return changed
    low, high = 0.0, 0.5
    for _ in range(50):
        middle = (low + high) / 2
        if 1 - float(np.sum(_flipped(samples, middle) ** 2)) < changed:
            low = middle
        else:
            high = middle
    return high


def _flipped(k: int, flip_rate: float) -> Floats:
    """How many of k answers a run flips: chances of 0 ... k, such that two runs differ in flip_rate of the answers."""
    own = (1 - math.sqrt(max(0.0, 1 - 2 * flip_rate))) / 2
    return np.array([math.comb(k, j) * own**j * (1 - own) ** (k - j) for j in range(k + 1)])

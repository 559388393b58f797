"""Before a run: what a config can prove, from an assumed or measured share of answers that flip by noise.

Pairs of 0/1 scores are drawn with the given flips and true drop and put through the very tests of the verdict
(paired_tests.py), over all bins together; seeded, so the same config prints the same plan. Graded scores vary less than
0/1 ones: for them the plan errs on the safe side. So it does where questions share a context: it takes them to flip
together. Several budgets are run against one full cache, whose own flips they share.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analyzer.stats.interim import InterimLook, look_of
from analyzer.stats.intervals import wilson
from analyzer.stats.paired_tests import Units
from analyzer.stats.sample_layout import Layout
from kvt_async.contract.settings import Settings

Facts = dict[str, Any]
Ints = npt.NDArray[np.int64]

DRAWS = 1000
POWER = 0.8
_SIZES = (25, 50, 75, 100, 150, 200, 250, 300, 400, 500, 700, 1000, 1500, 2000, 3000, 5000, 10_000)


ASSUMED_FLIPS = 0.1


@dataclass(frozen=True, slots=True)
class Flips:
    """The share of answers that differ between two runs at full cache: `flips` of `n` pairs, or assumed (n = 0)."""

    rate: float
    flips: int = 0
    n: int = 0
    source: str = ""

    @classmethod
    def measured(cls, flips: int, n: int, source: str) -> "Flips":
        return cls(flips / n, flips, n, source)


def plan(settings: Settings, *, flips: Flips, version: int = 0, layout: Layout | None = None) -> Facts:
    """Chances and sizes for the config's n_bins x n_per_bin examples; `lines` is what a person reads.

    version: of the manifest that was analysed last, 0 before the first; where a manifest grows, the next look counts.
    layout: of the manifest, where there is one; else every example is taken to have a context of its own.
    """
    analysis, binning, flip_rate = settings.analysis, settings.binning, flips.rate
    bins = len(binning.edges) - 1 if binning.edges else binning.n_bins
    this = look_of(settings.sampling.strategy, version + 1)
    level, n = analysis.alpha / 2 * this.share, bins * binning.n_per_bin * this.number
    chances = Chances(analysis.margin, level, analysis.seed)
    whole = layout.grown(n) if layout else Layout.even(n, bins)
    one_bin = whole.grown(n // bins)
    budgets = _budgets(settings)
    found: Facts = {
        "n": n,
        "n_per_bin": n // bins,
        "contexts": whole.contexts,
        "budgets": budgets,
        "flip_rate": flip_rate,
        "flip_rate_source": flips.source or "assumed",
        "level": level,
        "margin": analysis.margin,
        "pairs_without_loss": whole.least(analysis.margin, level),
        "chance_safe": chances.safe(whole, flip_rate),
        "chance_all_safe": chances.safe(whole, flip_rate, budgets),
        "chance_safe_in_a_bin": chances.safe(one_bin, flip_rate),
        "smallest_detectable_drop": chances.smallest_drop(whole, flip_rate),
        "smallest_detectable_drop_in_a_bin": chances.smallest_drop(one_bin, flip_rate),
        "n_needed": chances.needed(whole, flip_rate),
        "n_needed_for_all": chances.needed(whole, flip_rate, budgets),
    }
    if flips.n:
        low, high = wilson(flips.rate, flips.n, analysis.alpha)
        found |= {"flip_rate_low": low, "flip_rate_high": high}
        found["n_needed_at_high"] = chances.needed(whole, high)
    return found | {"lines": _lines(found, bins, flips, this)}


def _budgets(settings: Settings) -> int:
    """Budgets below full cache of the first series."""
    if settings.kv.levels is None:
        return max(1, sum(budget != 1.0 for budget in settings.kv.budgets))
    below = [one for one in settings.kv.levels if one.budget != 1.0]
    return max(1, sum((one.policy, one.params) == (below[0].policy, below[0].params) for one in below))


@dataclass(frozen=True)
class Chances:
    """Chances that experiments of a layout prove something at one-sided `level`, by simulation."""

    margin: float
    level: float
    seed: int
    draws: int = DRAWS

    def safe(self, layout: Layout, flip_rate: float, budgets: int = 1) -> float:
        """That all of `budgets` budgets without any true drop are proven safe."""
        if budgets == 1:
            return self._share(layout, self._drawn(layout, flip_rate, 0.0), self._is_safe)
        proven = np.ones(self.draws, dtype=bool)
        for drawn in self._beside(layout, flip_rate, budgets):
            proven &= self._proven(layout, drawn, self._is_safe)
        return float(proven.mean())

    def loss(self, layout: Layout, flip_rate: float, drop: float) -> float:
        """That a loss is proven where the true drop is `drop`."""
        return self._share(layout, self._drawn(layout, flip_rate, drop), lambda u: u.p_drop_at_most(0.0) <= self.level)

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
        least = layout.least(self.margin, self.level)
        sizes = [least, *(layout.rounded(n) for n in _SIZES if n > least)]
        return next((n for n in sizes if self.safe(layout.grown(n), flip_rate, budgets) >= POWER), None)

    def _is_safe(self, units: Units) -> bool:
        return units.p_drop_at_least(self.margin) <= self.level

    def _drawn(self, layout: Layout, flip_rate: float, drop: float) -> tuple[Ints, Ints]:
        """Worse and better units of every draw and group: [draws, g] each; they are multinomial."""
        noise = flip_rate * (1 - drop) / 2
        rng = np.random.default_rng([self.seed, layout.examples])
        chance = [drop + noise, noise, max(0.0, 1 - drop - 2 * noise)]
        drawn = np.stack([rng.multinomial(n, chance, size=self.draws) for n in layout.count], axis=1)
        return drawn[..., 0], drawn[..., 1]

    def _beside(self, layout: Layout, flip_rate: float, budgets: int) -> list[tuple[Ints, Ints]]:
        """The same for budgets beside each other: each run flips answers of its own, and full cache's count for all."""
        own = (1 - math.sqrt(max(0.0, 1 - 2 * flip_rate))) / 2  # of one run, so that two differ in flip_rate of answers
        rng = np.random.default_rng([self.seed, layout.examples])
        shape = (self.draws, len(layout.count))
        # Answers of full cache: steady or flipped, right or wrong; any accuracy gives as many worse and better.
        flipped = rng.binomial(layout.count, own, size=shape)
        flipped_wrong = rng.binomial(flipped, 0.5)
        steady_right = rng.binomial(layout.count - flipped, 0.5)
        groups = (steady_right, flipped - flipped_wrong, layout.count - flipped - steady_right, flipped_wrong)
        found = []
        for _ in range(budgets):
            right, lucky, wrong, unlucky = (
                rng.binomial(n, p) for n, p in zip(groups, (own, 1 - own, own, 1 - own), strict=True)
            )
            found.append((right + lucky, wrong + unlucky))
        return found

    def _share(self, layout: Layout, drawn: tuple[Ints, Ints], proven: Callable[[Units], bool]) -> float:
        return float(self._proven(layout, drawn, proven).mean())

    def _proven(
        self, layout: Layout, drawn: tuple[Ints, Ints], proven: Callable[[Units], bool]
    ) -> npt.NDArray[np.bool_]:
        """Of which draws `proven` holds: [draws]. Equal draws are tested once."""
        g = len(layout.count)
        outcomes, of = np.unique(np.concatenate(drawn, axis=1), axis=0, return_inverse=True)
        return np.array([proven(layout.units(row[:g], row[g:])) for row in outcomes])[of.ravel()]


def _about(n: int | None) -> str:
    return f"about {n:,}" if n else "more than 10,000"


def _lines(found: Facts, bins: int, flips: Flips, this: InterimLook) -> list[str]:
    rows = [
        (f"one bin, n={found['n_per_bin']}", found["smallest_detectable_drop_in_a_bin"], found["chance_safe_in_a_bin"])
    ]
    if bins > 1:
        rows.insert(0, (f"all {bins} bins, n={found['n']}", found["smallest_detectable_drop"], found["chance_safe"]))
    lines = [f"If {flips.rate:.0%} of answers flip by noise (assumed; the A/A control of a first run measures it):"]
    if flips.n:
        between = f"{found['flip_rate_low']:.0%} to {found['flip_rate_high']:.0%}"
        lines = [
            f"{flips.flips} of {flips.n} answers flipped by noise in the A/A control of {flips.source} "
            f"({flips.rate:.1%}; 95% interval {between}). If that holds:"
        ]
    if found["contexts"] < found["n"]:
        lines.append(
            f"  {found['n']} examples share {found['contexts']} contexts, which count as one each "
            "(their questions are taken to flip together)"
        )
    for where, drop, chance in rows:
        seen = (
            f"a true drop of {drop:.2f} or more is found in 4 of 5 experiments" if drop else "no drop is found reliably"
        )
        lines.append(f"  {where}: {seen}; a budget that loses nothing is proven safe with a chance of {chance:.0%}")
    if found["budgets"] > 1:
        lines.append(
            f"  all {found['budgets']} budgets, if none loses anything, are proven safe with a chance of "
            f"{found['chance_all_safe']:.0%}; in 4 of 5 experiments with {_about(found['n_needed_for_all'])} examples"
        )
    lines.append(
        f"  proving 'safe' (less than {found['margin']:g} lost) of one budget in 4 of 5 experiments needs "
        f"{_about(found['n_needed'])} examples; {found['pairs_without_loss']} is the least, without a single flip"
    )
    if flips.n:
        lines.append(f"  at the upper end of that interval it needs {_about(found['n_needed_at_high'])}")
    return lines + [f"  {note}" for note in this.note]

"""Before a run: what a config can prove, from an assumed or measured share of answers that flip by noise.

Pairs of 0/1 scores are drawn with the given flips and true drop and put through the very tests of the verdict
(bounds.py), over all bins together; seeded, so the same config prints the same plan. Graded scores vary less than 0/1
ones: for them the plan errs on the safe side.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.bounds import Units, pairs_needed_without_loss
from analyzer.intervals import wilson
from analyzer.looks import Look, look
from kvt_async.contract.settings import Settings

Facts = dict[str, Any]

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


def plan(settings: Settings, *, flips: Flips, version: int = 0) -> Facts:
    """Chances and sizes for the config's n_bins x n_per_bin examples; `lines` is what a person reads.

    version: of the manifest that was analysed last, 0 before the first; where a manifest grows, the next look counts.
    """
    analysis, binning, flip_rate = settings.analysis, settings.binning, flips.rate
    bins = len(binning.edges) - 1 if binning.edges else binning.n_bins
    this = look(settings.sampling.strategy, version + 1)
    level, n = analysis.alpha / 2 * this.share, bins * binning.n_per_bin * this.number
    found: Facts = {
        "n": n,
        "n_per_bin": n // bins,
        "flip_rate": flip_rate,
        "flip_rate_source": flips.source or "assumed",
        "level": level,
        "margin": analysis.margin,
        "pairs_without_loss": pairs_needed_without_loss(analysis.margin, level),
        "chance_safe": chance_safe(n, flip_rate, analysis.margin, level, analysis.seed),
        "chance_safe_in_a_bin": chance_safe(n // bins, flip_rate, analysis.margin, level, analysis.seed),
        "smallest_detectable_drop": smallest_drop(n, flip_rate, level, analysis.seed),
        "smallest_detectable_drop_in_a_bin": smallest_drop(n // bins, flip_rate, level, analysis.seed),
        "n_needed": n_needed(flip_rate, analysis.margin, level, analysis.seed),
    }
    if flips.n:
        low, high = wilson(flips.rate, flips.n, analysis.alpha)
        found |= {"flip_rate_low": low, "flip_rate_high": high}
        found["n_needed_at_high"] = n_needed(high, analysis.margin, level, analysis.seed)
    return found | {"lines": _lines(found, bins, flips, this)}


def chance_safe(n: int, flip_rate: float, margin: float, level: float, seed: int, draws: int = DRAWS) -> float:
    """Chance that n pairs prove a budget without any true drop safe."""
    return _share(n, flip_rate, 0.0, seed, lambda units: units.p_drop_at_least(margin) <= level, draws)


def chance_loss(n: int, flip_rate: float, drop: float, level: float, seed: int) -> float:
    """Chance that n pairs prove a loss where the true drop is `drop`."""
    return _share(n, flip_rate, drop, seed, lambda units: units.p_drop_at_most(0.0) <= level)


def smallest_drop(n: int, flip_rate: float, level: float, seed: int) -> float | None:
    """Smallest true drop, in steps of 0.01, that n pairs find with a chance of 80%; None: not even 0.9."""
    low, high = 0, 90
    if chance_loss(n, flip_rate, high / 100, level, seed) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if chance_loss(n, flip_rate, middle / 100, level, seed) >= POWER:
            high = middle
        else:
            low = middle
    return high / 100


def n_needed(flip_rate: float, margin: float, level: float, seed: int) -> int | None:
    """Pairs that prove a budget without any true drop safe with a chance of 80%; None: more than 10,000."""
    least = pairs_needed_without_loss(margin, level)
    sizes = [least, *(n for n in _SIZES if n > least)]
    return next((n for n in sizes if chance_safe(n, flip_rate, margin, level, seed) >= POWER), None)


def _share(
    n: int, flip_rate: float, drop: float, seed: int, proven: Callable[[Units], bool], draws: int = DRAWS
) -> float:
    """Share of `draws` experiments in which `proven` holds: worse and better pairs are multinomial."""
    noise = flip_rate * (1 - drop) / 2
    rng = np.random.default_rng([seed, n])
    drawn = rng.multinomial(n, [drop + noise, noise, max(0.0, 1 - drop - 2 * noise)], size=draws)
    outcomes, count = np.unique(drawn, axis=0, return_counts=True)
    hits = sum(
        int(c) for (worse, better, _), c in zip(outcomes, count, strict=True) if proven(_pairs(worse, better, n))
    )
    return hits / draws


def _pairs(worse: int, better: int, n: int) -> Units:
    drop = np.zeros(n)
    drop[:worse] = 1.0
    drop[worse : worse + better] = -1.0
    return Units(drop, np.ones(n))


def _about(n: int | None) -> str:
    return f"about {n}" if n else "more than 10,000"


def _lines(found: Facts, bins: int, flips: Flips, this: Look) -> list[str]:
    rows = (
        (f"all {bins} bins, n={found['n']}", found["smallest_detectable_drop"], found["chance_safe"]),
        (f"one bin, n={found['n_per_bin']}", found["smallest_detectable_drop_in_a_bin"], found["chance_safe_in_a_bin"]),
    )
    lines = [f"If {flips.rate:.0%} of answers flip by noise (assumed; the A/A control of a first run measures it):"]
    if flips.n:
        between = f"{found['flip_rate_low']:.0%} to {found['flip_rate_high']:.0%}"
        lines = [
            f"{flips.flips} of {flips.n} answers flipped by noise in the A/A control of {flips.source} "
            f"({flips.rate:.1%}; 95% interval {between}). If that holds:"
        ]
    for where, drop, chance in rows:
        seen = (
            f"a true drop of {drop:.2f} or more is found in 4 of 5 experiments" if drop else "no drop is found reliably"
        )
        lines.append(f"  {where}: {seen}; a budget that loses nothing is proven safe with a chance of {chance:.0%}")
    lines.append(
        f"  proving 'safe' (less than {found['margin']:g} lost) in 4 of 5 experiments needs "
        f"{_about(found['n_needed'])} examples; {found['pairs_without_loss']} is the least, without a single flip"
    )
    if flips.n:
        lines.append(f"  at the upper end of that interval it needs {_about(found['n_needed_at_high'])}")
    return lines + [f"  {note}" for note in this.note]

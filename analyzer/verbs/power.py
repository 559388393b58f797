"""Before a run: what a config can prove, from an assumed or measured share of answers that flip by noise.

Pairs of 0/1 scores are drawn with the given flips and true drop and put through the very tests of the verdict
(paired_tests.py), over all bins together; seeded, so the same config prints the same plan. Graded scores vary less than
0/1 ones: for them the plan errs on the safe side. So it does where questions share a context: it takes them to flip
together. Several budgets are run against one full cache, whose own flips they share.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from analyzer.read.runs import newest_group
from analyzer.stage_answers import Json, StageAnswer
from analyzer.stats.chances import Chances, answer_flips
from analyzer.stats.interim import InterimLook, look_of
from analyzer.stats.intervals import binomial_upper, wilson
from analyzer.stats.sample_layout import Layout
from analyzer.store.derived_rows import control_flips, control_samples
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.settings import Settings

ASSUMED_FLIPS = 0.1


@dataclass(frozen=True, slots=True)
class Flips:
    """The share of answers that differ between two runs at full cache: `flips` of `n` pairs, or assumed (n = 0)."""

    rate: float
    flips: int = 0
    n: int = 0
    source: str = ""
    samples: int = 1  # answers an example: `flips` counts examples whose mean changed, `rate` is of answers

    @classmethod
    def in_control(cls, conn: sqlite3.Connection, group: str, dataset_id: str | None = None) -> "Flips | None":
        """As the A/A control of a group measured it, of one task or of all; None: it has none that was analysed.

        Where the control has several answers an example, their mean changes more often than one of them.
        """
        flips, n = control_flips(conn, group, dataset_id)
        if not n:
            return None
        samples = control_samples(conn, group)
        return cls(answer_flips(flips / n, samples), flips, n, group, samples)

    @classmethod
    def measured_in(cls, conn: sqlite3.Connection, place: Path) -> "Flips":
        """As the newest group of a database measured it. Raises MissingPrerequisiteError without a control."""
        group = newest_group(conn)[0]
        if (flips := cls.in_control(conn, group)) is None:
            raise MissingPrerequisiteError(
                f"{group} has no analysed A/A control",
                where=str(place),
                do="Run it with kv.control_repeats: 1 and `kvt all`, or give --flip-rate.",
            )
        return flips

    @property
    def upper_bound(self) -> float:
        """The share of answers that isn't exceeded, with 95% confidence (one-sided); about 3 / n where none flipped."""
        return answer_flips(binomial_upper(self.flips, self.n, 0.05), self.samples)


@dataclass(frozen=True)
class UpperEnd:
    """The 95% interval of a measured share of flips, and the examples needed were its upper end the truth."""

    low: float
    high: float
    n_needed: int | None


@dataclass(frozen=True)
class PlanAnswer(StageAnswer):
    """What a config can prove at its `n` examples, and how many a proof needs.

    n_per_bin: of each of `bins`; contexts: what the examples share; budgets: below full cache, of the first series;
    alpha: the one-sided level; pairs_without_loss: the least that prove safety; chance_*: that budgets without any true
    drop are proven safe; smallest_drop*: that is found in 4 of 5 experiments, None: none up to 0.9; n_needed*: examples
    that prove safety in 4 of 5, None: more than 10,000; upper_end: None where flips are assumed.
    """

    n: int
    n_per_bin: int
    bins: int
    contexts: int
    budgets: int
    flips: Flips
    look: InterimLook
    alpha: float
    margin: float
    pairs_without_loss: int
    chance_safe: float
    chance_all_safe: float
    chance_safe_in_a_bin: float
    smallest_drop: float | None
    smallest_drop_in_a_bin: float | None
    n_needed: int | None
    n_needed_for_all: int | None
    upper_end: UpperEnd | None
    samples: int = 1  # answers an example, whose mean is its score
    turns: float = 1.0  # examples a conversation, which is what binning.n_per_bin counts

    def json(self) -> Json:
        answer: Json = {
            "n": self.n,
            "n_per_bin": self.n_per_bin,
            "contexts": self.contexts,
            "budgets": self.budgets,
            "flip_rate": self.flips.rate,
            "flip_rate_source": self.flips.source or "assumed",
            "level": self.alpha,
            "margin": self.margin,
            "pairs_without_loss": self.pairs_without_loss,
            "chance_safe": self.chance_safe,
            "chance_all_safe": self.chance_all_safe,
            "chance_safe_in_a_bin": self.chance_safe_in_a_bin,
            "smallest_detectable_drop": self.smallest_drop,
            "smallest_detectable_drop_in_a_bin": self.smallest_drop_in_a_bin,
            "n_needed": self.n_needed,
            "n_needed_for_all": self.n_needed_for_all,
        }
        if self.samples > 1:
            answer["samples"] = self.samples
        if self.turns > 1:
            answer["turns"] = self.turns
        if (end := self.upper_end) is not None:
            answer |= {"flip_rate_low": end.low, "flip_rate_high": end.high, "n_needed_at_high": end.n_needed}
        return answer

    @property
    def lines(self) -> list[str]:
        lines = [self._flips_line]
        if self.samples > 1:
            lines.append(f"  an example's score is the mean of {self.samples} answers, which flip each by itself")
        if self.contexts < self.n:
            lines.append(
                f"  {self.n} examples share {self.contexts} contexts, which count as one each "
                "(their questions are taken to flip together)"
            )
        if self.turns > 1:
            lines.append(
                f"  a conversation has {self.turns:.3g} scored turns, each of them an example; "
                "binning.n_per_bin counts conversations"
            )
        if self.bins > 1:
            where = f"all {self.bins} bins, n={self.n}"
            lines.append(_chances_line(where, self.smallest_drop, self.chance_safe))
        where = f"one bin, n={self.n_per_bin}"
        lines.append(_chances_line(where, self.smallest_drop_in_a_bin, self.chance_safe_in_a_bin))
        if self.budgets > 1:
            lines.append(
                f"  all {self.budgets} budgets, if none loses anything, are proven safe with a chance of "
                f"{self.chance_all_safe:.0%}; in 4 of 5 experiments with {_about(self.n_needed_for_all)} examples"
            )
        lines.append(
            f"  proving 'safe' (less than {self.margin:g} lost) of one budget in 4 of 5 experiments needs "
            f"{_about(self.n_needed)} examples; {self.pairs_without_loss} is the least, without a single flip"
        )
        if self.upper_end is not None:
            lines.append(f"  at the upper end of that interval it needs {_about(self.upper_end.n_needed)}")
        return lines + [f"  {note}" for note in self.look.note]

    @property
    def _flips_line(self) -> str:
        flips = self.flips
        if self.upper_end is None:
            return (
                f"If {flips.rate:.0%} of answers flip by noise (assumed; the A/A control of a first run measures it):"
            )
        return (
            f"{flips.flips} of {flips.n} answers flipped by noise in the A/A control of {flips.source} "
            f"({flips.rate:.1%}; 95% interval {self.upper_end.low:.0%} to {self.upper_end.high:.0%}). If that holds:"
        )


def plan(
    settings: Settings, *, flips: Flips, version: int = 0, layout: Layout | None = None, turns: float = 1.0
) -> PlanAnswer:
    """Chances and sizes for the config's n_bins x n_per_bin examples, or conversations of so many `turns`.

    version: of the manifest that was analysed last, 0 before the first; where a manifest grows, the next look counts.
    layout: of the manifest, where there is one; else every example is taken to have a context of its own.
    """
    analysis, flip_rate = settings.analysis, flips.rate
    look = look_of(settings.sampling.strategy, version + 1)
    n, bins = n_of(settings)
    n = bins * round(n * turns * look.number / bins)
    chances = Chances(
        analysis.margin, analysis.alpha / 2 * look.share, analysis.seed, samples=settings.decoding.samples
    )
    whole = layout.grown(n) if layout else Layout.even(n, bins)
    one_bin = whole.grown(n // bins)
    budgets = budgets_below(settings)
    upper_end = None
    if flips.n:
        low, high = wilson(flips.rate, flips.n, analysis.alpha)
        upper_end = UpperEnd(low, high, chances.needed(whole, high))
    return PlanAnswer(
        n=n,
        n_per_bin=n // bins,
        bins=bins,
        contexts=whole.contexts,
        budgets=budgets,
        flips=flips,
        look=look,
        alpha=chances.alpha,
        margin=analysis.margin,
        pairs_without_loss=whole.least(analysis.margin, chances.alpha),
        chance_safe=chances.safe(whole, flip_rate),
        chance_all_safe=chances.safe(whole, flip_rate, budgets),
        chance_safe_in_a_bin=chances.safe(one_bin, flip_rate),
        smallest_drop=chances.smallest_drop(whole, flip_rate),
        smallest_drop_in_a_bin=chances.smallest_drop(one_bin, flip_rate),
        n_needed=chances.needed(whole, flip_rate),
        n_needed_for_all=chances.needed(whole, flip_rate, budgets),
        upper_end=upper_end,
        samples=settings.decoding.samples,
        turns=turns,
    )


def n_of(settings: Settings) -> tuple[int, int]:
    """(examples, bins) of a config of one task."""
    binning = settings.binning
    bins = len(binning.edges) - 1 if binning.edges else binning.n_bins
    return bins * binning.n_per_bin, bins


def budgets_below(settings: Settings) -> int:
    """Budgets below full cache of the first series."""
    if settings.kv.levels is None:
        return max(1, sum(budget != 1.0 for budget in settings.kv.budgets))
    below = [level for level in settings.kv.levels if level.budget != 1.0]
    return max(1, sum((level.policy, level.params) == (below[0].policy, below[0].params) for level in below))


def _about(n: int | None) -> str:
    return f"about {n:,}" if n else "more than 10,000"


def _chances_line(where: str, drop: float | None, chance: float) -> str:
    seen = f"a true drop of {drop:.2f} or more is found in 4 of 5 experiments" if drop else "no drop is found reliably"
    return f"  {where}: {seen}; a budget that loses nothing is proven safe with a chance of {chance:.0%}"

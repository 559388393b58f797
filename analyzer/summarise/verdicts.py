"""Claims -> the word of a verdict and its zone. Its sentence is made by results/verdict_sentence.py."""

from collections.abc import Sequence
from dataclasses import dataclass

from analyzer.stats.margin import Margin
from analyzer.stats.transition import BudgetTest, Claims
from analyzer.summarise.guessing_floor import Headroom
from kvt_async.contract.vocabulary import SeriesVerdict, Unit


@dataclass(frozen=True)
class Zone:
    """The transition zone in budgets; None: open on that side. high >= every budget proven safe, low <= every lost."""

    low: float | None
    high: float | None


def zone(done: Claims, unit: str) -> Zone:
    """zone_high is full cache (1.0) when no smaller fraction is proven safe; for tokens and bits it is then open."""
    return Zone(done.broken, done.safe if done.safe is not None else 1.0 if unit == Unit.FRACTION else None)


def verdict(
    tests: Sequence[BudgetTest],
    done: Claims,
    *,
    acc_full: float | None,
    margin: float | Margin,
    floor: Headroom | None = None,
) -> SeriesVerdict:
    """The verdict on one series in one bin.

    `tests` hold the compressed budgets, highest first; none: full cache alone. `floor`: what full cache has to lose,
    where that is not proven to be more than the margin (`done` claims nothing safe then).
    """
    if acc_full is None:
        return SeriesVerdict.NO_BASELINE
    if not tests:
        return SeriesVerdict.CANNOT_TELL
    if acc_full <= Margin.of(margin).at(acc_full) or (floor is not None and floor.doubtful and done.loss is None):
        return SeriesVerdict.NOTHING_TO_LOSE
    if done.n_safe == len(tests):
        return SeriesVerdict.NO_TRANSITION
    return SeriesVerdict.CANNOT_TELL if done.loss is None else SeriesVerdict.TRANSITION

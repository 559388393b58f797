"""Claims -> a verdict: one word for machines, one sentence for people."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    margin: float,
    unit: str,
    needed: int | None,
    floor: Headroom | None = None,
) -> tuple[SeriesVerdict, str]:
    """(verdict, sentence) of one series in one bin.

    `tests` hold the compressed budgets, highest first; none: full cache alone. `floor`: what full cache has to lose,
    where that is not proven to be more than the margin (`done` claims nothing safe then).
    """
    if acc_full is None:
        return SeriesVerdict.NO_BASELINE, "Full cache was not run here, so nothing can be compared: add budget 1.0."
    if not tests:
        return SeriesVerdict.CANNOT_TELL, "Only full cache was run: there is nothing to compare it with."
    if acc_full <= margin:
        return SeriesVerdict.NOTHING_TO_LOSE, (
            f"Accuracy at full cache is {acc_full:.3f}: no budget can lose more than the margin of {margin:g}. "
            "Requests fail, the task is too hard for this model, or metric and task don't fit."
        )
    if floor is not None and floor.doubtful and done.broken is None:
        return SeriesVerdict.NOTHING_TO_LOSE, (
            f"Nothing to lose here: full cache scores {acc_full:.3f} and its floor is {floor.floor:.3f}. That it lies "
            f"more than {margin:g} above it is not shown ({floor.mean:.3f} [{floor.low:.3f}, {floor.high:.3f}])."
        )
    lowest = min(test.budget for test in tests)
    if done.n_safe == len(tests):
        real = " A real loss is proven there, but it stays below the margin." if done.loss is not None else ""
        return SeriesVerdict.NO_TRANSITION, (
            f"Every budget down to {_budget(lowest, unit)} is proven to lose less than {margin:g}: "
            f"no transition in the range tested.{real}"
        )
    safe = (
        f"Safe down to {_budget(done.safe, unit)} (less than {margin:g} lost)."
        if done.safe is not None
        else "No budget below full cache is proven safe."
    )
    if done.loss is None:
        first = tests[done.n_safe]  # the one that the pairs needed are about
        verb = "less" if first.drop < margin else "more"
        aim = f"to prove that {_budget(first.budget, unit)} loses {verb} than {margin:g}"
        more = f"; {aim}, about {needed} pairs are needed if it loses what it lost here" if needed else ""
        if floor is not None:
            return SeriesVerdict.CANNOT_TELL, (
                f"{safe} Full cache is not proven to stand more than {margin:g} above its floor "
                f"({acc_full:.3f} against {floor.floor:.3f}), so nothing here can be called safe."
            )
        unproven = f"No loss is proven either: with {tests[0].n} pairs it can't be told{more}."
        return SeriesVerdict.CANNOT_TELL, f"{safe} {unproven}"
    lost = f"A real loss is proven at {_budget(done.loss, unit)} and everything below it"
    if done.broken is None:
        return SeriesVerdict.TRANSITION, f"{safe} {lost}; that it exceeds {margin:g} is not proven."
    if done.broken == done.loss:
        return SeriesVerdict.TRANSITION, f"{safe} {lost}, of more than {margin:g}."
    beyond = f"of more than {margin:g} at {_budget(done.broken, unit)} and below"
    return SeriesVerdict.TRANSITION, f"{safe} {lost}, {beyond}."


def _budget(value: float, unit: str) -> str:
    return f"{value:g}" if unit == Unit.FRACTION else f"{value:g} {unit}"

"""The config's own assertions about an experiment, each with what was found. Reads derived rows only.

An accuracy counts as better than full cache only beyond noise: the paired tests decide, not the difference of two
means, adjusted (Holm) over all budgets and bins that an assertion looks at. A real gain from a smaller cache fails
`flag_gains`: it is a sign of a metric that does not fit the task, or of a prompt that gives the answer away.

`baseline` catches a wrong chat template, an unsuited metric or the wrong model before anything is compared: what full
cache scores is known for many tasks and models, and a mean whose whole interval lies outside the expected range fails.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from typing import TypeVar

from analyzer.read.drift import refuse_drift
from analyzer.read.runs import Run
from analyzer.results.results import Results
from analyzer.results.suite_results import SuiteResults
from analyzer.stage_answers import CheckResult
from analyzer.stats.holm import holm
from analyzer.store.tables import BinStat, Drop
from kvt_async.contract.check_settings import Assertion
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import CONSTRAINED

MOST_PAIRS = 10_000_000  # beyond it no number is named
GAIN = "metric/task mismatch or prompt leakage"


@dataclass(frozen=True)
class _RunStat:
    """What a run did in a bin."""

    run: Run
    stat: BinStat

    @property
    def series(self) -> str:
        return self.run.series

    @property
    def kv_budget(self) -> float:
        return self.run.kv_budget

    @property
    def bin_idx(self) -> int:
        return self.stat.bin_idx

    @property
    def n(self) -> int:
        return self.stat.n


@dataclass(frozen=True)
class _Rows:
    """What assertions look at: every run in every bin, and every budget's paired loss; without the A/A control, and
    without constrained full, which no assertion of a budget is about."""

    stats: list[_RunStat]
    drops: list[Drop]
    results: Results

    @classmethod
    def of(cls, results: Results) -> "_Rows":
        bins = sorted({bin_idx for _, bin_idx in results.stats})
        places = ((run, results.stat(run, b)) for run in results.runs if not run.is_constrained for b in bins)
        stats = [_RunStat(run, stat) for run, stat in places if stat is not None]
        return cls(
            stats, [drop for drop in results.drops if drop.repeat_idx == 0 and drop.series != CONSTRAINED], results
        )


Row = TypeVar("Row", _RunStat, Drop)


def assertions_of(settings: Settings) -> list[Assertion]:
    """Those of the config, and those of its tasks, each about its own task."""
    own = [
        assertion.model_copy(update={"task": assertion.task or entry.name or (entry.dataset and entry.dataset.task)})
        for entry in settings.tasks
        for assertion in entry.check
    ]
    return [*settings.check, *own]


def check_suite(suite: SuiteResults, settings: Settings) -> list[CheckResult]:
    """Evaluate the config's assertions on a group, in order: on the task that each names, else on every task.

    Raises MissingPrerequisiteError before `analyze`, DriftError where the server became another one (unless
    analysis.allow_drift), ConfigError where an assertion matches nothing that was run.
    """
    if not suite.is_suite:
        return check(suite.first, settings)
    results = []
    for assertion in assertions_of(settings):
        tasks = [task for task in suite.tasks if _is_about(assertion, task)]
        if not tasks and assertion.kind != "baseline":
            raise ConfigError(
                f"check {assertion.name!r} is about {assertion.task}, which this group does not have",
                where="check",
                do=f"Its tasks: {', '.join(task.task for task in suite.tasks)}.",
            )
        if not tasks:  # published figures of many tasks may stand in one list
            finding = f"not checked: it is about {assertion.task}, which this group does not have"
            results.append(CheckResult(assertion.name, assertion.kind, True, finding))
        for task in tasks:
            (result,) = check(task, settings.model_copy(update={"check": [assertion], "tasks": []}))
            results.append(replace(result, name=f"{result.name} ({task.task})"))
    return results


def _is_about(assertion: Assertion, task: Results) -> bool:
    return assertion.task in (None, task.task, *(dataset["task"] for dataset in task.datasets))


def check(results: Results, settings: Settings) -> list[CheckResult]:
    """Evaluate the config's assertions on the results of one task, in order; those about another task say so.

    Raises as check_suite does.
    """
    refuse_drift([] if settings.analysis.allow_drift else results.drifts)
    rows = _Rows.of(results)
    if not rows.stats:
        raise MissingPrerequisiteError("nothing has been analysed yet", do="Run `kvt analyze -c CONFIG` first.")
    return [_evaluate(assertion, rows, settings) for assertion in assertions_of(settings)]


def _evaluate(assertion: Assertion, rows: _Rows, settings: Settings) -> CheckResult:
    about = assertion.model or settings.model.name, settings.model.name
    if not _is_about(assertion, rows.results):
        about = str(assertion.task), rows.results.task
    if about[0] != about[1]:
        finding = f"not checked: it is about {about[0]}, this is {about[1]}"
        return CheckResult(assertion.name, assertion.kind, True, finding)
    if assertion.is_of_bench or assertion.load is not None or assertion.level is not None:
        raise ConfigError(f"check {assertion.name!r} is about a bench, and this group is a sweep", where="check")
    if assertion.kind == "max_drop":
        return _max_drop(assertion, rows, settings.analysis.alpha)
    kinds: dict[str, Callable[[Assertion, _Rows], tuple[bool, str]]] = {
        "not_better_than_full": _not_better,
        "no_failures": _no_failures,
        "min_accuracy": _min_accuracy,
        "max_fail_rate": _max_fail_rate,
        "flag_gains": _flag_gains,
        "baseline": _baseline,
    }
    passed, finding = kinds[assertion.kind](assertion, rows)
    return CheckResult(assertion.name, assertion.kind, passed, finding)


def _not_better(assertion: Assertion, rows: _Rows) -> tuple[bool, str]:
    """Nowhere is a smaller cache better than full beyond noise."""
    tested = [drop for drop in _chosen(assertion, rows.drops) if drop.drop_ci_high is not None]
    better = _gains(tested, rows.results)
    if not tested:
        return False, "no budget could be paired with full cache"
    if better:
        return False, f"better than full cache beyond noise: {'; '.join(map(_told, better))}: {GAIN}"
    return True, f"not better than full cache: {'; '.join(map(_told, tested))}"


def _flag_gains(assertion: Assertion, rows: _Rows) -> tuple[bool, str]:
    """The same over everything, single bins included, unless the assertion narrows it."""
    chosen = _chosen(assertion, rows.drops, every_bin=True)
    gains = _gains(chosen, rows.results)
    if gains:
        return False, f"{'; '.join(map(_told, gains))}: {GAIN}"
    return True, f"no gain over full cache beyond noise in {len(chosen)} comparisons"


def _gains(drops: Sequence[Drop], results: Results) -> list[Drop]:
    """Those that are proven better than full cache, with a chance of alpha/2 that any of them isn't (Holm)."""
    verdicts = [results.verdict(drop.series, drop.bin_idx) for drop in drops]
    tested = [verdict.detail.get("gains") if verdict else None for verdict in verdicts]
    if not all(tested):
        raise MissingPrerequisiteError(
            "the results were made by an earlier version that did not test for gains",
            do="Run `kvt analyze -c CONFIG` first.",
        )
    of_series = [gains for gains in tested if gains]
    p_values = [gains["p"][str(drop.kv_budget)] for gains, drop in zip(of_series, drops, strict=True)]
    return [drop for gains, drop, p in zip(of_series, drops, holm(p_values), strict=True) if p <= gains["level"]]


def _no_failures(assertion: Assertion, rows: _Rows) -> tuple[bool, str]:
    chosen = [row.stat for row in _chosen(assertion, rows.stats)]
    failed = [stat for stat in chosen if stat.n_failures]
    n = sum(stat.n for stat in chosen)
    if failed:
        labels = "; ".join(f"{stat.run_id}: {stat.labels}" for stat in failed)
        return False, f"{sum(stat.n_failures for stat in failed)} of {n} requests failed ({labels})"
    return True, f"none of {n} requests failed"


def _min_accuracy(assertion: Assertion, rows: _Rows) -> tuple[bool, str]:
    value = _value(assertion)
    chosen = [row.stat for row in _chosen(assertion, rows.stats)]
    means = [(stat.acc_mean, stat.run_id) for stat in chosen if stat.acc_mean is not None]
    if not means:
        return False, "nothing is scored there"
    mean, run_id = min(means, key=lambda pair: pair[0])
    return mean >= value, f"lowest accuracy {mean:.3f} ({run_id}), asked {value:g}"


def _baseline(assertion: Assertion, rows: _Rows) -> tuple[bool, str]:
    """The mean at full cache is within [value, high], as far as its interval can tell."""
    expected = _value(assertion), assertion.high if assertion.high is not None else 1.0
    chosen = [row.stat for row in _chosen(assertion, rows.stats) if row.run.is_baseline]
    intervals = [interval for stat in chosen if (interval := _interval(stat)) is not None]
    if not chosen or len(intervals) < len(chosen):
        return False, "full cache is not scored there"
    outside = [interval for interval in intervals if interval[2] < expected[0] or interval[1] > expected[1]]
    scores = "; ".join(f"full cache {mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in outside or intervals)
    finding = f"{scores}, expected {expected[0]:g} to {expected[1]:g}"
    return not outside, f"{finding}: look at one prompt with `kvt show --sample 1`" if outside else finding


def _interval(stat: BinStat) -> tuple[float, float, float] | None:
    """(mean, low, high), which are the mean where there is no interval; None: not scored."""
    mean, low, high = stat.acc_mean, stat.acc_ci_low, stat.acc_ci_high
    if mean is None:
        return None
    return mean, mean if low is None else low, mean if high is None else high


def _max_fail_rate(assertion: Assertion, rows: _Rows) -> tuple[bool, str]:
    value = _value(assertion)
    chosen = [row.stat for row in _chosen(assertion, rows.stats)]
    rates = [(stat.fail_rate, stat.run_id) for stat in chosen if stat.fail_rate is not None]
    if not rates:
        return False, "nothing has finished there"
    rate, run_id = max(rates, key=lambda pair: pair[0])
    return rate <= value, f"highest failure rate {rate:.3f} ({run_id}), allowed {value:g}"


def _max_drop(assertion: Assertion, rows: _Rows, alpha: float) -> CheckResult:
    """Missed where a drop is proven to be above `value`, kept where all are proven to be below it.

    A series is tested from its smallest budget up and no further than the first that is not proven, so that all its
    budgets together fail falsely with a chance of alpha/2; that every budget keeps it needs no such order.
    """
    value, chosen = _value(assertion), _chosen(assertion, rows.drops)
    tested = sorted((d for d in chosen if d.drop_ci_low is not None), key=lambda drop: (drop.series, drop.kv_budget))
    missed = [
        drop
        for _, levels in groupby(tested, key=lambda drop: drop.series)
        for drop in takewhile(lambda level: level.drop_ci_low is not None and level.drop_ci_low > value, levels)
    ]
    asked = f"allowed {value:g}, {100 * (1 - alpha / 2):g}% sure for each series"
    if any(_is_interim(drop, rows.results, alpha) for drop in tested):
        return _open(assertion, f"cannot tell from an interim look, whose intervals are not made for it; {asked}")
    if missed:
        return CheckResult(assertion.name, assertion.kind, False, f"{'; '.join(map(_told, missed))}; {asked}")
    unproven = [drop for drop in tested if drop.drop_ci_high is None or drop.drop_ci_high >= value]
    if not tested or len(tested) < len(chosen):
        return _open(assertion, f"cannot tell: a budget could not be paired with full cache; {asked}")
    if unproven:
        parts = [_told(drop) + _pairs_to_tell(drop, value) for drop in unproven]
        return _open(assertion, f"cannot tell: {'; '.join(parts)}; {asked}")
    return CheckResult(assertion.name, assertion.kind, True, f"{'; '.join(map(_told, tested))}; {asked}")


def _open(assertion: Assertion, finding: str) -> CheckResult:
    return CheckResult(assertion.name, assertion.kind, True, finding, is_open=True)


def _is_interim(drop: Drop, results: Results, alpha: float) -> bool:
    """Whether claims about this drop were made at less than alpha/2, since more data are to come."""
    verdict = results.verdict(drop.series, drop.bin_idx)
    gains = verdict.detail.get("gains") if verdict else None
    return gains is not None and gains["level"] < alpha / 2 * (1 - 1e-9)


def _pairs_to_tell(drop: Drop, value: float) -> str:
    """', about 340 pairs would': intervals narrow with the root of the pairs; '' where none would."""
    if drop.drop_mean is None or drop.drop_ci_low is None or drop.drop_ci_high is None or drop.drop_mean == value:
        return ""
    reach = drop.drop_mean - drop.drop_ci_low if drop.drop_mean > value else drop.drop_ci_high - drop.drop_mean
    needs = drop.n * (reach / (drop.drop_mean - value)) ** 2
    return f", about {math.ceil(needs):,} pairs would" if drop.n < needs < MOST_PAIRS else ""


def _chosen(assertion: Assertion, rows: Sequence[Row], *, every_bin: bool = False) -> list[Row]:
    """Rows the assertion is about: its budget, series and bins; no bins: all bins together."""
    chosen = [
        row
        for row in rows
        if (assertion.budget is None or abs(row.kv_budget - assertion.budget) < 1e-9)
        and (assertion.series is None or row.series == assertion.series)
        and (row.bin_idx in assertion.bins if assertion.bins is not None else every_bin or row.bin_idx < 0)
        and row.n > 0
    ]
    if not chosen and any((assertion.budget, assertion.series, assertion.bins)):
        levels = sorted({(row.series, row.kv_budget) for row in rows})
        raise ConfigError(
            f"the assertion {assertion.name!r} is about nothing that was run",
            where="check",
            do=f"Run: {', '.join(f'{series} at {budget:g}' for series, budget in levels)}.",
        )
    return chosen


def _value(assertion: Assertion) -> float:
    if assertion.value is None:
        raise ConfigError(f"the assertion {assertion.name!r} ({assertion.kind}) needs a value", where="check")
    return assertion.value


def _told(drop: Drop) -> str:
    where = "" if drop.bin_idx < 0 else f", bin {drop.bin_idx}"
    return (
        f"{drop.series} at {drop.kv_budget:g}{where} drops {drop.drop_mean:+.3f} "
        f"[{drop.drop_ci_low:+.3f}, {drop.drop_ci_high:+.3f}]"
    )

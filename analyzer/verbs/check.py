"""The config's own assertions about an experiment, each with what was found. Reads derived tables only.

An accuracy counts as better than full cache only beyond noise: the paired tests decide, not the difference of two
means, adjusted (Holm) over all budgets and bins that an assertion looks at. A real gain from a smaller cache fails
`flag_gains`: it is a sign of a metric that does not fit the task, or of a prompt that gives the answer away.

`baseline` catches a wrong chat template, an unsuited metric or the wrong model before anything is compared: what full
cache scores is known for many tasks and models, and a mean whose whole interval lies outside the expected range fails.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from analyzer.read import runs
from analyzer.read.drift import group_drifts, refuse_drift
from analyzer.stats.holm import holm
from analyzer.store import derived_rows
from kvt_async.contract.errors import CheckFailedError, ConfigError, MissingPrerequisiteError
from kvt_async.contract.settings import Assertion, Settings

GAIN = "metric/task mismatch or prompt leakage"


@dataclass(frozen=True)
class CheckResult:
    """One assertion: its name, whether it holds, and what was found, in a sentence."""

    name: str
    kind: str
    passed: bool
    finding: str


@dataclass(frozen=True)
class _Rows:
    """What assertions look at, newest generation: bin_stats joined with runs, and budget_stats."""

    stats: list[dict[str, Any]]
    drops: list[dict[str, Any]]


def check(conn: sqlite3.Connection, settings: Settings) -> list[CheckResult]:
    """Evaluate `settings.check` on the newest generation, in order.

    Raises MissingPrerequisiteError before `analyze`, DriftError where the server became another one (unless
    analysis.allow_drift), ConfigError where an assertion matches nothing that was run.
    """
    group = settings.experiment.exp_group_id
    with runs.snapshot(conn) as facts:
        gen = runs.newest_generation(facts, group)
        refuse_drift([] if settings.analysis.allow_drift else group_drifts(facts, group, gen))
        rows = _Rows(*derived_rows.analysed(facts, group, gen))
    if not rows.stats:
        raise MissingPrerequisiteError("nothing has been analysed yet", do="Run `kvt analyze -c CONFIG` first.")
    return [_evaluate(assertion, rows, settings) for assertion in settings.check]


def refuse_failed(results: list[CheckResult]) -> None:
    """Raise CheckFailedError naming every assertion that does not hold."""
    failed = [result for result in results if not result.passed]
    if failed:
        raise CheckFailedError(
            f"{len(failed)} of {len(results)} assertions do not hold",
            details=tuple(f"{result.name}: {result.finding}" for result in failed),
        )


def _evaluate(assertion: Assertion, rows: _Rows, settings: Settings) -> CheckResult:
    for wanted, given in ((assertion.model, settings.model.name), (assertion.task, settings.dataset.task)):
        if wanted is not None and wanted != given:
            finding = f"not checked: it is about {wanted}, this is {given}"
            return CheckResult(assertion.name, assertion.kind, True, finding)
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
    chosen = list(_chosen(assertion, rows.drops))
    tested = [row for row in chosen if row["drop_ci_high"] is not None]
    better = _gains(tested)
    if not tested:
        return False, "no budget could be paired with full cache"
    if better:
        return False, f"better than full cache beyond noise: {'; '.join(map(_drop, better))}: {GAIN}"
    return True, f"not better than full cache: {'; '.join(map(_drop, tested))}"


def _flag_gains(assertion: Assertion, rows: _Rows) -> tuple[bool, str]:
    """The same over everything, single bins included, unless the assertion narrows it."""
    chosen = list(_chosen(assertion, rows.drops, every_bin=True))
    gains = _gains(chosen)
    if gains:
        return False, f"{'; '.join(map(_drop, gains))}: {GAIN}"
    return True, f"no gain over full cache beyond noise in {len(chosen)} comparisons"


def _gains(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that are proven better than full cache, with a chance of alpha/2 that any of them isn't (Holm)."""
    tested = [json.loads(row["gains"] or "{}") for row in rows]
    if not all(tested):
        raise MissingPrerequisiteError(
            "the results were made by an earlier version that did not test for gains",
            do="Run `kvt analyze -c CONFIG` first.",
        )
    adjusted = holm([one["p"][str(row["kv_budget"])] for one, row in zip(tested, rows, strict=True)])
    return [row for one, row, p in zip(tested, rows, adjusted, strict=True) if p <= one["level"]]


def _no_failures(assertion: Assertion, rows: _Rows) -> tuple[bool, str]:
    chosen = list(_chosen(assertion, rows.stats))
    failed = [row for row in chosen if row["n_failures"]]
    n = sum(row["n"] for row in chosen)
    if failed:
        labels = "; ".join(f"{row['run_id']}: {json.loads(row['label_counts_json'])}" for row in failed)
        return False, f"{sum(row['n_failures'] for row in failed)} of {n} requests failed ({labels})"
    return True, f"none of {n} requests failed"


def _min_accuracy(assertion: Assertion, rows: _Rows) -> tuple[bool, str]:
    value = _value(assertion)
    chosen = [row for row in _chosen(assertion, rows.stats) if row["acc_mean"] is not None]
    lowest = min(chosen, key=lambda row: row["acc_mean"], default=None)
    if lowest is None:
        return False, "nothing is scored there"
    found = f"lowest accuracy {lowest['acc_mean']:.3f} ({lowest['run_id']}), asked {value:g}"
    return lowest["acc_mean"] >= value, found


def _baseline(assertion: Assertion, rows: _Rows) -> tuple[bool, str]:
    """The mean at full cache is within [value, high], as far as its interval can tell."""
    low, high = _value(assertion), assertion.high if assertion.high is not None else 1.0
    full = [row for row in _chosen(assertion, rows.stats) if row["is_full"] and row["repeat_idx"] == 0]
    if not full or any(row["acc_mean"] is None for row in full):
        return False, "full cache is not scored there"
    outside = [row for row in full if _bound(row, "acc_ci_high") < low or _bound(row, "acc_ci_low") > high]
    found = "; ".join(
        f"full cache {row['acc_mean']:.3f} [{_bound(row, 'acc_ci_low'):.3f}, {_bound(row, 'acc_ci_high'):.3f}]"
        for row in outside or full
    )
    if outside:
        return False, f"{found}, expected {low:g} to {high:g}: look at one prompt with `kvt show --sample 1`"
    return True, f"{found}, expected {low:g} to {high:g}"


def _bound(row: dict[str, Any], name: str) -> float:
    return float(row["acc_mean"] if row[name] is None else row[name])


def _max_fail_rate(assertion: Assertion, rows: _Rows) -> tuple[bool, str]:
    value = _value(assertion)
    chosen = [row for row in _chosen(assertion, rows.stats) if row["fail_rate"] is not None]
    highest = max(chosen, key=lambda row: row["fail_rate"], default=None)
    if highest is None:
        return False, "nothing has finished there"
    found = f"highest failure rate {highest['fail_rate']:.3f} ({highest['run_id']}), allowed {value:g}"
    return highest["fail_rate"] <= value, found


def _chosen(assertion: Assertion, rows: list[dict[str, Any]], *, every_bin: bool = False) -> Iterator[dict[str, Any]]:
    """Rows the assertion is about: its budget, series and bins; no bins: all bins together."""
    found = [
        row
        for row in rows
        if (assertion.budget is None or abs(row["kv_budget"] - assertion.budget) < 1e-9)
        and (assertion.series is None or row["series"] == assertion.series)
        and (row["bin_idx"] in assertion.bins if assertion.bins is not None else every_bin or row["bin_idx"] < 0)
        and row["n"] > 0
    ]
    if not found and any((assertion.budget, assertion.series, assertion.bins)):
        known = sorted({(row["series"], row["kv_budget"]) for row in rows})
        raise ConfigError(
            f"the assertion {assertion.name!r} is about nothing that was run",
            where="check",
            do=f"Run: {', '.join(f'{series} at {budget:g}' for series, budget in known)}.",
        )
    yield from found


def _value(assertion: Assertion) -> float:
    if assertion.value is None:
        raise ConfigError(f"the assertion {assertion.name!r} ({assertion.kind}) needs a value", where="check")
    return assertion.value


def _drop(row: dict[str, Any]) -> str:
    where = "" if row["bin_idx"] < 0 else f", bin {row['bin_idx']}"
    return (
        f"{row['series']} at {row['kv_budget']:g}{where} drops {row['drop_mean']:+.3f} "
        f"[{row['drop_ci_low']:+.3f}, {row['drop_ci_high']:+.3f}]"
    )

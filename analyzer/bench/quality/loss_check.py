"""`kvt check` of kind max_drop for a bench: is it proven that answers lose more under load than is allowed, or less?"""

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analyzer.bench.quality.load_loss import LoadLoss, LossRule, load_losses
from analyzer.bench.quality.scored_stages import scored_levels
from analyzer.bench.read.stage_facts import StageFacts
from analyzer.results.number_format import interval
from analyzer.stage_answers import CheckResult
from analyzer.stats.load_losses import LoadVerdict
from kvt_async.contract.check_settings import Assertion
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError

if TYPE_CHECKING:
    from kvt_async.contract.settings import Analysis


def check_loss(
    assertion: Assertion, facts: sqlite3.Connection, stages: Sequence[StageFacts], analysis: "Analysis"
) -> CheckResult:
    """Missed where a loss above `value` is proven: over several loads by Holm over those that the ladder may have, at
    alpha/2 for one that the assertion names. Kept where each load's is proven to be below it and none is owed.

    Reads stored scores. Raises MissingPrerequisiteError where answers were not scored, ConfigError for a load that was
    not benched.
    """
    if of_sweep := [name for name in ("budget", "series", "bins", "task") if getattr(assertion, name) is not None]:
        raise ConfigError(
            f"check {assertion.name!r} is about a bench, and {' and '.join(of_sweep)} belong to a sweep",
            where="check",
            do="Narrow it with load and level.",
        )
    value = assertion.value or 0.0
    rule = LossRule(value, "absolute", analysis.alpha, analysis.metric)
    rows = [row for row in load_losses(facts, scored_levels(stages), rule) if not row.is_control]
    if not rows:
        raise MissingPrerequisiteError(
            f"check {assertion.name!r} is about answers, and none of this bench's were scored",
            do="Run `kvt bench` with bench.scored: true.",
        )
    chosen = [
        row for row in rows if assertion.load in (None, "all", row.load) and assertion.level in (None, "all", row.level)
    ]
    if not chosen:
        raise ConfigError(
            f"check {assertion.name!r} is about a load that was not benched",
            where="check",
            do=f"Benched: {', '.join(row.load for row in rows)}.",
        )
    return _result(assertion, chosen)


def _result(assertion: Assertion, rows: Sequence[LoadLoss]) -> CheckResult:
    asked = f"allowed {assertion.value:g}"
    if len(rows) == 1:
        missed = [row for row in rows if row.p_beyond is not None and row.p_beyond <= row.asked["level"]]
    else:
        missed = [row for row in rows if row.verdict == LoadVerdict.BEYOND]
    if missed:
        return CheckResult(assertion.name, assertion.kind, False, f"{'; '.join(map(_says, missed))}; {asked}")
    unproven = [row for row in rows if row.n_pending or row.p_safe is None or not row.p_safe <= row.asked["level"]]
    if unproven:
        parts = [_says(row) + _needs(row) for row in unproven]
        text = f"cannot tell: {'; '.join(parts)}; {asked}"
        return CheckResult(assertion.name, assertion.kind, True, text, is_open=True)
    return CheckResult(assertion.name, assertion.kind, True, f"{'; '.join(map(_says, rows))}; {asked}")


def _says(row: LoadLoss) -> str:
    where = f"{row.level}, {row.load}" if row.level else row.load
    return f"{where}: answers lose {interval(row.loss_mean, row.loss_ci_low, row.loss_ci_high, 3)}"


def _needs(row: LoadLoss) -> str:
    owed = f", {row.n_pending:,} requests are still to be sent" if row.n_pending else ""
    return owed or (f", about {row.n_needed:,} prompts would" if row.n_needed else "")

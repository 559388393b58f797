"""One series in one bin -> its row of transition_summary: the verdict and every figure beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analyzer.stats.bootstrap import percentile_interval
from analyzer.stats.half_loss import zone_spread
from analyzer.stats.margin import Margin
from analyzer.stats.transition import Step, pairs_needed, step_drop
from analyzer.store.tables import Verdict, json_text
from analyzer.summarise.bin_stats import ALL_BINS
from analyzer.summarise.series_bin import SeriesBin
from analyzer.summarise.verdicts import verdict, zone
from kvt_async.contract.settings import Analysis
from kvt_async.contract.vocabulary import SeriesVerdict


@dataclass(frozen=True)
class RowContext:
    """What a verdict's row holds beside its own tests.

    method: JSON text of how the analysis was made; partial: requests were missing; n: outcomes counted, where no test
    counts pairs; bin_means: the single bins of the series, where this is all of them; details: more keys of zone_json.
    """

    analysis: Analysis
    method: str
    partial: bool = False
    n: int = 0
    bin_means: Mapping[int, SeriesBin] | None = None
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class HalfLoss:
    """The budget where half of the total loss has happened, and its interval; all None where it can't be said."""

    budget: float | None = None
    low: float | None = None
    high: float | None = None


def verdict_row(summary: SeriesBin, context: RowContext) -> Verdict:
    """The row of one series in one bin, without its sentence."""
    analysis, claims, level = context.analysis, summary.claims, summary.level
    margin = Margin(analysis.margin, analysis.margin_kind)
    needed = pairs_needed(summary.tests, claims, margin=analysis.margin) if summary.has_something_to_lose else None
    floor = None if summary.has_something_to_lose else summary.headroom
    word = verdict(summary.tests, claims, acc_full=summary.acc_full, margin=margin, floor=floor)
    settled = zone(claims, summary.unit)
    zone_high = settled.high if word != SeriesVerdict.NO_BASELINE else None
    n_needed = needed if word in (SeriesVerdict.CANNOT_TELL, SeriesVerdict.TRANSITION) else None
    half = half_loss_of(summary, analysis.alpha)
    step = step_of(summary, analysis.drop_threshold)
    details = _details(summary, margin, is_needed=n_needed is not None)
    return Verdict(
        series=level.series,
        kv_policy=level.kv_policy,
        kv_mode=level.kv_mode,
        bin_idx=summary.bin_idx,
        n=min((test.n for test in summary.tests), default=context.n),
        acc_full=summary.acc_full,
        safe_budget=zone_high,
        collapse_budget=claims.loss,
        collapse_margin_budget=settled.low,
        zone_low=settled.low,
        zone_high=zone_high,
        half_loss_budget=half.budget,
        half_loss_ci_low=half.low,
        half_loss_ci_high=half.high,
        zone_low_tokens=summary.kept_at(settled.low),
        zone_high_tokens=summary.kept_at(zone_high),
        half_loss_tokens=summary.kept_at(half.budget),
        zone_json=json_text(details | dict(context.details or {})),
        verdict=word,
        verdict_text="",  # of stored_sentences.py
        n_needed=n_needed,
        role=summary.role,
        evidence=summary.evidence,
        partial=int(context.partial),
        method=context.method,
        pre_budget=step.pre_budget if step else None,
        transition_budget=step.transition_budget if step else None,
        acc_pre=step.acc_pre if step else None,
        acc_post=step.acc_post if step else None,
        drop=step.drop if step else None,
        transition_bin_idx=_steepest_bin(summary, step, context.bin_means or {}) if step else None,
    )


def half_loss_of(summary: SeriesBin, alpha: float) -> HalfLoss:
    """The half-loss budget, where a loss is proven at the smallest budget and resamples show what others would."""
    if summary.acc_full is None or not summary.total_loss_proven or not summary.is_resampled:
        return HalfLoss()
    point, replicates = summary.half_loss()
    low, high = percentile_interval(replicates, alpha)
    budgets = [float(b) for b in summary.axis]  # nothing was measured between two of them: the interval spans that gap
    below = max((b for b in budgets if b <= point), default=point)
    above = min((b for b in budgets if b >= point), default=point)
    return HalfLoss(point, min(low, below), max(high, above))


def step_of(summary: SeriesBin, threshold: float) -> Step | None:
    """The first fall of the means by `threshold`, from full cache down; None: there is none, or no full cache."""
    if summary.acc_full is None or not summary.tests:
        return None
    axis = [float(b) for b in summary.axis]
    return step_drop(list(zip(axis, [summary.acc_full, *summary.acc], strict=True)), threshold)


def _steepest_bin(summary: SeriesBin, step: Step, bins: Mapping[int, SeriesBin]) -> int | None:
    """The bin that falls most over the step; a single bin is its own."""
    if summary.bin_idx != ALL_BINS:
        return summary.bin_idx
    at = [float(b) for b in summary.axis].index(step.transition_budget)
    curves = {
        b: [single.acc_full, *single.acc]
        for b, single in bins.items()
        if single.acc_full is not None and len(single.acc) == len(summary.acc)
    }
    falls = {b: (curve[at - 1] or 0.0) - curve[at] for b, curve in curves.items()}
    return max(sorted(falls), key=lambda b: falls[b], default=None)


def _details(summary: SeriesBin, margin: Margin, *, is_needed: bool) -> dict[str, Any]:
    """The keys of zone_json that one bin of one series gives: level, spread, needed, floor, noise."""
    details: dict[str, Any] = {"level": summary.claims.alpha}
    if summary.acc_full is not None and summary.tests and summary.is_resampled:
        details["spread"] = zone_spread(summary.replicates, summary.axis, margin, summary.curves)
    if is_needed:  # for the first budget not proven safe: which of the two claims it would settle
        first = summary.tests[summary.claims.n_safe]
        claim = "safe" if first.judged_mean < margin.size else "beyond"
        details["needed"] = {"budget": first.budget, "claim": claim, "drop": round(first.drop, 9)}
    if summary.headroom is not None:
        details["floor"] = summary.headroom.as_json | {"shown": summary.has_something_to_lose}
    if noise := summary.noise:
        drop = round(noise.drop, 9)
        details["noise"] = {"repeats": noise.repeats, "n": noise.n, "flips": noise.flips, "drop": drop}
    return details

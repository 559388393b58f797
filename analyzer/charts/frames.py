"""Persisted rows → the frames that charts draw, and the budget axis they share.

Every series starts at the one full-cache run, so that row appears once per series. `x` is the position on the budget
axis: the budget itself for fractions, the rank from full cache down for token caps and bit widths, which have no
common scale with full cache.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from analyzer.charts.axis import BudgetAxis, budget_axis, status
from analyzer.charts.spans import NO_VERDICT, bars, spans_of
from analyzer.read.runs import Run
from analyzer.results.alarms import alarms
from analyzer.results.confidence import nothing_safe
from analyzer.results.number_format import cache_share
from analyzer.results.results import ALL, Results
from analyzer.results.series_names import short_names
from analyzer.store.tables import BinStat, Verdict, columns
from kvt_async.contract.cache_state import cache_state
from kvt_async.contract.vocabulary import FULL

FAILURE = "failed requests"
CUT_OFF = "answers cut off at their length"
ANSWERS = "wrong answers"
LEVEL_SCHEMA: dict[str, Any] = {
    "series": pl.String,
    "x": pl.Float64,
    "budget": pl.String,
    "is_full": pl.Boolean,
    "evidence": pl.String,
    "bin_idx": pl.Int64,
    "bin": pl.String,
    "cache": pl.String,
    "state": pl.String,
} | {
    c: pl.Int64 if c in ("n", "n_clusters", "n_failures") else pl.Float64
    for c in columns(BinStat)
    if c not in ("run_id", "dataset_id", "bin_idx", "acc_ci_method", "label_counts_json", "flag_counts_json")
}
ZONE_SCHEMA: dict[str, Any] = {
    "series": pl.String,
    "bin_idx": pl.Int64,
    "part": pl.String,
    "x": pl.Float64,
    "x2": pl.Float64,
    "says": pl.String,
}
DROP_SCHEMA: dict[str, Any] = {
    "series": pl.String,
    "x": pl.Float64,
    "budget": pl.String,
    "cause": pl.String,
    "share": pl.Float64,
    "drop_mean": pl.Float64,
    "drop_ci_low": pl.Float64,
    "drop_ci_high": pl.Float64,
}
COST_SCHEMA: dict[str, Any] = {
    "series": pl.String,
    "x": pl.Float64,
    "budget": pl.String,
    "cache": pl.String,
    "metric": pl.String,
    "p50": pl.Float64,
    "p95": pl.Float64,
}


CHANGES = "it changes with the answer's length, or no reply says it"  # why a figure is missing


@dataclass(frozen=True)
class ChartData:
    """Frames for every chart. `note` (PARTIAL, UNVERIFIED, ...) stands under each title."""

    levels: pl.DataFrame
    zones: pl.DataFrame
    bars: pl.DataFrame
    drops: pl.DataFrame
    costs: pl.DataFrame
    axis: BudgetAxis
    series: tuple[str, ...]
    bins: tuple[str, ...]
    note: str

    def bins_of(self, frame: pl.DataFrame) -> tuple[str, ...]:
        """The bins that a frame has rows of, in their order."""
        present = set(frame["bin"].unique())
        return tuple(b for b in self.bins if b in present)


def chart_data(results: Results) -> ChartData:
    series = tuple(results.series) or (FULL,)
    axis = budget_axis(results)
    names = short_names(series)
    levels = _levels(results, axis, names)
    return ChartData(
        levels=levels,
        zones=_zones(results, axis, names),
        bars=bars(results, axis),
        drops=_drops(results, axis, names),
        costs=_costs(levels),
        axis=axis,
        series=tuple(names.values()),
        bins=tuple(b.label for b in results.bins),
        note=note(results),
    )


def only_full(drawn: pl.DataFrame, levels: pl.DataFrame) -> bool:
    """Whether full cache alone is left of levels that are more: a chart of it would compare nothing."""
    return bool(drawn["is_full"].all()) and not levels["is_full"].all()


def note(results: Results) -> str:
    """What every chart must carry: the alarms in a few words, and that there is no baseline."""
    parts = [alarm.stamp for alarm in alarms(results)]
    if not results.full:
        parts.append("no full-cache run to compare with")
    return " · ".join(parts)


def state(run: Run, verdict: Verdict | None) -> str:
    """Where a level lies in its series' verdict: full | safe | between | broken | unknown."""
    if run.is_full:
        return "full"
    if verdict is None or not verdict.judges:
        return "unknown"
    if not nothing_safe(verdict) and run.kv_budget >= (verdict.safe_budget or 0.0):
        return "safe"
    return "broken" if verdict.broken is not None and run.kv_budget <= verdict.broken else "between"


def _levels(results: Results, axis: BudgetAxis, names: Mapping[str, str]) -> pl.DataFrame:
    rows = []
    bins = {b.bin_idx: b.label for b in results.bins} | {ALL: "all lengths"}
    for name in names:
        for run in ([results.full] if results.full else []) + results.levels(name):
            for bin_idx, label in bins.items():
                stat = results.stat(run, bin_idx)
                if stat is None:
                    continue
                rows.append(
                    {
                        "series": names[name],
                        "x": axis.at(run.kv_budget, is_full=bool(run.is_full)),
                        "budget": "full cache" if run.is_full else cache_share(run.kv_budget, run.kv_unit),
                        "is_full": bool(run.is_full),
                        "evidence": status(results, run),
                        "bin": label,
                        "cache": cache_state(stat.cached_share),
                        "state": state(run, results.verdict(name, bin_idx)),
                        **{c: getattr(stat, c) for c in LEVEL_SCHEMA if hasattr(stat, c)},
                    }
                )
    return pl.DataFrame(rows, schema=LEVEL_SCHEMA, orient="row")


def _zones(results: Results, axis: BudgetAxis, names: Mapping[str, str]) -> pl.DataFrame:
    """Safe, transition and broken spans of each verdict, from full cache down, to the edges of the axis."""
    rows = [
        {"series": names[v.series], "bin_idx": v.bin_idx, "part": part, "x": x, "x2": x2, "says": v.verdict_text}
        for v in results.verdicts
        for part, x, x2 in spans_of(v, axis)
        if part != NO_VERDICT and v.series in names
    ]
    return pl.DataFrame(rows, schema=ZONE_SCHEMA, orient="row")


def _drops(results: Results, axis: BudgetAxis, names: Mapping[str, str]) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for name in results.series:
        for run in results.levels(name):
            d = results.drop(run)
            if d is None or d.drop_mean is None:
                continue
            for cause, share in ((ANSWERS, d.drop_wrong), (CUT_OFF, d.drop_cut_off), (FAILURE, d.drop_failures)):
                rows.append(
                    {
                        "series": names[name],
                        "x": axis.at(run.kv_budget),
                        "budget": cache_share(run.kv_budget, run.kv_unit),
                        "cause": cause,
                        "share": share,
                        "drop_mean": d.drop_mean,
                        "drop_ci_low": d.drop_ci_low,
                        "drop_ci_high": d.drop_ci_high,
                    }
                )
    return pl.DataFrame(rows, schema=DROP_SCHEMA, orient="row")


def _costs(levels: pl.DataFrame) -> pl.DataFrame:
    """TTFT and TPOT of all lengths together in milliseconds, a row for each of the two."""
    parts = [
        levels.filter(pl.col("bin_idx") == ALL).select(
            "series",
            "x",
            "budget",
            "cache",
            metric=pl.lit(name),
            p50=pl.col(f"{column}_p50_s") * 1000,
            p95=pl.col(f"{column}_p95_s") * 1000,
        )
        for name, column in (("TTFT", "ttft"), ("TPOT", "tpot"))
    ]
    return pl.concat(parts).select(*COST_SCHEMA).cast(pl.Schema(COST_SCHEMA))

"""Verdicts as spans of the budget axis: which part of it is safe, broken, or between the two. Rows in, spans out."""

from collections.abc import Iterable
from typing import Any

import polars as pl

from analyzer.charts.axis import BudgetAxis
from analyzer.results.confidence import nothing_safe
from analyzer.results.results import Results
from analyzer.results.series_names import series_name, short_names, two_lines
from analyzer.store.tables import Verdict
from kvt_async.contract.vocabulary import SeriesVerdict

ZONE_PART = "transition zone"
OPEN_ZONE = "zone open above"  # nothing is proven safe, so the zone reaches up to full cache
NOT_PROVEN = "not proven"
NO_VERDICT = "no verdict"
BAR_SCHEMA: dict[str, Any] = {
    "group": pl.String,
    "row": pl.String,
    "part": pl.String,
    "x": pl.Float64,
    "x2": pl.Float64,
    "says": pl.String,
}


def spans_of(v: Verdict | None, axis: BudgetAxis) -> list[tuple[str, float, float]]:
    """(part, from, to) of one verdict, from full cache down, to the edges of the axis."""
    top, bottom = axis.edges
    if v is None or not v.judges or v.n == 0:
        return [(NO_VERDICT, top, bottom)]
    open_top = nothing_safe(v)
    high = top if open_top else axis.at(v.zone_high or v.safe_budget or 0.0)
    low = bottom if v.zone_low is None else axis.at(v.zone_low)
    spans = [] if open_top else [("safe", top, bottom if v.verdict == SeriesVerdict.NO_TRANSITION else high)]
    if v.verdict != SeriesVerdict.NO_TRANSITION:
        spans.append((NOT_PROVEN if v.zone_low is None else OPEN_ZONE if open_top else ZONE_PART, high, low))
    if v.zone_low is not None:
        spans.append(("broken", low, bottom))
    return spans


def bars(results: Results, axis: BudgetAxis) -> pl.DataFrame:
    """Spans of the first series over all lengths and at each, then of the other series over all lengths."""
    rows: list[dict[str, Any]] = []
    names = short_names(results.series)
    for series in results.series:
        is_first = series == results.series[0]
        whole = results.verdict(series)
        group = series_name(series) if is_first else "Other series, on average over lengths"
        lengths = results.bins if is_first and len(results.bins) > 1 else []
        name = "On average" if lengths else "All lengths" if is_first else two_lines(names[series])
        rows += bar(group, name, spans_of(whole, axis), whole.verdict_text if whole else "")
        for b in lengths:
            verdict = results.verdict(series, b.bin_idx)
            rows += bar(group, f"{b.label} tokens", spans_of(verdict, axis), verdict.verdict_text if verdict else "")
    return pl.DataFrame(rows, schema=BAR_SCHEMA, orient="row")


def bar(group: str, row: str, spans: Iterable[tuple[str, float, float]], says: str) -> list[dict[str, Any]]:
    return [{"group": group, "row": row, "part": part, "x": x, "x2": x2, "says": says} for part, x, x2 in spans]

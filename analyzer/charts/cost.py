"""Charts by length bin (accuracy, failures, latency) and of what a budget buys. Frames in, charts out."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import altair as alt
import polars as pl

from analyzer.charts.accuracy import POINT, by_series, point_tips
from analyzer.charts.axis import BudgetAxis
from analyzer.charts.compose import LOOKS, OWN_X, Drawing, facet, layer, panels, source, unit
from analyzer.charts.frames import CHANGES, ChartData, only_full
from analyzer.charts.style import STEPS, ChartSize, budget_x, colour, dash, empty, records, shape, share_y
from analyzer.results.number_format import percent


@dataclass(frozen=True, eq=False)
class Panel:
    """What one chart by length bin shows: its figure, the ends of the bar through it, its columns and tooltips. One of
    a kind is made, and marks are kept by it."""

    name: str
    y: alt.Y
    low: str
    high: str
    columns: tuple[str, ...]
    tips: list[alt.Tooltip]


def acc_by_bin(data: ChartData, size: ChartSize) -> Any:
    """Accuracy in each length bin, a line per budget, a panel per series; bars are 95% CIs."""
    frame = _binned(data, "acc_mean")
    if frame.is_empty():
        return empty("No length bin has answers yet.", size)
    return _by_bin(_accuracy(), frame, data, size)


@lru_cache(1)
def _accuracy() -> Panel:
    y = share_y("acc_mean", "Accuracy")
    return Panel("acc_by_bin", y, "acc_ci_low", "acc_ci_high", POINT, point_tips())


def fail_by_bin(data: ChartData, size: ChartSize) -> Any:
    """Share of failed requests in each length bin; bars are 95% Wilson intervals."""
    frame = _binned(data, "fail_rate")
    if frame.is_empty():
        return empty("No length bin has finished requests yet.", size)
    if not frame["n_failures"].sum():
        most = percent(float(frame.select(pl.max_horizontal("fail_ci_high", "fail_rate").max()).item()), 1)
        return empty(f"No request failed. By its 95% interval, the rate of one bin is at most {most}.", size)
    top = max(0.1, min(1.0, float(frame.select(pl.max_horizontal("fail_ci_high", "fail_rate").max()).item() or 0.1)))
    return _by_bin(_failures(top), frame, data, size)


@lru_cache(LOOKS)
def _failures(top: float) -> Panel:
    columns = ("series", "bin", "budget", "n", "n_failures", "fail_rate", "fail_ci_low", "fail_ci_high")
    tips = [
        alt.Tooltip("series:N"),
        alt.Tooltip("budget:N"),
        alt.Tooltip("bin:N", title="prompt tokens"),
        alt.Tooltip("fail_rate:Q", title="failure rate", format=".2%"),
        alt.Tooltip("n_failures:Q", title="failed"),
        alt.Tooltip("n:Q", title="requests"),
    ]
    y = alt.Y(
        "fail_rate:Q",
        title="Failed requests",
        scale=alt.Scale(domain=[0, top], nice=True),
        axis=alt.Axis(format="%", tickCount=5),
    )
    return Panel("fail_by_bin", y, "fail_ci_low", "fail_ci_high", columns, tips)


def latency_p50_by_bin(data: ChartData, size: ChartSize) -> Any:
    """Median latency in each length bin; the bar above each point reaches to p95."""
    frame = _binned(data, "latency_p50_s").with_columns(
        p50=pl.col("latency_p50_s") * 1000, p95=pl.col("latency_p95_s") * 1000
    )
    if frame.is_empty():
        return empty("No latency was measured: no request has been answered.", size)
    return _by_bin(_latency(), frame, data, size)


@lru_cache(1)
def _latency() -> Panel:
    tips = [
        alt.Tooltip("series:N"),
        alt.Tooltip("budget:N"),
        alt.Tooltip("bin:N", title="prompt tokens"),
        alt.Tooltip("p50:Q", title="p50, ms", format=",.1f"),
        alt.Tooltip("p95:Q", title="p95, ms", format=",.1f"),
        alt.Tooltip("cache:N", title="cache state"),
        alt.Tooltip("n:Q", title="requests"),
    ]
    y = alt.Y("p50:Q", title="Latency, p50 to p95 (ms)", scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=5))
    return Panel("latency_p50_by_bin", y, "p50", "p95", ("series", "bin", "budget", "n", "p50", "p95", "cache"), tips)


def _binned(data: ChartData, field: str) -> pl.DataFrame:
    return data.levels.filter((pl.col("bin_idx") >= 0) & pl.col(field).is_not_null())


def _by_bin(panel: Panel, frame: pl.DataFrame, data: ChartData, size: ChartSize) -> Any:
    """Draws a panel per series: bins from left to right, and budgets side by side within a bin."""
    budgets = tuple(frame.sort("x", descending=data.axis.reverse)["budget"].unique(maintain_order=True))
    marks = _levels_side_by_side(panel, budgets, data.bins_of(frame), size)
    drawing = layer(*marks, data=records(frame, *panel.columns), width=size.panel(len(data.series)), height=180)
    return facet(drawing, panels("series", data.series), columns=size.columns, resolve=OWN_X)


@lru_cache(LOOKS)
def _levels_side_by_side(
    panel: Panel, budgets: tuple[str, ...], bins: tuple[str, ...], size: ChartSize
) -> list[Drawing]:
    """Bars, lines and points of the levels, from full cache down within a bin."""
    picked = alt.selection_point(name=f"budget_of_{panel.name}", fields=["budget"], bind="legend")
    scale = (
        alt.Scale(domain=list(budgets), scheme=STEPS)
        if len(budgets) > 1
        else alt.Scale(domain=list(budgets), range=["#0072B2"])
    )
    legend = alt.Legend(title="KV budget", columns=3 if size.narrow else 9, symbolType="circle")
    base = alt.Chart().encode(
        x=alt.X(
            "bin:N",
            sort=list(bins),
            title="Prompt tokens",
            axis=alt.Axis(labelAngle=-35 if size.narrow or len(bins) > 5 else -20, grid=False),
            scale=alt.Scale(paddingInner=0.25, paddingOuter=0.12),
        ),
        xOffset=alt.XOffset("budget:N", sort=list(budgets), scale=alt.Scale(domain=list(budgets))),
        color=alt.Color("budget:N", sort=list(budgets), scale=scale, legend=legend),
        opacity=alt.OpacityValue(0.1, condition={"param": picked.name, "value": 1.0}),
    )
    field = str(panel.y.shorthand).split(":")[0]
    return [
        unit(
            base.mark_rule(strokeWidth=1.6, strokeOpacity=0.65).encode(
                y=alt.Y(f"{panel.low}:Q"), y2=alt.Y2(f"{panel.high}:Q")
            ),
            picked,
        ),
        unit(base.mark_line(strokeWidth=1.1, strokeOpacity=0.55).encode(y=panel.y)),
        unit(
            base.mark_point(filled=True, size=32, fillOpacity=1, shape="circle").encode(
                y=alt.Y(f"{field}:Q"), tooltip=panel.tips
            )
        ),
    ]


def ttft_tpot_by_budget(data: ChartData, size: ChartSize) -> Any:
    """Time to first token and time per output token against the budget: median, with a bar up to p95."""
    frame = data.costs.filter(pl.col("p50").is_not_null())
    if frame.is_empty():
        return empty("No latency was measured: no request has been answered.", size)
    names = {"TTFT": "time to first token, TTFT", "TPOT": "time per output token, TPOT"}
    news = [metric for (metric,), rows in frame.group_by("metric", maintain_order=True) if _tells(rows)]
    shown = [metric for metric in names if metric in news] or frame["metric"].unique(maintain_order=True).to_list()
    frame = frame.filter(pl.col("metric").is_in(shown)).with_columns(metric=pl.col("metric").replace(names))
    marks = _latencies(data.axis, data.series, size)
    panel = layer(*marks, data=records(frame, *frame.columns), width=size.panel(2), height=200)
    return facet(
        panel,
        panels("metric", tuple(names[metric] for metric in shown)),
        columns=size.columns,
        resolve={**OWN_X, "scale": {"y": "independent"}},
    )


def _tells(rows: pl.DataFrame) -> bool:
    """Whether a latency differs between levels: TPOT of answers that came in one packet is 0 at each."""
    return rows["p50"].round(3).n_unique() > 1


@lru_cache(LOOKS)
def _latencies(axis: BudgetAxis, series: tuple[str, ...], size: ChartSize) -> list[Drawing]:
    """Bars, lines and points of medians."""
    picked, faded = by_series("series_of_latency")
    base = alt.Chart().encode(x=budget_x(axis, size.panel(2)), color=colour(series, size), opacity=faded)
    return [
        unit(base.mark_rule(strokeOpacity=0.35, strokeWidth=1.4).encode(y=alt.Y("p50:Q"), y2=alt.Y2("p95:Q")), picked),
        unit(
            base.mark_line(strokeWidth=2).encode(
                y=alt.Y("p50:Q", title="ms, p50 to p95", axis=alt.Axis(tickCount=5)), strokeDash=dash(series)
            )
        ),
        unit(
            base.mark_point(filled=True, size=44, fillOpacity=1).encode(
                y=alt.Y("p50:Q"),
                shape=shape(series),
                tooltip=[
                    alt.Tooltip("series:N"),
                    alt.Tooltip("budget:N"),
                    alt.Tooltip("metric:N"),
                    alt.Tooltip("p50:Q", title="p50, ms", format=",.2f"),
                    alt.Tooltip("p95:Q", title="p95, ms", format=",.2f"),
                    alt.Tooltip("cache:N", title="cache state"),
                ],
            )
        ),
    ]


def pareto(data: ChartData, size: ChartSize) -> Any:
    """Quality against cache bytes; the area of a point is its median latency. Upper left is better."""
    whole = data.levels.filter((pl.col("bin_idx") == -1) & pl.col("acc_mean").is_not_null())
    measured = whole.filter(pl.col("kv_bytes_p50") > 0)
    if measured.is_empty():
        return empty("Memory is not known: the server reports no bytes of what it kept.", size)
    if only_full(measured, data.levels):
        return empty(f"Memory can't be drawn: {CHANGES}. The report tells the most that was held.", size)
    measure, scale = next(
        (u, s) for u, s in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1.0)) if _fits(measured, s)
    )
    frame = measured.with_columns(memory=pl.col("kv_bytes_p50") / scale, latency=pl.col("latency_p50_s") * 1000)
    rows = source(records(frame, *POINT, "memory", "latency", "cache"))
    marks = _costs(data.series, size, measure, tuple(_sizes(frame)))
    return layer(*(mark.on(rows) for mark in marks), width=size.width, height=260 if size.narrow else 320)


@lru_cache(LOOKS)
def _costs(series: tuple[str, ...], size: ChartSize, measure: str, latencies: tuple[float, ...]) -> list[Drawing]:
    """Bars, lines and points of accuracy by memory in `measure`; latencies: what the legend of sizes shows."""
    picked, faded = by_series("series_of_pareto")
    base = alt.Chart().encode(
        x=alt.X(
            "memory:Q",
            title=f"KV cache per request, median ({measure})",
            scale=alt.Scale(zero=True),
            axis=alt.Axis(tickCount=4 if size.narrow else 8),
        ),
        color=colour(series, size),
        opacity=faded,
    )
    tips = point_tips(
        alt.Tooltip("memory:Q", title=f"KV cache, {measure}", format=",.3f"),
        alt.Tooltip("latency:Q", title="latency p50, ms", format=",.1f"),
        alt.Tooltip("cache:N", title="cache state"),
    )
    sizes = alt.Size(
        "latency:Q",
        title="Latency p50 (ms)",
        scale=alt.Scale(range=[20, 190], zero=True),
        legend=None
        if size.narrow
        else alt.Legend(symbolFillColor="#888888", symbolStrokeColor="#888888", values=list(latencies), format=",.3~g"),
    )
    return [
        unit(
            base.mark_rule(strokeOpacity=0.6).encode(y=share_y("acc_ci_low", "Accuracy"), y2=alt.Y2("acc_ci_high:Q")),
            picked,
        ),
        unit(
            base.mark_line(strokeWidth=1.4, strokeOpacity=0.7).encode(
                y=alt.Y("acc_mean:Q"), order=alt.Order("x:Q"), strokeDash=dash(series)
            )
        ),
        unit(
            base.mark_point(filled=True, fillOpacity=0.9).encode(
                y=alt.Y("acc_mean:Q"), shape=shape(series), size=sizes, tooltip=tips
            )
        ),
    ]


def _fits(frame: pl.DataFrame, scale: float) -> bool:
    top = frame["kv_bytes_p50"].max()
    return scale == 1.0 or (isinstance(top, float) and top >= scale)


def _sizes(frame: pl.DataFrame) -> list[float]:
    """Two round sizes for the legend, from the smallest and the largest latency."""
    values = frame["latency"].drop_nulls()
    if values.is_empty():
        return []
    return sorted({float(f"{float(v):.2g}") for v in (values.min(), values.max()) if isinstance(v, float)})

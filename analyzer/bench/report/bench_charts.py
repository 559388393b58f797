"""Charts of a bench: latency distributions, throughput and latency, time, parts of TTFT. Points in, charts out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from analyzer.bench.figures.points import Point
from analyzer.bench.figures.spread import Estimate
from analyzer.bench.read.request_metrics import TITLES
from analyzer.bench.report.bench_verdict import level_of, name_of
from analyzer.charts.compose import facet, layer, unit
from analyzer.charts.style import PALETTE, STEPS, ChartSize, colour, empty, records, shape

CDF_POINTS = 80
MOST_LINES = 12  # loads in one chart; more can't be told apart
PARTS = {"queue": "queue", "prefill": "prefill", "other": "other server time", "beyond": "network and client"}
_METRICS = {name: TITLES[name] for name in ("ttft", "tpot", "latency")}


@dataclass(frozen=True)
class BenchChart:
    """A chart of a bench; `says` explains its marks."""

    name: str
    title: str
    says: str
    draw: Callable[[Sequence[Point], ChartSize], Any]


def latency_cdf(points: Sequence[Point], size: ChartSize) -> Any:
    """Share of the requests that were sent which had their first token, or end, within x; failures never do."""
    rows = []
    for point in _some(points):
        failed = point.n_failed
        for metric, title in _METRICS.items():
            values = np.sort(np.concatenate([r.values[metric] for r in point.results]))
            values = values[values > 0]  # the axis is logarithmic; chunks of one read can give a TPOT of 0
            if len(values) == 0:
                continue
            for q in np.linspace(0, 1, min(CDF_POINTS, len(values))):
                at = min(int(q * len(values)), len(values) - 1)
                rows.append(
                    {
                        "load": name_of(point),
                        "metric": title,
                        "ms": values[at] * 1000,
                        "share": (at + 1) / (len(values) + failed),
                    }
                )
    if not rows:
        return empty("No request was answered.", size)
    names = [name_of(point) for point in _some(points)]
    tips = [alt.Tooltip("load:N"), alt.Tooltip("ms:Q", format=",.1f"), alt.Tooltip("share:Q", format=".1%")]
    picked = alt.selection_point(name="load_of_cdf", fields=["load"], bind="legend")
    lines = (
        alt.Chart(records(pl.DataFrame(rows), "load", "metric", "ms", "share"))
        .mark_line(strokeWidth=1.8, interpolate="step-after")
        .encode(
            x=alt.X(
                "ms:Q",
                title="ms",
                scale=alt.Scale(type="log", nice=False),
                axis=alt.Axis(tickCount=4, labelSeparation=10),
            ),
            y=alt.Y("share:Q", title="of the requests sent", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
            color=_by_load(names, size),
            opacity=alt.condition(picked, alt.value(1.0), alt.value(0.1)),
            tooltip=tips,
        )
        .properties(width=size.width if size.narrow else (size.width - 90) // 3, height=200)
    )
    panels = alt.Facet("metric:N", sort=list(_METRICS.values()), title=None)
    own = {"scale": {"x": "independent"}}
    return facet(unit(lines, picked), panels, columns=1 if size.narrow else 3, resolve=own)


def frontier(points: Sequence[Point], size: ChartSize) -> Any:
    """Output tokens per second against p99 TTFT, a point a load, joined in the order of the load; bars are CIs."""
    both = [(point, point.figures["output_tokens_per_s"], point.figures.get("ttft_p99_s")) for point in points]
    shown = [(point, out, ttft) for point, out, ttft in both if ttft is not None and ttft.value > 0 and out.value >= 0]
    shown = [(point, out, ttft) for point, out, ttft in shown if math.isfinite(ttft.value) and math.isfinite(out.value)]
    if not shown:
        return empty("No load was measured.", size)
    times = around([ttft.value for _, _, ttft in shown], log=True)
    outputs = around([out.value for _, out, _ in shown], log=False)
    rows = []
    lowest, highest = math.inf, 0.0
    for point, out, ttft in shown:
        out_low, out_high = bar(out, outputs)
        ms_low, ms_high = bar(ttft, times)
        lowest, highest = min(lowest, ms_low), max(highest, ms_high)
        rows.append(
            {
                "series": level_of(point) or "loads",
                "load": point.load,
                "value": point.value,
                "out": out.value,
                "out_low": out_low,
                "out_high": out_high,
                "ms": ttft.value * 1000,
                "ms_low": ms_low * 1000,
                "ms_high": ms_high * 1000,
            }
        )
    frame = pl.DataFrame(rows)
    scale = rate_scale(frame["out_low"].to_list(), frame["out_high"].to_list())
    series = frame["series"].unique(maintain_order=True).to_list()
    picked = alt.selection_point(name="series_of_frontier", fields=["series"], bind="legend")
    base = alt.Chart(records(frame, *frame.columns)).encode(
        color=colour(series, size), opacity=alt.condition(picked, alt.value(1.0), alt.value(0.1))
    )
    x = alt.X("out:Q", title="output tokens per second", scale=scale)
    edges = [lowest * 800, highest * 1250]  # ms, with a quarter of room
    y = alt.Y(
        "ms:Q",
        title="TTFT p99, ms",
        scale=alt.Scale(type="log", domain=edges, nice=False),
        axis=alt.Axis(values=log_ticks(*edges), format="~r"),
    )
    tips = [
        alt.Tooltip("load:N"),
        alt.Tooltip("out:Q", title="output tokens/s", format=",.1f"),
        alt.Tooltip("ms:Q", title="TTFT p99, ms", format=",.1f"),
    ]
    return layer(
        unit(base.mark_rule(strokeOpacity=0.5).encode(x="out_low:Q", x2="out_high:Q", y=y), picked),
        base.mark_rule(strokeOpacity=0.5).encode(x=x, y="ms_low:Q", y2="ms_high:Q"),
        base.mark_line(strokeWidth=1.6).encode(x=x, y=y, order="value:Q"),
        base.mark_point(filled=True, size=60, fillOpacity=1).encode(x=x, y=y, shape=shape(series), tooltip=tips),
        base.mark_text(align="left", dx=7, dy=-7, fontSize=11).encode(x=x, y=y, text="load:N"),
        width=size.width,
        height=260,
    )


def over_time(points: Sequence[Point], size: ChartSize) -> Any:
    """First repeat of each load: arrivals (dashed) and completions per second, in flight, TTFT; and by the server's own
    pages what ran there (dashed, beside what is in flight), waited, filled its cache and came of its drafts."""
    titles = {
        "achieved_per_s": "requests/s",
        "offered_per_s": "requests/s",
        "in_flight": "in flight",
        "running": "in flight",
        "ttft_p50_s": "TTFT p50, ms",
        "waiting": "waiting at the server",
        "kv_usage": "KV cache used, %",
        "acceptance": "drafted tokens accepted, %",
    }
    scale = {"ttft_p50_s": 1000.0, "kv_usage": 100.0, "acceptance": 100.0}
    beside = "offered, or at the server"
    dashed = {"offered_per_s": beside, "running": beside}
    telling = {column for point in _some(points) for column in titles if _tells(point.results[0].timeline[column])}
    if len({titles[column] for column in telling - {"waiting"}}) % 2 == 0:
        telling.discard("waiting")  # it is what lies between in flight and running: shown where a panel has room
    rows = []
    for point in _some(points):
        frame = point.results[0].timeline
        for column, title in titles.items():
            if column not in telling:
                continue
            for t, value in frame.select("t_s", column).drop_nulls().iter_rows():
                rows.append(
                    {
                        "load": name_of(point),
                        "panel": title,
                        "t": t,
                        "y": value * scale.get(column, 1.0),
                        "line": dashed.get(column, "measured"),
                    }
                )
    if not rows:
        return empty("Nothing was measured over time.", size)
    names = [name_of(point) for point in _some(points)]
    picked = alt.selection_point(name="load_of_time", fields=["load"], bind="legend")
    dashes = alt.Scale(domain=["measured", beside], range=[[1, 0], [3, 3]])
    shown = [title for title in dict.fromkeys(titles.values()) if any(row["panel"] == title for row in rows)]
    in_a_row = 3 if len(shown) == 3 and not size.narrow else size.columns  # a hole in the last row would be an axis
    lines = (
        alt.Chart(records(pl.DataFrame(rows), "load", "panel", "line", "t", "y"))
        .mark_line(strokeWidth=1.5)
        .encode(
            x=alt.X("t:Q", title="seconds since the stage's start"),
            y=alt.Y("y:Q", title=None, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=4)),
            color=_by_load(names, size),
            strokeDash=alt.StrokeDash(
                "line:N", scale=dashes, title=None, legend=alt.Legend(symbolType="stroke", symbolStrokeWidth=2)
            ),
            opacity=alt.condition(picked, alt.value(1.0), alt.value(0.1)),
            tooltip=[
                alt.Tooltip("load:N"),
                alt.Tooltip("panel:N"),
                alt.Tooltip("t:Q", format=".1f"),
                alt.Tooltip("y:Q", format=",.1f"),
            ],
        )
        .properties(width=size.panel(2) if in_a_row == size.columns else (size.width - 110) // 3, height=120)
    )
    panels = alt.Facet("panel:N", sort=shown, title=None)
    return facet(unit(lines, picked), panels, columns=in_a_row, resolve={"scale": {"y": "independent"}})


def _tells(values: pl.Series) -> bool:
    """Whether anything of it is not 0."""
    return bool((values.drop_nulls() != 0).any())


def ttft_parts(points: Sequence[Point], size: ChartSize) -> Any:
    """Mean TTFT of each load in the server's own parts, and what lies beyond the server's own clock."""
    rows = []
    for point in points:
        parts = [r.breakdown for r in point.results if r.breakdown is not None]
        for order, (name, title) in enumerate(PARTS.items()):
            values = [getattr(part, name) for part in parts]
            value = float(np.mean(values)) if values else math.nan
            if not math.isnan(value):
                rows.append({"load": name_of(point), "part": title, "order": order, "ms": max(value, 0.0) * 1000})
    if not rows:
        return empty("The server told nothing of its own time to first token on its metrics page.", size)
    names = [name_of(point) for point in points]
    colours = alt.Scale(domain=list(PARTS.values()), range=list(PALETTE[: len(PARTS)]))
    return (
        alt.Chart(records(pl.DataFrame(rows), "load", "part", "order", "ms"))
        .mark_bar()
        .encode(
            y=alt.Y("load:N", sort=names, title=None, axis=alt.Axis(labelLimit=160)),
            x=alt.X("ms:Q", title="mean TTFT, ms", stack="zero"),
            color=alt.Color("part:N", scale=colours, title=None, legend=alt.Legend(columns=2 if size.narrow else 4)),
            order="order:Q",
            tooltip=[alt.Tooltip("load:N"), alt.Tooltip("part:N"), alt.Tooltip("ms:Q", format=",.1f")],
        )
        .properties(width=size.width, height=max(60, 28 * len(names)))
    )


FRONTIER = "bench_frontier"  # of loads that have a rate
KINDS = (
    BenchChart(
        FRONTIER,
        "Throughput against time to first token",
        "A point a load, joined in the order of the load; "
        "to the right and low is better. Bars are confidence intervals.",
        frontier,
    ),
    BenchChart(
        "bench_latency_cdf",
        "How many requests had their answer within x",
        "Share of all requests that were sent: "
        "a failure never gets there, so a line that ends below 100% shows the failures.",
        latency_cdf,
    ),
    BenchChart(
        "bench_over_time",
        "Over time",
        "First repeat of each load. Dashed: arrivals, and requests that run at the server; solid: completions, and "
        "requests in flight. In-flight requests that keep growing mean that the server does not keep up.",
        over_time,
    ),
    BenchChart(
        "bench_ttft_parts",
        "Where the time to first token went",
        "Means by the server's own histograms; what lies "
        "beyond them is network, the server's HTTP side and this client.",
        ttft_parts,
    ),
)


def rate_scale(lows: Sequence[float], highs: Sequence[float]) -> alt.Scale:
    """A scale around the values, which starts at 0 where they come near it and never below."""
    low, high = min(lows), max(highs)
    if low < 0.3 * high:
        return alt.Scale(domain=[0, high * 1.12], nice=True, clamp=True)
    return alt.Scale(zero=False, padding=24)


def around(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    """The part of an axis that is the values' own: bars may leave them, but not so far that nothing else is seen.

    A decade to either side of a logarithmic axis; from 0 to twice the highest of a linear one.
    """
    return (min(values) / 10, max(values) * 10) if log else (0.0, 2 * max(values))


def log_ticks(low: float, high: float) -> list[float]:
    """At most eight round numbers of a logarithmic axis, at least two, wherever it lies: Vega labels powers of ten and
    what is left of them, and may label nothing of an axis that has none."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), [n / 10 for n in range(10, 100)]):
        ticks = [float(f"{step * 10.0**decade:.6g}") for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 4:
            break
    return ticks[:: -(-len(ticks) // 8)] if ticks else [float(f"{math.sqrt(low * high):.3g}")]


def bar(estimate: Estimate, limits: tuple[float, float]) -> tuple[float, float]:
    """Both ends of an interval, cut where the axis ends; the value itself where there is none."""
    low, high = _or(estimate.low, estimate.value), _or(estimate.high, estimate.value)
    return max(low, limits[0]), min(high, limits[1])


def _by_load(names: Sequence[str], size: ChartSize) -> alt.Color:
    columns = max(1, int(size.width / (30 + 6.5 * max(len(name) for name in names))))
    legend = alt.Legend(columns=min(6, columns), symbolType="stroke", symbolStrokeWidth=3, labelLimit=size.width - 30)
    scale = alt.Scale(domain=list(names), scheme=STEPS) if len(names) > 1 else alt.Scale(range=[PALETTE[0]])
    return alt.Color("load:N", sort=list(names), scale=scale, title=None, legend=legend)


def _some(points: Sequence[Point]) -> Sequence[Point]:
    """At most MOST_LINES of the points, spread over the whole ladder."""
    if len(points) <= MOST_LINES:
        return points
    return [points[round(i)] for i in np.linspace(0, len(points) - 1, MOST_LINES)]


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value

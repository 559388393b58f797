"""Charts of accuracy by budget and by length. Frames in, charts out."""

import textwrap
from functools import lru_cache
from typing import Any

import altair as alt
import polars as pl

from analyzer.charts.axis import BudgetAxis
from analyzer.charts.compose import LOOKS, OWN_X, Drawing, facet, layer, panels, source, unit
from analyzer.charts.frames import ChartData
from analyzer.charts.spans import OPEN_ZONE, ZONE_PART
from analyzer.charts.style import INKS, ZONE, ChartSize, budget_x, colour, cycle, dash, empty, records, shape, share_y
from analyzer.charts.zone import OPEN_OPACITY, main_width, zone_layers
from analyzer.results.number_format import rounded
from analyzer.results.series_names import two_lines

POINT = ("series", "bin", "budget", "x", "n", "acc_mean", "acc_ci_low", "acc_ci_high", "evidence")
ACCURACY = "Accuracy (mean score, 0 to 1)"
LEAST_FULL = 0.02  # below this at full cache, a share of it says nothing


def point_tips(*more: alt.Tooltip) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("series:N", title="series"),
        alt.Tooltip("budget:N", title="budget"),
        alt.Tooltip("bin:N", title="prompt tokens"),
        alt.Tooltip("acc_mean:Q", title="accuracy", format=".3f"),
        alt.Tooltip("acc_ci_low:Q", title="95% CI from", format=".3f"),
        alt.Tooltip("acc_ci_high:Q", title="95% CI to", format=".3f"),
        alt.Tooltip("n:Q", title="examples"),
        alt.Tooltip("evidence:N", title="evidence"),
        *more,
    ]


def by_series(name: str) -> tuple[alt.Parameter, Any]:
    """Click a series in the legend to set it off; the rest fades.

    The parameter belongs to a chart's first layer: Vega-Lite takes the legend's reaction to clicks from there.
    """
    picked = alt.selection_point(name=name, fields=["series"], bind="legend")
    return picked, alt.OpacityValue(0.12, condition={"param": picked.name, "value": 1.0})


def acc_by_budget(data: ChartData, size: ChartSize) -> Any:
    """Accuracy of all lengths against the budget, CI bands, the headline's zone.

    Left axis: accuracy; right axis: the same relative to full cache, where that has any.
    """
    frame = data.levels.filter((pl.col("bin_idx") == -1) & pl.col("acc_mean").is_not_null())
    if frame.is_empty():
        return empty("No accuracy to draw: nothing has been answered and scored.", size)
    height = 260 if size.narrow else 330
    width = main_width(size)
    full = frame.filter(pl.col("is_full"))["acc_mean"].max()
    relative = isinstance(full, float) and full >= LEAST_FULL
    rows = source(records(frame, *POINT))
    marks = [mark.on(rows) for mark in _levels(data.axis, data.series, size)]
    layers = [*zone_layers(data, width), *marks]
    if not size.narrow and len(data.series) > 1:
        layers.append(_end_labels(frame, data, height, 66 if relative else 8))
    apart = None
    if relative and isinstance(full, float):
        layers, apart = [layer(*layers), _relative_axis(full, size)], {"scale": {"y": "independent"}}
    return layer(*layers, resolve=apart, width=width, height=height)


@lru_cache(LOOKS)
def _levels(axis: BudgetAxis, series: tuple[str, ...], size: ChartSize) -> list[Drawing]:
    """Bands, bars, lines and points of levels."""
    picked, faded = by_series("series_of_budget")
    base = alt.Chart().encode(
        x=budget_x(axis, main_width(size), applied=True), color=colour(series, size), opacity=faded
    )
    band = base.mark_area(fillOpacity=0.14, strokeOpacity=0).encode(
        y=share_y("acc_ci_low", ACCURACY), y2=alt.Y2("acc_ci_high:Q")
    )
    bars = base.mark_rule(strokeWidth=1.4, strokeOpacity=0.75).encode(
        y=alt.Y("acc_ci_low:Q"), y2=alt.Y2("acc_ci_high:Q")
    )
    line = base.mark_line(strokeWidth=2.2).encode(y=alt.Y("acc_mean:Q"), strokeDash=dash(series))
    points = base.mark_point(filled=True, size=62, fillOpacity=1).encode(
        y=alt.Y("acc_mean:Q"), shape=shape(series), tooltip=point_tips()
    )
    return [unit(band, picked), unit(bars), unit(line), unit(points)]


def _relative_axis(full: float, size: ChartSize) -> Any:
    """The right axis: accuracy as a share of full cache's; an invisible mark carries it."""
    axis = alt.Axis(
        orient="right",
        format=".0%",
        values=[0, 0.25, 0.5, 0.75, 1],
        grid=False,
        title=None if size.narrow else "relative to full cache",
        titleAngle=90,
        titlePadding=6,
    )
    return (
        alt.Chart(alt.InlineData(values='[{"relative": 1}]'))
        .mark_rule(opacity=0)
        .encode(y=alt.Y("relative:Q", scale=alt.Scale(domain=[0, 1 / full], nice=False), axis=axis))
    )


def _end_labels(frame: pl.DataFrame, data: ChartData, height: int, dx: int) -> Any:
    """Series names right of their last points, moved apart where they would overlap."""
    last = frame.sort("x", descending=not data.axis.reverse).group_by("series", maintain_order=True).first()
    gap = 29 / height if any("\n" in two_lines(name) for name in data.series) else 15 / height
    ends = sorted((row["acc_mean"], row["series"]) for row in last.to_dicts())
    placed: list[float] = []
    for acc, _ in ends:
        placed.append(max(acc, placed[-1] + gap) if placed else max(acc, 0.02))
    for i, y in enumerate(placed):
        placed[i] = min(y, 0.99 - gap * (len(placed) - 1 - i))
    edge = data.axis.edges[1]
    names = [name for _, name in ends]
    inks = dict(zip(data.series, cycle(INKS, data.series), strict=True))
    rows = pl.DataFrame({"lines": list(map(two_lines, names)), "ink": [inks[name] for name in names], "y": placed})
    return _end_text(dx).on(source(records(rows.with_columns(x=pl.lit(edge)), "lines", "ink", "x", "y")))


@lru_cache(LOOKS)
def _end_text(dx: int) -> Drawing:
    text: dict[str, Any] = {"fontSize": 11, "fontWeight": "bold", "lineBreak": "\n", "lineHeight": 13, "limit": 144}
    return unit(
        alt.Chart()
        .mark_text(align="left", baseline="middle", dx=dx, clip=False, **text)
        .encode(x=alt.X("x:Q"), y=alt.Y("y:Q"), text=alt.Text("lines:N"), color=alt.Color("ink:N", scale=None))
    )


def acc_by_budget_bins(data: ChartData, size: ChartSize) -> Any:
    """Small multiples: accuracy against the budget in each length bin, the headline's zone of that bin shaded."""
    frame = data.levels.filter((pl.col("bin_idx") >= 0) & pl.col("acc_mean").is_not_null())
    if frame.is_empty():
        return empty("No length bin has answers yet.", size)
    zones = data.zones.filter(
        (pl.col("series") == data.series[0]) & (pl.col("bin_idx") >= 0) & pl.col("part").is_in([ZONE_PART, OPEN_ZONE])
    ).join(frame.select("bin_idx", "bin").unique(), on="bin_idx", maintain_order="left")
    both = pl.concat(
        [
            frame.select(*POINT).with_columns(kind=pl.lit("level")),
            zones.select("bin", "x", "x2", "says", "part").with_columns(kind=pl.lit("zone")),
        ],
        how="diagonal",
    )
    bins = data.bins_of(frame)
    width = size.panel(len(bins))
    marks = _levels_of_bins(data.axis, data.series, size, width)
    panel = layer(*marks, data=records(both, *both.columns), width=width, height=170)
    header = "datum.value + ' prompt tokens'"
    return facet(panel, panels("bin", bins, header), columns=size.columns, resolve=OWN_X)


@lru_cache(LOOKS)
def _levels_of_bins(axis: BudgetAxis, series: tuple[str, ...], size: ChartSize, width: int) -> list[Drawing]:
    """The headline's zone, and bands, bars, lines and points of levels."""
    picked, faded = by_series("series_of_bins")
    x = budget_x(axis, width)
    base = alt.Chart().transform_filter("datum.kind == 'level'").encode(x=x, color=colour(series, size), opacity=faded)
    zone = (
        alt.Chart()
        .transform_filter("datum.kind == 'zone'")
        .mark_rect(color=ZONE)
        .encode(
            x=alt.X("x:Q"),
            x2=alt.X2("x2:Q"),
            opacity=alt.OpacityValue(OPEN_OPACITY, condition={"test": f"datum.part == '{ZONE_PART}'", "value": 0.42}),
            tooltip=alt.Tooltip("says:N", title="zone"),
        )
    )
    return [
        unit(zone),
        unit(
            base.mark_area(fillOpacity=0.12, strokeOpacity=0).encode(
                y=alt.Y("acc_ci_low:Q"), y2=alt.Y2("acc_ci_high:Q")
            ),
            picked,
        ),
        unit(base.mark_rule(strokeOpacity=0.7).encode(y=alt.Y("acc_ci_low:Q"), y2=alt.Y2("acc_ci_high:Q"))),
        unit(base.mark_line(strokeWidth=1.8).encode(y=share_y("acc_mean", "Accuracy"), strokeDash=dash(series))),
        unit(
            base.mark_point(filled=True, size=36, fillOpacity=1).encode(
                y=alt.Y("acc_mean:Q"), shape=shape(series), tooltip=point_tips()
            )
        ),
    ]


def heatmap_budget_length(data: ChartData, size: ChartSize) -> Any:
    """Accuracy in every cell of budget x length, a heatmap per series; proven-safe cells are framed."""
    frame = data.levels.filter((pl.col("bin_idx") >= 0) & pl.col("acc_mean").is_not_null())
    if frame.is_empty():
        return empty("No length bin has answers yet.", size)
    order = frame.sort("x", descending=data.axis.reverse)["budget"].unique(maintain_order=True).to_list()
    cell = (size.width - 100) / max(len(order), 3) if not size.narrow else size.width / max(len(order), 3)
    short = {b: "full" if b == "full cache" else b.split(" ")[0] for b in order}
    frame = frame.with_columns(
        at=pl.col("budget").replace_strict(short),
        shown=pl.col("acc_mean").map_elements(_dot if cell < 26 else _two, pl.String),
        ci=pl.format(
            "{}–{}",
            pl.col("acc_ci_low").map_elements(_dot, pl.String),
            pl.col("acc_ci_high").map_elements(_dot, pl.String),
        ),
        mark=pl.when(pl.col("state") == "safe").then(pl.lit("yes")).otherwise(pl.lit("no")),
    )
    is_wide = cell >= 52
    title = textwrap.wrap(data.axis.title.removesuffix(" (evenly spaced)"), max(24, int(cell * len(order) / 5.6)))
    marks = _cells(tuple(short.values()), data.bins, size, cell, tuple(title))
    columns = (*POINT, "at", "ci", "shown", "mark", "state")
    rows = alt.Step(34 if is_wide else 26)
    panel = layer(*marks, data=records(frame, *columns), width=cell * len(order), height=rows)
    return facet(panel, panels("series", data.series), columns=1)


@lru_cache(LOOKS)
def _cells(
    budgets: tuple[str, ...], bins: tuple[str, ...], size: ChartSize, cell: float, title: tuple[str, ...]
) -> list[Drawing]:
    """Areas of the cells, `cell` pixels wide, and what is written in them."""
    is_wide = cell >= 52
    base = alt.Chart().encode(
        x=alt.X(
            "at:N",
            sort=list(budgets),
            title=list(title),
            axis=alt.Axis(labelAngle=0 if cell >= 30 else -90, domain=False, ticks=False),
            scale=alt.Scale(paddingInner=0.06, paddingOuter=0.03),
        ),
        y=alt.Y(
            "bin:N",
            sort=list(bins),
            title="Prompt tokens",
            axis=alt.Axis(domain=False, ticks=False),
            scale=alt.Scale(paddingInner=0.1, paddingOuter=0.04),
        ),
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            "acc_mean:Q",
            scale=alt.Scale(scheme="cividis", domain=[0, 1]),
            legend=alt.Legend(title="Accuracy", format=".1f", gradientLength=min(240, size.width - 40)),
        ),
        stroke=alt.StrokeValue("transparent", condition={"test": "datum.mark == 'yes'", "value": "#D55E00"}),
        strokeWidth=alt.StrokeWidthValue(0, condition={"test": "datum.mark == 'yes'", "value": 2.6}),
        tooltip=point_tips(alt.Tooltip("state:N", title="verdict here")),
    )
    ink = alt.ColorValue("#ffffff", condition={"test": "datum.acc_mean > 0.47", "value": "#000000"})
    value = base.mark_text(fontSize=12 if is_wide else 9, fontWeight="bold", dy=-5 if is_wide else 0).encode(
        text=alt.Text("shown:N"), color=ink
    )
    interval = base.mark_text(fontSize=9, dy=8).encode(text=alt.Text("ci:N"), color=ink)
    return [unit(cells), unit(value), *([unit(interval)] if is_wide else [])]


def _two(value: float) -> str:
    return rounded(value, 2)


def _dot(value: float) -> str:
    """0.98 → .98, to fit a cell."""
    text = _two(value)
    return text.removeprefix("0") if text.startswith("0.") else text

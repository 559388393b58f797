"""The verdict in pictures: the headline's zone behind the curves, a strip for every series. Frames in, charts out."""

from typing import Any

import altair as alt
import polars as pl

from analyzer.charts.frames import NOT_PROVEN, OPEN_ZONE, ZONE_PART, ChartData
from analyzer.charts.style import BROKEN, PART_COLOURS, PART_INKS, PART_NAMES, ZONE, ChartSize, budget_x, records

OPEN_OPACITY = 0.16  # a zone that reaches up to full cache may fill the plot: the curves must stay in front
EDGE = "#B57F00"
LETTER_PX = 5.9  # width of a letter at 11 px
NAMES = {
    "safe": "safe",
    ZONE_PART: "transition zone",
    OPEN_ZONE: "zone open above: nothing is proven safe",
    NOT_PROVEN: "not proven either way",
    "broken": "broken",
}
SHORT = {OPEN_ZONE: "nothing proven safe", NOT_PROVEN: "not proven", ZONE_PART: "zone"}


def main_width(size: ChartSize) -> int:
    """Width of the main chart's plot: room for the right axis and the names at the curves' ends."""
    return size.width - (28 if size.narrow else 190)


def zone_layers(data: ChartData, width: float) -> list[Any]:
    """The headline's transition zone over the full height; what lies below it is shaded; each part named above."""
    zones = data.zones.filter((pl.col("series") == data.series[0]) & (pl.col("bin_idx") == -1))
    layers: list[Any] = []
    for part, fill, opacity in ((ZONE_PART, ZONE, 0.34), (OPEN_ZONE, ZONE, OPEN_OPACITY), ("broken", BROKEN, 0.14)):
        rows = zones.filter(pl.col("part") == part)
        if rows.is_empty():
            continue
        span = alt.Chart(records(rows, "x", "x2", "says", "part"))
        layers.append(
            span.mark_rect(color=fill, opacity=opacity).encode(
                x="x:Q", x2="x2:Q", tooltip=alt.Tooltip("says:N", title=part)
            )
        )
        if part != "broken":
            edges = pl.concat([rows.select("x"), rows.select(x="x2")])
            layers.append(alt.Chart(records(edges, "x")).mark_rule(color=EDGE, strokeWidth=1.6).encode(x="x:Q"))
    return [*layers, *_names(zones, data, width)]


def _names(zones: pl.DataFrame, data: ChartData, width: float) -> list[Any]:
    """The name of each part above the plot, in its middle, where it fits."""
    layers = []
    for row in zones.to_dicts():
        left, right = data.axis.share(row["x"]), data.axis.share(row["x2"])
        room = (right - left) * width
        name = next(
            (n for n in (NAMES[row["part"]], SHORT.get(row["part"], "")) if n and len(n) * LETTER_PX <= room), ""
        )
        if name:
            at = alt.Chart(alt.InlineData(values=[{"name": name}]))
            ink = dict(zip(PART_NAMES, PART_INKS, strict=True))[row["part"]]
            layers.append(
                at.mark_text(color=ink, fontSize=11, fontWeight="bold", dy=-8, clip=False).encode(
                    x=alt.value((left + right) / 2 * width), y=alt.value(0), text="name:N"
                )
            )
    return layers


def strips(data: ChartData, size: ChartSize) -> Any | None:
    """One strip a series: safe, transition zone, broken. The verdict at a glance, on the same axis."""
    rows = data.zones.filter(pl.col("bin_idx") == -1)
    if rows.is_empty():
        return None
    width = main_width(size)
    order = [s for s in data.series if s in rows["series"].to_list()]
    parts = [p for p in PART_NAMES if p in rows["part"].to_list()]
    colours = [dict(zip(PART_NAMES, PART_COLOURS, strict=True))[p] for p in parts]
    return (
        alt.Chart(records(rows, "series", "part", "x", "x2", "says"))
        .mark_bar(height=15, stroke="white", strokeWidth=1)
        .encode(
            x=budget_x(data.axis, width, title="Verdict by budget (95% confidence)", labels=False),
            x2="x2:Q",
            y=alt.Y(
                "series:N",
                sort=order,
                title=None,
                axis=alt.Axis(
                    ticks=False,
                    domain=False,
                    labelLimit=84 if size.narrow else 120,
                    labelFontSize=10 if size.narrow else 11,
                ),
            ),
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=parts, range=colours),
                title=None,
                legend=alt.Legend(symbolType="square", columns=2 if size.narrow else 4),
            ),
            tooltip=[
                alt.Tooltip("series:N"),
                alt.Tooltip("part:N", title="here"),
                alt.Tooltip("says:N", title="verdict"),
            ],
        )
        .properties(width=width, height=alt.Step(22))
    )

"""The verdict in pictures: the headline's zone behind the curves. Frames in, charts out."""

from functools import lru_cache
from typing import Any

import altair as alt
import polars as pl

from analyzer.charts.compose import LOOKS, Drawing, pixels, source, unit
from analyzer.charts.frames import ChartData
from analyzer.charts.spans import NOT_PROVEN, OPEN_ZONE, ZONE_PART
from analyzer.charts.style import BROKEN, PARTS, ZONE, ChartSize, records

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
        layers.append(_area(part, fill, opacity).on(source(records(rows, "x", "x2", "says", "part"))))
        if part != "broken":
            edges = pl.concat([rows.select("x"), rows.select(x="x2")])
            layers.append(_edge().on(source(records(edges, "x"))))
    return [*layers, *_names(zones, data, width)]


@lru_cache(LOOKS)
def _area(part: str, fill: str, opacity: float) -> Drawing:
    return unit(
        alt.Chart()
        .mark_rect(color=fill, opacity=opacity)
        .encode(x=alt.X("x:Q"), x2=alt.X2("x2:Q"), tooltip=alt.Tooltip("says:N", title=part))
    )


@lru_cache(1)
def _edge() -> Drawing:
    return unit(alt.Chart().mark_rule(color=EDGE, strokeWidth=1.6).encode(x=alt.X("x:Q")))


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
            layers.append(_name(name, PARTS[row["part"]].ink, (left + right) / 2 * width))
    return layers


@lru_cache(LOOKS)
def _name(name: str, ink: str, x: float) -> Drawing:
    """A word above the plot, `x` pixels from its left."""
    at = alt.Chart(alt.InlineData(values=[{"name": name}]))
    text = at.mark_text(color=ink, fontSize=11, fontWeight="bold", dy=-8, clip=False)
    return unit(text.encode(x=pixels("X", x), y=pixels("Y", 0), text=alt.Text("name:N")))

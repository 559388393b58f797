"""One style for every chart: palette, shapes and dashes by series, fonts, titles, budget axis, saving.

Colours are Okabe and Ito's, told apart with any colour vision; shape and dash say the same once more. The font is one
that vl-convert carries itself, so the same rows give the same bytes on every machine.
"""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple

import altair as alt
import polars as pl

from analyzer.charts.axis import BudgetAxis
from analyzer.charts.compose import whole

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A4B9E", "#4D4D4D")
INKS = ("#005F94", "#A84A00", "#00694D", "#94417A", "#7A5500", "#1B6E9C", "#6A3D8F", "#4D4D4D")
"""The palette as words on paper: dark enough to read."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [5, 2], [1, 3], [12, 3], [4, 1, 1, 1])
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
INK, MUTED, GRID = "#1a1a1a", "#5c5c5c", "#e3e3e3"
ZONE, BROKEN, SAFE, UNPROVEN = "#FFC93C", "#866786", "#9AD1C0", "#D9D9D9"
ALARM = "#9C1C00"
OPEN = "#FFE9AD"


class Part(NamedTuple):
    """How a part of a verdict is drawn: as an area, as a word on paper, as a word on the area."""

    fill: str
    ink: str
    on_fill: str


PARTS = {
    "safe": Part(SAFE, "#12493A", "#12493A"),
    "transition zone": Part(ZONE, "#7A5200", "#5E3F00"),
    "zone open above": Part(OPEN, "#7A5200", "#5E3F00"),
    "not proven": Part(UNPROVEN, "#4D4D4D", "#3D3D3D"),
    "broken": Part(BROKEN, "#5B3C5B", "#FFFFFF"),
    "no verdict": Part("#F1F1F1", "#4D4D4D", "#4D4D4D"),
}
STEPS = alt.SchemeParams(name="viridis", extent=[0.0, 0.9])


@dataclass(frozen=True)
class ChartSize:
    """How wide a chart may be: WIDE for files, PAGE for the HTML report, NARROW for phones."""

    width: int = 680
    narrow: bool = False

    @property
    def columns(self) -> int:
        return 1 if self.narrow else 2

    def panel(self, n: int) -> int:
        """Width of each of n small multiples."""
        return self.width if self.narrow else self.width - 80 if n == 1 else (self.width - 60) // 2

    @property
    def padding(self) -> int:
        return 2 if self.narrow else 12


WIDE, PAGE, NARROW = ChartSize(), ChartSize(width=980), ChartSize(width=236, narrow=True)


def records(frame: pl.DataFrame, *columns: str) -> alt.InlineData:
    """The rows of a chart inside its spec: only the columns drawn, with six digits, so the same rows give the same
    text.

    As one JSON string, which spec_of opens again: Altair copies its data deeply at every step.
    """
    picked = frame.select(*columns).with_columns(pl.selectors.float().round(6))
    return alt.InlineData(
        values=json.dumps([{k: v for k, v in row.items() if v is not None} for row in picked.to_dicts()])
    )


def colour(series: Sequence[str], size: ChartSize) -> alt.Color:
    """Colour by series with the one series legend; every layer must use it, or Vega-Lite splits or drops the legend."""
    return alt.Color(
        "series:N",
        scale=alt.Scale(domain=list(series), range=cycle(PALETTE, series)),
        title=None,
        legend=alt.Legend(columns=legend_columns(series, size)),
    )


def legend_columns(names: Sequence[str], size: ChartSize) -> int:
    """How many of these names stand side by side below a chart."""
    longest = max((len(name) for name in names), default=0)
    return max(1, min(4, int((size.width + 60) / (6.2 * longest + 34))))


def shape(series: Sequence[str]) -> alt.Shape:
    return alt.Shape("series:N", scale=alt.Scale(domain=list(series), range=cycle(SHAPES, series)), title=None)


def dash(series: Sequence[str]) -> alt.StrokeDash:
    scale = alt.Scale(domain=list(series), range=cycle(DASHES, series))
    return alt.StrokeDash("series:N", scale=scale, title=None)


def cycle(values: Sequence[Any], names: Sequence[str]) -> list[Any]:
    return [values[i % len(values)] for i in range(len(names))]


def budget_x(
    axis: BudgetAxis, width: float, *, title: str | None = None, labels: bool = True, applied: bool = False
) -> alt.X:
    """The budget axis, `width` pixels wide: full cache left, a tick for every tested budget, a label where one fits.

    `applied`: say in the title, and below the labels where it differs, which budget the server applied.
    """
    low, high = axis.domain
    scale = alt.Scale(
        domain=[low, high],
        type="log" if axis.scale == "log" else "linear",
        reverse=axis.reverse,
        nice=False,
        zero=False,
    )
    below = axis.applied if applied and any(axis.applied) else ("",) * len(axis.labels)
    names = {
        f"{axis.values[i]:.6g}": [axis.labels[i], below[i]] if any(below) else axis.labels[i]
        for i in axis.labelled(width)
    }
    words = [title] if title is not None else [axis.title, axis.applied_title] if applied else [axis.title]
    return alt.X(
        "x:Q",
        scale=scale,
        title=[w for line in words if line for w in textwrap.wrap(line, max(24, int(width / 5.6)))],
        axis=alt.Axis(
            values=list(axis.values),
            tickCount=len(axis.values) + 1,  # or Vega leaves out every other value of a narrow axis
            labelExpr=f"{json.dumps(names, ensure_ascii=False)}[format(datum.value, '.6~g')] || ''",
            labelOverlap=False,
            labels=labels,
            ticks=labels,
            grid=False,
        ),
    )


def share_y(field: str, title: str) -> alt.Y:
    return alt.Y(f"{field}:Q", title=title, scale=alt.Scale(domain=[0, 1], nice=False), axis=alt.Axis(tickCount=6))


def title_lines(title: str, says: Sequence[str], note: str, size: ChartSize) -> dict[str, Any]:
    """Title (the message), the note that no chart may go without, and what is drawn, wrapped to the width."""
    chars = max(28, int((size.width + 60) / 6.9))
    small = [line for text in says if text for line in textwrap.wrap(text, int(chars * 1.24))]
    warn = textwrap.wrap(note, chars) if note else []
    return {
        "text": textwrap.wrap(title, int(chars * 0.86)) or [""],
        "subtitle": [*warn, *small],
        "subtitleColor": ALARM if warn else MUTED,
        "anchor": "start",
        "frame": "bounds",
        "offset": 14,
    }


def config(size: ChartSize) -> dict[str, Any]:
    """The shared Vega-Lite configuration."""
    return {
        "font": FONT,
        "background": "white",
        "padding": size.padding,
        "title": {"fontSize": 15, "fontWeight": "bold", "color": INK, "subtitleFontSize": 12, "subtitleLineHeight": 16},
        "axis": {
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "labelColor": INK,
            "titleColor": INK,
            "gridColor": GRID,
            "domainColor": MUTED,
            "tickColor": MUTED,
            "titlePadding": 8,
        },
        "view": {"stroke": None},
        "header": {
            "labelFontSize": 12,
            "labelFontWeight": "bold",
            "labelColor": INK,
            "labelAnchor": "start",
            "labelPadding": 4,
        },
        "legend": {
            "orient": "bottom",
            "direction": "horizontal",
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "symbolSize": 90,
            "symbolStrokeWidth": 0,
            "labelLimit": 240,
            "columnPadding": 16,
            "rowPadding": 4,
            "titleLimit": 260,
        },
        "concat": {"spacing": 10},
        "facet": {"spacing": 26},
    }


def empty(message: str, size: ChartSize) -> Any:
    """A chart that says why there is nothing to draw."""
    lines = textwrap.wrap(message, max(30, size.width // 7))
    return (
        alt.Chart(alt.InlineData(values=json.dumps([{"text": message}])))
        .mark_text(text=lines, fontSize=13, color=MUTED, align="center", lineHeight=18)
        .properties(width=size.width, height=120)
    )


def spec_of(chart: Any, size: ChartSize, title: dict[str, Any] | None) -> dict[str, Any]:
    """Vega-Lite JSON of a chart with title, configuration and what drew it."""
    spec = whole(chart)
    rows = {name: json.loads(v) if isinstance(v, str) else v for name, v in spec.get("datasets", {}).items()}
    head = {"title": title} if title else {}
    return {**spec, **head, "config": config(size), "datasets": rows, "usermeta": {"drawn_with": drawn_with()}}


@cache
def drawn_with() -> str:
    """The versions of what draws."""
    return f"altair {alt.__version__}, vl-convert {metadata.version('vl-convert-python')}"


def vegalite_version() -> str:
    """The Vega-Lite that Altair writes for, as vl-convert names it."""
    return str(alt.SCHEMA_VERSION.lstrip("v").rsplit(".", 1)[0])

"""The verdict as one picture: a bar for each length, series or task, from full cache down: safe | zone | broken."""

from functools import lru_cache
from typing import Any

import altair as alt
import polars as pl

from analyzer.charts.axis import BudgetAxis
from analyzer.charts.compose import LOOKS, Drawing, layer, source, unit, vconcat
from analyzer.charts.frames import ChartData
from analyzer.charts.spans import NOT_PROVEN, OPEN_ZONE, ZONE_PART
from analyzer.charts.style import PARTS, ChartSize, budget_x, empty, records

ON_BAR = {"safe": "safe", ZONE_PART: "zone", OPEN_ZONE: "not proven", NOT_PROVEN: "not proven", "broken": "broken"}
LETTER_PX = 6.6  # width of a letter at 11 px, with a margin


def verdict_by_budget(data: ChartData, size: ChartSize) -> Any:
    """The bars of a group's verdict."""
    return draw_bars(data.bars, data.axis, size)


def draw_bars(frame: pl.DataFrame, axis: BudgetAxis, size: ChartSize) -> Any:
    """A block for each group of bars, one below the other on one budget axis."""
    if frame.is_empty():
        return empty("No verdict to draw: there is no budget below full cache, or nothing was analysed.", size)
    present = set(frame["part"])
    parts = tuple(part for part in PARTS if part in present)
    groups = frame["group"].unique(maintain_order=True).to_list()
    blocks = [
        _block(frame.filter(pl.col("group") == group), group, axis, size, parts, is_last=group == groups[-1])
        for group in groups
    ]
    return blocks[0] if len(blocks) == 1 else vconcat(*blocks)


def _block(
    frame: pl.DataFrame, title: str, axis: BudgetAxis, size: ChartSize, parts: tuple[str, ...], *, is_last: bool
) -> Any:
    width = size.width - (_labels_px(size) - 72 if size.narrow else _labels_px(size) + 10)
    order = tuple(frame["row"].unique(maintain_order=True))
    spans, words = _bar_marks(order, axis, size, width, parts, title=None if is_last else "")
    names = _names(frame, axis, width)
    layers = [spans.on(source(records(frame, "row", "part", "x", "x2", "says")))]
    if names.height:
        layers.append(words.on(source(records(names, "row", "name", "middle", "ink"))))
    head = {"text": title, "anchor": "start", "frame": "bounds", "fontSize": 12 if size.narrow else 13, "offset": 4}
    block = layer(*layers, width=width, height=30 * len(order))
    return Drawing({**block.spec, "title": head}, block.datasets)


def _labels_px(size: ChartSize) -> int:
    """Width of what stands left of the bars."""
    return 118 if size.narrow else 170


@lru_cache(LOOKS)
def _bar_marks(
    order: tuple[str, ...], axis: BudgetAxis, size: ChartSize, width: int, parts: tuple[str, ...], *, title: str | None
) -> tuple[Drawing, Drawing]:
    """The spans of the bars in this order, from above, and the words on them; title: below the budget axis."""
    labels_px = _labels_px(size)
    x = budget_x(axis, width, title=title)
    y = alt.Y(
        "row:N",
        sort=list(order),
        title=None,
        axis=alt.Axis(
            ticks=False,
            domain=False,
            labelExpr="split(datum.label, '\\n')",
            labelLimit=labels_px - 6,
            labelFontSize=10 if size.narrow else 12,
            labelLineHeight=11 if size.narrow else 13,
            labelPadding=6,
            labelOffset=-6 if any("\n" in row for row in order) else 0,
            minExtent=labels_px,
            maxExtent=labels_px,
        ),
    )
    colour = alt.Color(
        "part:N",
        scale=alt.Scale(domain=list(parts), range=[PARTS[part].fill for part in parts]),
        title=None,
        legend=alt.Legend(
            symbolType="square",
            columns=1 if size.narrow else 5,
            labelExpr=f"datum.label == '{OPEN_ZONE}' ? 'zone, nothing proven safe' : datum.label",
        ),
    )
    tips = [
        alt.Tooltip("row:N", title=" "),
        alt.Tooltip("part:N", title="here"),
        alt.Tooltip("says:N", title="verdict"),
    ]
    spans = (
        alt.Chart()
        .mark_bar(height=20 if size.narrow else 22, stroke="white", strokeWidth=1)
        .encode(x=x, x2=alt.X2("x2:Q"), y=y, color=colour, tooltip=tips)
    )
    words = (
        alt.Chart()
        .mark_text(fontSize=10 if size.narrow else 11, fontWeight="bold")
        .encode(x=alt.X("middle:Q"), y=y, text=alt.Text("name:N"), color=alt.Color("ink:N", scale=None))
    )
    return unit(spans), unit(words)


def _names(frame: pl.DataFrame, axis: BudgetAxis, width: float) -> pl.DataFrame:
    """What is written on the spans that are wide enough for it, and where."""
    rows = []
    for row in frame.to_dicts():
        left, right = axis.share(row["x"]), axis.share(row["x2"])
        name = ON_BAR.get(row["part"], row["part"])
        if len(name) * LETTER_PX <= (right - left) * width:
            ink = PARTS[row["part"]].on_fill
            rows.append({"row": row["row"], "name": name, "middle": axis.middle(row["x"], row["x2"]), "ink": ink})
    return pl.DataFrame(
        rows, schema={"row": pl.String, "name": pl.String, "middle": pl.Float64, "ink": pl.String}, orient="row"
    )

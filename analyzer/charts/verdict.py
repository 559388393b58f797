"""The verdict as one picture: a bar for each length, series or task, from full cache down: safe | zone | broken."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from analyzer.charts.axis import BudgetAxis
from analyzer.charts.compose import layer, vconcat
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
    parts = [part for part in PARTS if part in frame["part"].to_list()]
    groups = frame["group"].unique(maintain_order=True).to_list()
    blocks = [
        _block(frame.filter(pl.col("group") == group), group, axis, size, parts, is_last=group == groups[-1])
        for group in groups
    ]
    return blocks[0] if len(blocks) == 1 else vconcat(*blocks)


def _block(
    frame: pl.DataFrame, title: str, axis: BudgetAxis, size: ChartSize, parts: Sequence[str], *, is_last: bool
) -> Any:
    labels_px = 118 if size.narrow else 170
    width = size.width - (labels_px - 72 if size.narrow else labels_px + 10)
    order = frame["row"].unique(maintain_order=True).to_list()
    x = budget_x(axis, width, title=None if is_last else "")
    y = alt.Y(
        "row:N",
        sort=order,
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
        scale=alt.Scale(domain=parts, range=[PARTS[part].fill for part in parts]),
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
    drawn = alt.Chart(records(frame, "row", "part", "x", "x2", "says"))
    spans = drawn.mark_bar(height=20 if size.narrow else 22, stroke="white", strokeWidth=1).encode(
        x=x, x2=alt.X2("x2:Q"), y=y, color=colour, tooltip=tips
    )
    names = _names(frame, axis, width)
    words = [
        alt.Chart(records(names, "row", "name", "middle", "ink"))
        .mark_text(fontSize=10 if size.narrow else 11, fontWeight="bold")
        .encode(x=alt.X("middle:Q"), y=y, text=alt.Text("name:N"), color=alt.Color("ink:N", scale=None))
    ]
    head = {"text": title, "anchor": "start", "frame": "bounds", "fontSize": 12 if size.narrow else 13, "offset": 4}
    block = layer(spans, *(words if names.height else []), width=width, height=30 * len(order))
    block.spec["title"] = head
    return block


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

"""The chart of what answers lose at each load, beside the margin."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from analyzer.bench.quality.load_loss import LoadLoss
from analyzer.charts.compose import layer
from analyzer.charts.style import ALARM, MUTED, ChartSize, colour, empty, records
from analyzer.stats.load_losses import LoadVerdict


def loss_chart(rows: Sequence[LoadLoss], size: ChartSize) -> Any:
    """Loss with its interval by load, a colour for each level; filled where a loss is proven. The margin is dashed."""
    shown = [row for row in rows if row.loss_mean is not None and row.n]
    if not shown:
        return empty("No prompt was answered both unloaded and under a load.", size)
    several = len({row.level for row in shown}) > 1
    frame = pl.DataFrame(
        [
            {
                "series": row.level or "answers",
                "load": row.load,
                "value": row.value,
                "loss": row.loss_mean,
                "low": row.loss_ci_low,
                "high": row.loss_ci_high,
                "proven": row.verdict in (LoadVerdict.BEYOND, LoadVerdict.LOSS, LoadVerdict.SMALL_LOSS),
                "n": row.n,
            }
            for row in shown
        ]
    )
    loads = frame.sort("value")["load"].unique(maintain_order=True).to_list()
    series = frame["series"].unique(maintain_order=True).to_list()
    base = alt.Chart(records(frame, *frame.columns)).encode(
        x=alt.X("load:N", sort=loads, title="load", axis=alt.Axis(labelAngle=0 if len(loads) < 7 else -45)),
    )
    if several:
        base = base.encode(color=colour(series, size), xOffset=alt.XOffset("series:N", sort=series))
    tips = [
        *([alt.Tooltip("series:N")] if several else []),
        alt.Tooltip("load:N"),
        alt.Tooltip("loss:Q", format=".3f"),
        alt.Tooltip("low:Q", format=".3f"),
        alt.Tooltip("high:Q", format=".3f"),
        alt.Tooltip("n:Q", title="prompts", format=","),
    ]
    y = alt.Y("loss:Q", title="loss of accuracy")
    asked = shown[0].asked
    margin = asked["margin"] if asked["margin_kind"] == "absolute" else asked["margin"] * (shown[0].acc_unloaded or 0.0)
    line = alt.Chart(records(pl.DataFrame([{"margin": margin, "zero": 0.0}]), "margin", "zero"))
    return layer(
        line.mark_rule(color=MUTED, strokeWidth=0.8).encode(y="zero:Q"),
        line.mark_rule(color=ALARM, strokeDash=[4, 3]).encode(y="margin:Q"),
        base.mark_rule(strokeWidth=1.6).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.transform_filter("datum.proven").mark_point(filled=True, size=80, fillOpacity=1).encode(y=y, tooltip=tips),
        base.transform_filter("!datum.proven").mark_point(size=80, fill="white").encode(y=y, tooltip=tips),
        width=size.width,
        height=240,
    )

"""Charts of the loss: its causes, and whether a ratio or a number of kept tokens decides. Frames in, charts out."""

import textwrap
from functools import lru_cache
from typing import Any

import altair as alt
import polars as pl

from analyzer.charts.accuracy import POINT, point_tips
from analyzer.charts.compose import LOOKS, OWN_X, Drawing, facet, layer, panels, pixels, unit
from analyzer.charts.frames import ANSWERS, CHANGES, CUT_OFF, FAILURE, ChartData, only_full
from analyzer.charts.style import ALARM, INK, MUTED, SHAPES, STEPS, ChartSize, cycle, empty, records, share_y

CAUSES = {ANSWERS: "#56B4E9", CUT_OFF: "#E69F00", FAILURE: ALARM}


def drop_decomposition(data: ChartData, size: ChartSize) -> Any:
    """Each loss against full cache split by cause; the bar is its 95% CI."""
    if data.drops.is_empty():
        return empty("No loss to split: there is no full-cache run to compare with, or nothing below it.", size)
    frame = data.drops
    order = frame.sort("x", descending=data.axis.reverse)["budget"].unique(maintain_order=True).to_list()
    frame = frame.with_columns(at=pl.col("budget").str.split(" ").list.first())
    names = [b.split(" ")[0] for b in order]
    cut = frame.filter((pl.col("cause") == CUT_OFF) & (pl.col("share") != 0))
    causes = [cause for cause in CAUSES if cause != CUT_OFF or cut.height]
    frame = frame.filter(pl.col("cause").is_in(causes))
    width = size.panel(len(data.series))
    title = textwrap.wrap(data.axis.title.removesuffix(" (evenly spaced)"), max(24, int(width / 5.6)))
    marks = _causes(tuple(names), tuple(causes), tuple(title), width)
    panel = layer(*marks, data=records(frame, *frame.columns), width=width, height=170)
    return facet(panel, panels("series", data.series), columns=size.columns, resolve=OWN_X)


@lru_cache(LOOKS)
def _causes(budgets: tuple[str, ...], causes: tuple[str, ...], title: tuple[str, ...], width: int) -> list[Drawing]:
    """Bars of the parts, the line of no loss, and the intervals of the whole losses."""
    angle = 0 if width / max(1, len(budgets)) >= 30 else -90
    base = alt.Chart().encode(
        x=alt.X(
            "at:N",
            sort=list(budgets),
            title=list(title),
            axis=alt.Axis(labelAngle=angle),
            scale=alt.Scale(padding=0.18),
        )
    )
    bars = base.mark_bar(stroke="white", strokeWidth=0.8).encode(
        y=alt.Y("share:Q", title="Loss against full cache", stack="zero", axis=alt.Axis(tickCount=6)),
        color=alt.Color("cause:N", title=None, scale=alt.Scale(domain=list(causes), range=[CAUSES[c] for c in causes])),
        tooltip=[
            alt.Tooltip("series:N"),
            alt.Tooltip("budget:N"),
            alt.Tooltip("cause:N"),
            alt.Tooltip("share:Q", title="share of the loss", format=".3f"),
            alt.Tooltip("drop_mean:Q", title="loss in total", format=".3f"),
        ],
    )
    ci = (
        base.transform_filter(f"datum.cause == '{ANSWERS}'")
        .mark_rule(color=INK, strokeWidth=1.6)
        .encode(y=alt.Y("drop_ci_low:Q"), y2=alt.Y2("drop_ci_high:Q"))
    )
    left, right = pixels("X", 0), pixels("X2", "width")
    zero = base.mark_rule(color=MUTED, strokeWidth=0.6).encode(y=alt.YDatum(0), x=left, x2=right)
    return [unit(bars), unit(zero), unit(ci)]


def acc_by_kept_tokens(data: ChartData, size: ChartSize) -> Any:
    """Accuracy against kept tokens, a line per length bin: a cliff at one count shows as one fall for all bins."""
    frame = data.levels.filter(
        (pl.col("bin_idx") >= 0) & pl.col("acc_mean").is_not_null() & (pl.col("kept_tokens_p50") > 0)
    )
    if frame.is_empty():
        return empty("Kept tokens are not known: the server gives no evidence of what it kept.", size)
    if only_full(frame, data.levels):
        return empty(f"No number of kept tokens can be drawn: {CHANGES}.", size)
    marks = _bins_by_tokens(data.bins_of(frame), size)
    rows = records(frame, *POINT, "kept_tokens_p50")
    panel = layer(*marks, data=rows, width=size.panel(len(data.series)), height=190)
    return facet(panel, panels("series", data.series), columns=size.columns, resolve=OWN_X)


@lru_cache(LOOKS)
def _bins_by_tokens(bins: tuple[str, ...], size: ChartSize) -> list[Drawing]:
    """Bars, lines and points of each bin."""
    picked = alt.selection_point(name="bin_of_kept", fields=["bin"], bind="legend")
    tint = alt.Color(
        "bin:N",
        sort=list(bins),
        scale=alt.Scale(domain=list(bins), scheme=STEPS),
        title="Prompt tokens",
        legend=alt.Legend(columns=2 if size.narrow else 5),
    )
    base = alt.Chart().encode(
        x=alt.X(
            "kept_tokens_p50:Q",
            title="Tokens kept in the cache (median, log scale)",
            scale=alt.Scale(type="log", nice=False, reverse=True, padding=8),
            axis=alt.Axis(
                values=[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000, 100000],
                format=",.0f",
                grid=True,
                labelOverlap=True,
            ),
        ),
        color=tint,
        opacity=alt.OpacityValue(0.12, condition={"param": picked.name, "value": 1.0}),
    )
    symbols = alt.Scale(domain=list(bins), range=cycle(SHAPES, bins))
    names = alt.Shape("bin:N", scale=symbols, title="Prompt tokens", legend=alt.Legend(columns=2 if size.narrow else 5))
    return [
        unit(base.mark_rule(strokeOpacity=0.6).encode(y=alt.Y("acc_ci_low:Q"), y2=alt.Y2("acc_ci_high:Q")), picked),
        unit(base.mark_line(strokeWidth=2).encode(y=share_y("acc_mean", "Accuracy"))),
        unit(
            base.mark_point(filled=True, size=44, fillOpacity=1).encode(
                y=alt.Y("acc_mean:Q"),
                shape=names,
                tooltip=point_tips(alt.Tooltip("kept_tokens_p50:Q", title="tokens kept", format=",.0f")),
            )
        ),
    ]

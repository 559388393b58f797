"""Conversations as people read them: turn by turn, each as one, and a chart of both. Points in, text out."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from analyzer.bench.figures.conversation_figures import TurnStats
from analyzer.bench.figures.points import Point
from analyzer.bench.report.bench_charts import BenchChart
from analyzer.bench.report.bench_verdict import columns, name_of
from analyzer.bench.report.numbers import ms, plain
from analyzer.charts.compose import facet, unit
from analyzer.charts.style import PALETTE, ChartSize, empty, records
from analyzer.results.text_table import Table, table

MOST_LINES = 4  # loads in the chart
TTFT, SHARE = "TTFT, ms", "share of the prompt, %"  # its panels
DASHES = {"p50": [1, 0], "cached": [1, 0], "p99": [4, 3], "seen before": [4, 3]}


def lines(points: Sequence[Point]) -> list[str]:
    """The terminal's table of turns, 100 columns wide, and a line a load about its conversations; empty without any."""
    talks = [point for point in points if point.turns]
    if not talks:
        return []
    rows = [["turn", "n", "prompt tok", "seen before", "cached", "TTFT p50", "p99", "TPOT p50", "lat. p50", "p99"]]
    for point in talks:
        for of in point.turns:
            rows.append(
                [
                    f"{name_of(point)}, {of.title}",
                    f"{of.n - of.n_failed}/{of.n}",
                    _count(of.prompt_tokens if of.prompt_tokens is not None else of.asked_tokens),
                    _share(of.shared_share),
                    _share(of.cached_share),
                    *(ms(of.summaries["ttft"].stat(stat)) for stat in ("p50", "p99")),
                    ms(of.summaries["tpot"].stat("p50")),
                    *(ms(of.summaries["latency"].stat(stat)) for stat in ("p50", "p99")),
                ]
            )
    note = "(seen before: share of a prompt that was in an earlier prompt or reply; cached: as the server says)"
    return [*columns(rows), note, *(_words(point) for point in talks)]


def _words(point: Point) -> str:
    """'3 users: 36 conversations of 2.8 turns, 36 whole; one lasts 0.13 s (p99 0.37 s), ...'."""
    talks = point.conversations
    assert talks is not None
    text = f"{name_of(point)}: {talks.n:,} conversations of {talks.turns_mean:.3g} turns, {talks.n_whole:,} whole"
    if talks.n_failed:
        text += (
            f", {talks.n_failed:,} ended by a failed turn ({sum(of.n_lost for of in point.turns):,} turns never sent)"
        )
    if talks.n_whole:
        p50, p99 = (plain(talks.duration.stat(stat)) for stat in ("p50", "p99"))
        text += f"; one lasts {p50} s (p99 {p99} s)"
    late = [of.summaries["delay"].stat("p99") for of in point.turns]
    worst = max((value for value in late if not math.isnan(value)), default=math.nan)
    if not math.isnan(worst):
        text += f"; turns began {ms(worst)} ms after their user's pause at the most (p99 of a turn)"
    return text


def turns(points: Sequence[Point]) -> Table:
    """The report's table of turns."""
    rows = [
        {
            "Load": name_of(point),
            "Turn": of.title,
            "Answered": f"{of.n - of.n_failed:,} of {of.n:,}",
            "Never sent": f"{of.n_lost:,}",
            "Prompt tokens, ours": _count(of.asked_tokens),
            "The server's": _count(of.prompt_tokens),
            "Seen before": _share(of.shared_share),
            "Cached": _share(of.cached_share),
            "Cache": str(of.cache),
            **{
                f"{title} {stat}": ms(of.summaries[name].stat(stat))
                for name, title in (("ttft", "TTFT"), ("tpot", "TPOT"), ("latency", "Latency"), ("delay", "Own delay"))
                for stat in ("p50", "p99")
            },
        }
        for point in points
        for of in point.turns
    ]
    note = (
        "Means of prompts, milliseconds of answered turns. Seen before: tokens of the prompt that were in an earlier "
        "prompt or that this server generated, by our count; cached: as its usage says. Own delay: from the end of the "
        "turn before and its pause to the first byte of this one. Never sent: a turn before had failed."
    )
    return table(rows, text_columns=2, note=note)


def talks(points: Sequence[Point]) -> Table:
    """The report's table of whole conversations."""
    rows = [
        {
            "Load": name_of(point),
            "Conversations": f"{of.n:,}",
            "Whole": f"{of.n_whole:,}",
            "With a failed turn": f"{of.n_failed:,}",
            "Turns": plain(of.turns_mean),
            "Duration p50, s": plain(of.duration.stat("p50")),
            "Duration p99, s": plain(of.duration.stat("p99")),
            "Thinking, s": plain(of.think_mean_s),
            "Input tokens": _count(of.input_tokens_mean),
            "Output tokens": _count(of.output_tokens_mean),
        }
        for point in points
        if (of := point.conversations) is not None
    ]
    note = "From duration on: of whole conversations (every turn answered, in one window); means but for the duration."
    return table(rows, note=note)


def ttft_by_turn(points: Sequence[Point], size: ChartSize) -> Any:
    """TTFT p50 and p99 of each turn; beside it how much of its prompt was cached, and how much was seen before."""
    talks = [point for point in points if point.turns]
    step = max(1, -(-len(talks) // MOST_LINES))
    rows = [
        {"load": name_of(point), "turn": of.title, "panel": panel, "line": line, "value": value}
        for point in talks[::step]
        for of in point.turns
        for panel, line, value in _lines(of)
        if value is not None and not math.isnan(value)
    ]
    if not rows:
        return empty("No turn was answered.", size)
    frame = pl.DataFrame(rows)
    names = frame["load"].unique(maintain_order=True).to_list()
    colours = alt.Scale(domain=names, range=PALETTE[: len(names)])
    legend = alt.Legend(
        columns=1 if size.narrow else 4, labelLimit=size.width - 30, symbolType="stroke", symbolStrokeWidth=3
    )
    dashes = alt.Scale(domain=list(DASHES), range=list(DASHES.values()))
    drawn = (
        alt.Chart(records(frame, *frame.columns))
        .mark_line(strokeWidth=1.6, point=alt.OverlayMarkDef(size=40))
        .encode(
            x=alt.X("turn:N", title="turn", sort=None, axis=alt.Axis(labelAngle=0)),
            y=alt.Y("value:Q", title=None),
            color=alt.Color("load:N", sort=names, title=None, scale=colours, legend=legend),
            strokeDash=alt.StrokeDash("line:N", scale=dashes, legend=None),
            tooltip=["load:N", "turn:N", "line:N", alt.Tooltip("value:Q", format=",.4~g")],
        )
        .properties(width=size.width if size.narrow else (size.width - 80) // 2, height=220)
    )
    panels = alt.Facet("panel:N", sort=[TTFT, SHARE], title=None)
    return facet(unit(drawn), panels, columns=1 if size.narrow else 2, resolve={"scale": {"y": "independent"}})


def _lines(of: TurnStats) -> list[tuple[str, str, float | None]]:
    """(panel, line, value) of a turn."""
    ttft = [(TTFT, stat, of.summaries["ttft"].stat(stat) * 1000) for stat in ("p50", "p99")]
    shares = [("cached", of.cached_share), ("seen before", of.shared_share)]
    return [*ttft, *((SHARE, line, None if value is None else value * 100) for line, value in shares)]


CHART = BenchChart(
    "bench_ttft_by_turn",
    "Time to first token, turn by turn",
    "Left: solid p50, dashed p99. Right: how much of the prompt came out of the prefix cache, as the server says "
    "(solid), and how much was in an earlier prompt or reply (dashed). Where it is cached, TTFT should hardly grow.",
    ttft_by_turn,
)


def _count(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"

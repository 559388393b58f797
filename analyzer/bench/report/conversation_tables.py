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
from analyzer.charts.compose import layer
from analyzer.charts.style import PALETTE, ChartSize, empty, records
from analyzer.results.text_table import Table, table

MOST_PANELS = 4  # loads in the chart, lowest and highest among them


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
    """TTFT p50 and p99 of each turn, and how much of its prompt the server had cached."""
    talks = [point for point in points if point.turns]
    step = max(1, -(-len(talks) // MOST_PANELS))
    rows = [
        {
            "load": name_of(point),
            "turn": of.title,
            "ms": of.summaries["ttft"].stat(stat) * 1000,
            "stat": stat,
            "cached": _percent(of),
        }
        for point in talks[::step]
        for of in point.turns
        for stat in ("p50", "p99")
        if not math.isnan(of.summaries["ttft"].stat(stat))
    ]
    if not rows:
        return empty("No turn was answered.", size)
    frame = pl.DataFrame(rows)
    names = frame["load"].unique(maintain_order=True).to_list()
    colours = alt.Scale(domain=names, range=PALETTE[: len(names)])
    legend = alt.Legend(columns=1 if size.narrow else 4, labelLimit=size.width - 30)
    base = alt.Chart(records(frame, *frame.columns)).encode(
        x=alt.X("turn:N", title="turn; the shares are cached", sort=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("ms:Q", title="TTFT, ms"),
        color=alt.Color("load:N", sort=names, title=None, scale=colours, legend=legend),
        strokeDash=alt.StrokeDash("stat:N", title=None, sort=["p50", "p99"]),
        tooltip=["load:N", "turn:N", "stat:N", alt.Tooltip("ms:Q", format=",.1f"), "cached:N"],
    )
    marks = base.mark_point(filled=True, size=50)
    shares = base.transform_filter("datum.stat == 'p50'").mark_text(dy=-10, fontSize=10).encode(text="cached:N")
    return layer(base.mark_line(strokeWidth=1.6), marks, shares, width=size.width, height=220)


CHART = BenchChart(
    "bench_ttft_by_turn",
    "Time to first token, turn by turn",
    "Solid p50, dashed p99, a colour a load; the share beside a point is how much of the prompt came out of the prefix "
    "cache, as the server says. A later turn's prompt is longer: where the cache holds it, TTFT should hardly grow.",
    ttft_by_turn,
)


def _percent(of: TurnStats) -> str:
    return "" if of.cached_share is None else f"{of.cached_share:.0%}"


def _count(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"

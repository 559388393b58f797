"""Levels of a KV budget side by side: what each gives in throughput, and what it costs in accuracy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

from analyzer.bench.figures.points import Point
from analyzer.bench.figures.spread import Estimate
from analyzer.bench.report.bench_charts import rate_scale
from analyzer.bench.report.bench_verdict import level_of
from analyzer.bench.report.numbers import ms, plain
from analyzer.charts.compose import layer
from analyzer.charts.style import ChartSize, colour, empty, records, shape
from analyzer.read.runs import newest_group
from analyzer.results.text_table import Table, table
from kvt_async.contract.labels import level_label
from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.vocabulary import EvidenceStatus

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Quality:
    """What an analysed sweep says of a level: accuracy with its interval, median bytes of KV cache per request."""

    accuracy: float
    low: float
    high: float
    kv_bytes: float | None
    status: str  # of the evidence: verified | unverified | full


@dataclass(frozen=True, slots=True)
class LevelRow:
    """A level at the load where it gave most output; `quality` None: no sweep, or not this level in it."""

    level: str
    best: Point
    output: Estimate
    ttft_p99: Estimate
    quality: Quality | None


def level_rows(points: Sequence[Point], quality: str | None) -> list[LevelRow]:
    """A row for each level that was benched. Raises MissingPrerequisiteError where `quality` names no database."""
    labels = list(dict.fromkeys(point.level for point in points if point.level))
    if not labels:
        return []
    quality_of = accuracy_of(Path(quality)) if quality else {}
    rows = []
    for label in labels:
        of_level = [point for point in points if point.level == label]
        best = max(of_level, key=lambda point: _or_zero(point.figures["output_tokens_per_s"].value))
        output, ttft = best.figures["output_tokens_per_s"], best.figures["ttft_p99_s"]
        rows.append(LevelRow(label, best, output, ttft, quality_of.get(label)))
    return rows


def accuracy_of(where: Path) -> dict[str, Quality]:
    """What a sweep says of its levels, by the level's label ('full', 'snapkv/aware 0.5') from the newest group of a run
    directory or database."""
    conn = connect_for_reading(where / DB_NAME if where.is_dir() else where)
    try:
        group, generation, _ = newest_group(conn)
        rows = conn.execute(
            "SELECT u.series, u.is_full, u.kv_budget, u.kv_unit, s.acc_mean, s.acc_ci_low, s.acc_ci_high, "
            "s.kv_bytes_p50, e.status FROM runs u JOIN bin_stats s ON s.run_id = u.run_id AND s.bin_idx = -1 "
            "LEFT JOIN run_evidence e ON e.run_id = u.run_id "
            "WHERE u.exp_group_id = ? AND u.generation = ? AND u.repeat_idx = 0",
            (group, generation),
        ).fetchall()
    finally:
        conn.close()
    qualities = {}
    for series, full, budget, unit, acc, low, high, size, status in rows:
        if acc is not None:
            quality = Quality(acc, low, high, size, status or EvidenceStatus.UNVERIFIED)
            qualities[level_label(series, budget, unit, is_full=bool(full))] = quality
    return qualities


def level_table(rows: Sequence[LevelRow]) -> Table:
    lines = []
    for row in rows:
        q, budget = row.quality, row.best.budget
        lines.append(
            {
                "Level": level_of(row.best),
                "Budget": budget.status if budget else "-",
                "Evidence": budget.reading if budget else "-",
                "Best load": row.best.load,
                "Output tok/s": _with(row.output, plain),
                "TTFT p99, ms": _with(row.ttft_p99, ms),
                "Accuracy": f"{q.accuracy:.3f} [{q.low:.3f}, {q.high:.3f}]" if q else "-",
                "KV GiB per request": _gib(row),
            }
        )
    note = (
        "Accuracy: from the sweep in bench.quality. Memory: from this bench's replies, else from that sweep's. Budget: "
        "what this bench's own replies and server show of it."
    )
    return table(lines, text_columns=4, note=note)


def _gib(row: LevelRow) -> str:
    """The median KV cache of a request in GiB."""
    size = row.best.budget.kv_bytes if row.best.budget is not None else None
    if size is None and row.quality is not None:
        size = row.quality.kv_bytes
    return "-" if size is None else f"{size / GIB:.4g}"


def pareto(rows: Sequence[LevelRow], size: ChartSize) -> Any:
    """Accuracy against output tokens per second, with both intervals."""
    points = [
        {
            "series": row.level.rpartition(" ")[0] or row.level,
            "level": level_of(row.best),
            "out": row.output.value,
            "out_low": _or(row.output.low, row.output.value),
            "out_high": _or(row.output.high, row.output.value),
            "acc": row.quality.accuracy,
            "acc_low": row.quality.low,
            "acc_high": row.quality.high,
        }
        for row in rows
        if row.quality is not None
    ]
    if not points:
        return empty("No accuracy is known of these levels: name the sweep's run directory in bench.quality.", size)
    frame = pl.DataFrame(points)
    series = frame["series"].unique(maintain_order=True).to_list()
    base = alt.Chart(records(frame, *frame.columns)).encode(color=colour(series, size))
    scale = rate_scale(frame["out_low"].to_list(), frame["out_high"].to_list())
    x = alt.X("out:Q", title="output tokens per second", scale=scale)
    y = alt.Y("acc:Q", title="Accuracy", scale=alt.Scale(domain=[0, 1]))
    tips = [alt.Tooltip("level:N"), alt.Tooltip("out:Q", format=",.1f"), alt.Tooltip("acc:Q", format=".3f")]
    return layer(
        base.mark_rule(strokeOpacity=0.5).encode(x="out_low:Q", x2="out_high:Q", y=y),
        base.mark_rule(strokeOpacity=0.5).encode(x=x, y="acc_low:Q", y2="acc_high:Q"),
        base.mark_point(filled=True, size=70, fillOpacity=1).encode(x=x, y=y, shape=shape(series), tooltip=tips),
        base.mark_text(align="left", dx=8, dy=-8, fontSize=11).encode(x=x, y=y, text="level:N"),
        width=size.width,
        height=260,
    )


def _with(estimate: Estimate, show: Any) -> str:
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return str(show(estimate.value))
    return f"{show(estimate.value)} [{show(estimate.low)}, {show(estimate.high)}]"


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value

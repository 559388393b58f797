"""Every chart by name: its message, its drawing, its files. `analyze` and `report` share draw_all."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altair.utils.schemapi import debug_mode

from analyzer.charts import captions
from analyzer.charts.accuracy import acc_by_budget, acc_by_budget_bins, heatmap_budget_length
from analyzer.charts.cost import acc_by_bin, fail_by_bin, latency_p50_by_bin, pareto, ttft_tpot_by_budget
from analyzer.charts.frames import ChartData, chart_data
from analyzer.charts.loss import acc_by_kept_tokens, drop_decomposition
from analyzer.charts.picture_files import FILES, Picture, save
from analyzer.charts.style import WIDE, ChartSize, spec_of, title_lines
from analyzer.charts.verdict import verdict_by_budget
from analyzer.results.results import Results, read_results
from kvt_async.contract.settings import Settings


@dataclass(frozen=True)
class ChartKind:
    """`message` says in words what the rows show and becomes the title; `says` explains the marks."""

    name: str
    draw: Callable[[ChartData, ChartSize], Any]
    message: Callable[[Results], str]
    says: Callable[[Results], str]


CHARTS = (
    ChartKind("verdict_by_budget", verdict_by_budget, captions.verdict, captions.verdict_says),
    ChartKind("acc_by_budget", acc_by_budget, captions.by_budget, captions.by_budget_says),
    ChartKind("acc_by_budget_bins", acc_by_budget_bins, captions.by_budget_bins, captions.bins_says),
    ChartKind("heatmap_budget_length", heatmap_budget_length, captions.heatmap, captions.heatmap_says),
    ChartKind("acc_by_kept_tokens", acc_by_kept_tokens, captions.kept, captions.kept_says),
    ChartKind("drop_decomposition", drop_decomposition, captions.drops, captions.drops_says),
    ChartKind("pareto", pareto, captions.pareto, captions.pareto_says),
    ChartKind("ttft_tpot_by_budget", ttft_tpot_by_budget, captions.latency, captions.latency_says),
    ChartKind("acc_by_bin", acc_by_bin, captions.by_bin, captions.by_bin_says),
    ChartKind("fail_by_bin", fail_by_bin, captions.failures, captions.failures_says),
    ChartKind("latency_p50_by_bin", latency_p50_by_bin, captions.latency_bins, captions.latency_bins_says),
)


def draw(
    kind: ChartKind, results: Results, data: ChartData, size: ChartSize = WIDE, *, title: bool = True
) -> dict[str, Any]:
    """One chart as Vega-Lite JSON. Without `title` the page around it must carry message and note."""
    # The tests hold the whole against the schema; checking every part here costs as much as making it.
    with debug_mode(False):
        chart = kind.draw(data, size)
    head = title_lines(kind.message(results), [kind.says(results)], data.note, size) if title else None
    return spec_of(chart, size, head)


def draw_all(
    conn: sqlite3.Connection, settings: Settings, plots_dir: Path, results: Results | None = None
) -> list[Path]:
    """Draw every chart from persisted rows as PNG, SVG and Vega-Lite JSON; returns the files, in chart order."""
    results = results or read_results(conn, settings.experiment.exp_group_id)
    data = chart_data(results)
    return save(*(Picture(draw(kind, results, data), plots_dir, kind.name) for kind in CHARTS))


def files(plots_dir: Path) -> list[Path]:
    """What draw_all writes, in its order."""
    return [plots_dir / f"{kind.name}{end}" for kind in CHARTS for end in FILES]

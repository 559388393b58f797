"""bench_report.md and bench_report.html: the verdict first, then tables, charts, what was asked, definitions."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analyzer.bench.figures.points import Point
from analyzer.bench.figures.stage_results import StageResult
from analyzer.bench.quality.load_loss import LoadLoss
from analyzer.bench.quality.loss_chart import loss_chart
from analyzer.bench.quality.quality_words import quality_table, sentences
from analyzer.bench.read.applied_budget import UNPROVEN
from analyzer.bench.report import bench_charts, bench_tables, bench_verdict, conversation_tables, part_tables
from analyzer.bench.report.bench_definitions import DEFINITIONS
from analyzer.bench.report.level_comparison import LevelRow, level_table, pareto
from analyzer.charts.picture_files import Picture, save
from analyzer.charts.style import NARROW, PAGE, WIDE, spec_of, title_lines
from analyzer.report.html import environment, in_script
from analyzer.report.vega import vega
from analyzer.results.text_table import Table, flat
from analyzer.store.artifacts import once
from kvt_async.contract.files import write_whole
from kvt_async.contract.paths import RunPaths
from kvt_async.contract.vocabulary import CacheState


@dataclass(frozen=True)
class Benched:
    """What a bench's report is made of. `as_lines`: another tool's figures, as text; `rows`: the fingerprint of the
    stored rows that the report shows."""

    group: str
    commands: list[str]
    points: Sequence[Point]
    results: Sequence[StageResult]
    levels: Sequence[LevelRow]
    as_lines: list[str]
    charts: bool
    rows: str
    losses: Sequence[LoadLoss] = ()

    @property
    def drawings(self) -> list[bench_charts.BenchChart]:
        if not self.charts:
            return []
        of_answers = [loss_by_load(self.losses)] if self.losses else []
        of_turns = [conversation_tables.CHART] if any(point.turns for point in self.points) else []
        of_levels = [accuracy_against_throughput(self.levels)] if self.levels else []
        shaped = all(point.results[0].stage.shape is not None for point in self.points)
        kinds = [kind for kind in bench_charts.KINDS if not (shaped and kind.name == bench_charts.FRONTIER)]
        return [*of_answers, *kinds, *of_turns, *of_levels]


def write(benched: Benched, paths: RunPaths, now: datetime | None = None) -> tuple[Path, Path]:
    """Both reports beside the database and the pictures in plots/; nothing is drawn where they stand already, made
    from the same."""
    files = once(
        paths.run_dir,
        "bench_report",
        contents(benched),
        lambda: _write(benched, paths, now or datetime.now(UTC)),
        rows=benched.rows,
    ).files
    return files[0], files[1]


def contents(value: Any) -> Any:
    """A value whose repr shows everything: arrays and frames, which Python shortens, become digests."""
    if isinstance(value, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, pl.DataFrame):
        return [value.columns, hashlib.sha256(repr(value.rows()).encode()).hexdigest()]
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, *(contents(getattr(value, field.name)) for field in fields(value))]
    if isinstance(value, dict):
        return [(key, contents(inner)) for key, inner in value.items()]
    return [contents(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _write(benched: Benched, paths: RunPaths, now: datetime) -> list[Path]:
    """All files, the Markdown and the HTML page first."""
    points, pictures = benched.points, []
    for kind in benched.drawings:
        head = title_lines(kind.title, [kind.says], _alarm(points), WIDE)
        pictures.append(Picture(spec_of(kind.draw(points, WIDE), WIDE, head), paths.plots, kind.name))
    files = save(*pictures)
    page = page_context(benched, now)
    page["charts"] = [{"name": k.name, "title": k.title, "says": k.says} for k in benched.drawings]
    md, html = paths.run_dir / "bench_report.md", paths.run_dir / "bench_report.html"
    write_whole(md, environment("md").get_template("bench.md.jinja").render(page))
    page |= {"specs": in_script(page_specs(benched)), "script": vega() if benched.drawings else ""}
    write_whole(html, environment("html").get_template("bench.html.jinja").render(page))
    return [md, html, *files]


def page_context(benched: Benched, now: datetime) -> dict[str, Any]:
    """Everything the templates print but for charts."""
    points, stage = benched.points, benched.results[0].stage
    asked = {"workload": stage.workload, "objectives": stage.slo, "plan": stage.plan, "ceiling": stage.calibration}
    return {
        "generated_at": now.strftime("%Y-%m-%d %H:%M:%S UTC"),
        "group": benched.group,
        "model": stage.model_name,
        "engine": stage.engine_name,
        "partial": any(point.partial for point in points),
        "alarm": _alarm(points),
        "verdict": bench_verdict.verdict(points),
        "loads": bench_tables.loads(points),
        "latencies": bench_tables.latencies(points),
        "lengths": bench_tables.lengths(points),
        "parts": part_tables.parts_table(points, models=False),
        "models": part_tables.parts_table(points, models=True),
        "turns": conversation_tables.turns(points),
        "talks": conversation_tables.talks(points),
        "objectives": bench_tables.objectives(points),
        "quality": quality_table(benched.losses) if benched.losses else None,
        "losses": sentences(benched.losses),
        "levels": level_table(benched.levels) if benched.levels else None,
        "trust": bench_tables.trust(points),
        "server": bench_tables.server(points),
        "server_load": bench_tables.server_load(points),
        "errors": bench_tables.errors(points),
        "as_lines": benched.as_lines,
        "asked": Table(("Field", "Value"), tuple(flat(asked)), text_columns=2),
        "commands": benched.commands,
        "definitions": DEFINITIONS,
    }


def _alarm(points: Sequence[Point]) -> str:
    parts = []
    if any(point.partial for point in points):
        parts.append("PARTIAL: requests are still to be sent.")
    if any(point.cache in (CacheState.WARM, CacheState.MIXED) and not point.turns for point in points):
        parts.append("Prompts came in part from the server's prefix cache.")
    by_status: dict[str, list[str]] = {}
    for point in points:
        if point.budget is not None and point.budget.status in UNPROVEN and point.level:
            by_status.setdefault(point.budget.status, []).append(point.level)
    for status, levels in by_status.items():
        parts.append(f"Budget {status.upper()}: {', '.join(dict.fromkeys(levels))}: not to be read as that budget.")
    return " ".join(parts)


def accuracy_against_throughput(levels: Sequence[LevelRow]) -> bench_charts.BenchChart:
    """The chart with a point for each level."""
    return bench_charts.BenchChart(
        "bench_pareto",
        "Accuracy against throughput, by level",
        "Each level at the load where it gave most output; bars are confidence intervals. Accuracy comes from the "
        "sweep that bench.quality names.",
        lambda _points, size: pareto(levels, size),
    )


def loss_by_load(losses: Sequence[LoadLoss]) -> bench_charts.BenchChart:
    """The chart of what answers lose at each load."""
    return bench_charts.BenchChart(
        "bench_quality",
        "What answers lose under load",
        "Loss against the same prompts asked one at a time, with its 95% interval, by load; dashed: the margin. Full: "
        "a loss is proven. Unloaded is the control: the same prompts asked once more.",
        lambda _points, size: loss_chart(losses, size),
    )


def page_specs(benched: Benched) -> dict[str, Any]:
    """Every chart twice, for desktops and phones."""
    return {
        kind.name: {
            name: spec_of(kind.draw(benched.points, size), size, None)
            for name, size in (("wide", PAGE), ("narrow", NARROW))
        }
        for kind in benched.drawings
    }

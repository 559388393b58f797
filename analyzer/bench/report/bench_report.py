"""bench_report.md and bench_report.html: the verdict first, then tables, charts, what was asked, definitions."""

import hashlib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analyzer.bench.figures.points import Point
from analyzer.bench.figures.stage_results import Result
from analyzer.bench.read.applied_budget import UNPROVEN
from analyzer.bench.report import bench_charts, bench_tables, verdict_text
from analyzer.bench.report.level_comparison import LevelRow, level_table
from analyzer.charts.style import NARROW, PAGE, WIDE, save, spec_of, title_lines
from analyzer.report.html import environment, in_script
from analyzer.report.vega import vega
from analyzer.results.text_table import Table, flat
from analyzer.store.artifacts import once
from kvt_async.contract.files import write_whole
from kvt_async.contract.paths import RunPaths
from kvt_async.contract.vocabulary import CacheState

DEFINITIONS = (
    ("TTFT", "first byte of the request written to first text received, content or reasoning; an early event without "
     "text is no token"),
    ("from the intended start", "in an open loop a request's clock starts when the schedule wanted it sent, so that a "
     "stall is paid by all whom it delayed (no coordinated omission); `sent` columns start at the first byte"),
    ("TPOT", "(last text - first text) / (tokens - 1), a figure per request"),
    ("ITL", "gap between two chunks of text; `per token` where a chunk carries several: a reply's gaps spread evenly "
     "over its tokens"),
    ("latency", "start to last text"),
    ("done/s", "answered requests per second. Closed loop: requests in flight / mean life (Little's law), over those "
     "that began once every place had been used; open loop: arrivals per second, times the share that came out as fast "
     "as it went in, times the share answered; of a server that fell behind, what came out"),
    ("output tok/s", "closed loop: tokens by when they came; open loop: done/s times tokens of a reply, and tokens by "
     "when they came of a server that fell behind. Where a window is too short for its latencies, no rate is told"),
    ("p50, p99, Max", "of the answered requests of a load, its repeats together, linear between order statistics; `p99 "
     "of each repeat` shows how runs differ"),
    ("p99, failures = inf", "the same with every failed request, and every reply without a token, as infinitely slow: "
     "`inf` means that so many failed. Objectives are judged by it. Equal to p99 where nothing failed"),
    ("no token, one piece", "a reply without text, reasoning or tool call has no latency; one whose tokens came in a "
     "single read has no TPOT and no ITL, for nobody saw how far apart the server made them"),
    ("asked, got", "tokens of prompts and replies as the workload wanted them, and as the server counts them"),
    ("in SLO", "attainment: requests that kept every limit, of all that were sent; goodput: such requests per second"),
    ("met, missed", "proven at 95% by counting the requests beyond the limit, an exact binomial test; else `cannot "
     "tell`. Replies that do not show the metric may lie on either side"),
    ("knee", "open loop: highest rate of which the server keeps up with at least 95%; closed loop: lowest concurrency "
     "of which it is proven that no higher one gave 5% more output, or grew by half of what the load did"),
    ("dispersion", "variance of arrivals per cell of time over their mean: 1 for Poisson, 0 for a constant rate"),
    ("cold, warm, mixed", "prompt tokens taken from a prefix cache: at most 5%, at least 90%, between; by usage or by "
     "the server's counters"),
    ("verified, unverified, contradicted", "whether the server shows that it applied the level's budget, by what its "
     "replies, /metrics page or log say; a canary asks first whether the harshest budget changes any answer"),
    ("client's error", "how late this client may have stamped what came, in 99% of instants; TPOT: over the tokens of "
     "a reply. From the intended start: and what sending late has added"),
    ("CLIENT-BOUND", "said of a figure of which the client's error may be over 5%, and of a rate that was not sent"),
)  # fmt: skip


def write(points: Sequence[Point], results: Sequence[Result], levels: Sequence[LevelRow], paths: RunPaths,
          extra: dict[str, Any], now: datetime | None = None) -> tuple[Path, Path]:  # fmt: skip
    """Both reports beside the database and the pictures in plots/; nothing is drawn where they stand already, made
    from the same. `extra`: group, command, as-table lines, and the fingerprint of the stored rows that they show."""
    inputs = [told(list(points)), told(list(results)), told(list(levels)), extra]
    made = once(
        paths.run_dir, "bench_report", inputs, lambda: _write(points, results, levels, paths, extra, now),
        rows=extra["rows"],
    )  # fmt: skip
    return made.files[0], made.files[1]


def told(value: Any) -> Any:
    """A value whose repr tells everything: arrays and frames, which Python shortens, become digests."""
    if isinstance(value, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, pl.DataFrame):
        return [value.columns, hashlib.sha256(repr(value.rows()).encode()).hexdigest()]
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, *(told(getattr(value, field.name)) for field in fields(value))]
    if isinstance(value, dict):
        return [(key, told(inner)) for key, inner in value.items()]
    return [told(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _write(points: Sequence[Point], results: Sequence[Result], levels: Sequence[LevelRow], paths: RunPaths,
           extra: dict[str, Any], now: datetime | None) -> list[Path]:  # fmt: skip
    """All files, the Markdown and the HTML page first."""
    kinds = [*bench_charts.KINDS, *([charts_levels(levels)] if levels else [])] if extra.get("charts", True) else []
    pictures = []
    for kind in kinds:
        head = title_lines(kind.title, [kind.says], _alarm(points), WIDE)
        pictures += save(spec_of(kind.draw(points, WIDE), WIDE, head), paths.plots, kind.name)
    page = _page(points, results, levels, extra, now or datetime.now(UTC))
    page["charts"] = [{"name": k.name, "title": k.title, "says": k.says} for k in kinds]
    md, html = paths.run_dir / "bench_report.md", paths.run_dir / "bench_report.html"
    write_whole(md, environment("md").get_template("bench.md.jinja").render(page))
    page |= {"specs": in_script(_specs(points, kinds)), "script": vega()}
    write_whole(html, environment("html").get_template("bench.html.jinja").render(page))
    return [md, html, *pictures]


def _page(points: Sequence[Point], results: Sequence[Result], levels: Sequence[LevelRow], extra: dict[str, Any],
          now: datetime) -> dict[str, Any]:  # fmt: skip
    stage = results[0].stage
    return {
        "generated_at": now.strftime("%Y-%m-%d %H:%M:%S UTC"),
        "group": extra["group"],
        "model": stage.model_name,
        "engine": stage.engine_name,
        "partial": any(point.partial for point in points),
        "alarm": _alarm(points),
        "verdict": verdict_text.verdict(points),
        "loads": bench_tables.loads(points),
        "latencies": bench_tables.latencies(points),
        "lengths": bench_tables.lengths(points),
        "objectives": bench_tables.objectives(points),
        "levels": level_table(levels) if levels else None,
        "trust": bench_tables.trust(points),
        "server": bench_tables.server(points),
        "errors": bench_tables.errors(points),
        "as_lines": extra.get("as_lines", []),
        "asked": Table(("Field", "Value"), tuple(flat({
            "workload": stage.workload, "objectives": stage.slo, "plan": stage.plan, "ceiling": stage.calibration,
        })), text_columns=2),
        "commands": extra["commands"],
        "definitions": DEFINITIONS,
    }  # fmt: skip


def _alarm(points: Sequence[Point]) -> str:
    found = []
    if any(point.partial for point in points):
        found.append("PARTIAL: requests are still to be sent.")
    if any(point.cache in (CacheState.WARM, CacheState.MIXED) for point in points):
        found.append("Prompts came in part from the server's prefix cache.")
    by_status: dict[str, list[str]] = {}
    for point in points:
        if point.budget is not None and point.budget.status in UNPROVEN and point.level:
            by_status.setdefault(point.budget.status, []).append(point.level)
    for status, levels in by_status.items():
        found.append(f"Budget {status.upper()}: {', '.join(dict.fromkeys(levels))}: not to be read as that budget.")
    return " ".join(found)


def charts_levels(levels: Sequence[LevelRow]) -> bench_charts.Kind:
    """Accuracy against output tokens per second, a point a level."""
    from analyzer.bench.report.level_comparison import pareto

    return bench_charts.Kind(
        "bench_pareto", "Accuracy against throughput, by level", "Each level at the load where it gave most output; "
        "bars are confidence intervals. Accuracy comes from the sweep that bench.quality names.",
        lambda _points, look: pareto(levels, look),
    )  # fmt: skip


def _specs(points: Sequence[Point], kinds: Sequence[bench_charts.Kind]) -> dict[str, Any]:
    """Every chart twice, for desktops and phones."""
    return {
        kind.name: {
            name: spec_of(kind.draw(points, look), look, None) for name, look in (("wide", PAGE), ("narrow", NARROW))
        }
        for kind in kinds
    }

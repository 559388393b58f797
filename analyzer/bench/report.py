"""bench_report.md and bench_report.html: the verdict first, then tables, charts, what was asked, definitions."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analyzer.bench import charts, words
from analyzer.bench.budget import UNPROVEN
from analyzer.bench.levels import LevelRow, level_table
from analyzer.bench.points import Point
from analyzer.bench.results import Result
from analyzer.charts_style import NARROW, PAGE, WIDE, save, spec_of, title_lines
from analyzer.made import once
from analyzer.report.build import environment
from analyzer.report.provenance import flat
from analyzer.report.tables import Table
from analyzer.report.vega import vega
from kvt_async.contract.paths import RunPaths

DEFINITIONS = (
    ("TTFT", "first byte of the request written to first text received, content or reasoning; an early event without "
     "text is no token"),
    ("from the intended start", "in an open loop a request's clock starts when the schedule wanted it sent, so that a "
     "stall is paid by all whom it delayed (no coordinated omission); `sent` columns start at the first byte"),
    ("TPOT", "(last text - first text) / (tokens - 1), a figure per request"),
    ("ITL", "gap between two chunks of text; `per token` where a chunk carries several: a reply's gaps spread evenly "
     "over its tokens"),
    ("latency", "start to last text"),
    ("done/s", "completions inside the steady part of the stage per second, warm-up requests among them"),
    ("failures", "in the percentiles of the tables a failed request counts as +inf: `inf` means that so many failed"),
    ("in SLO", "attainment: requests that kept every limit, of all that were sent; goodput: such requests per second"),
    ("met, missed", "proven at 95% by counting the requests beyond the limit, an exact binomial test; else `cannot "
     "tell`"),
    ("knee", "open loop: highest rate of which the server completes at least 95%; closed loop: lowest concurrency that "
     "gives 95% of the best output"),
    ("dispersion", "variance of arrivals per cell of time over their mean: 1 for Poisson, 0 for a constant rate"),
    ("cold, warm, mixed", "prompt tokens taken from a prefix cache: under 1%, at least 50%, between; by usage or by "
     "the server's counters"),
    ("verified, unverified, contradicted", "whether the server shows that it applied the level's budget, by what its "
     "replies, /metrics page or log say; a canary asks first whether the harshest budget changes any answer"),
    ("CLIENT-BOUND", "this client could not keep up with what it measured; the bound says by how much"),
)  # fmt: skip


def write(points: Sequence[Point], results: Sequence[Result], levels: Sequence[LevelRow], paths: RunPaths,
          extra: dict[str, Any], now: datetime | None = None) -> tuple[Path, Path]:  # fmt: skip
    """Both reports beside the database and the pictures in plots/; nothing is drawn where they stand already, made
    from the same. `extra`: group, command, as-table lines."""
    inputs = [told(list(points)), told(list(results)), told(list(levels)), extra]
    made = once(paths.run_dir, "bench_report", inputs, lambda: _write(points, results, levels, paths, extra, now))
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
    kinds = [*charts.KINDS, *([charts_levels(levels)] if levels else [])] if extra.get("charts", True) else []
    pictures = []
    for kind in kinds:
        head = title_lines(kind.title, [kind.says], _alarm(points), WIDE)
        pictures += save(spec_of(kind.draw(points, WIDE), WIDE, head), paths.plots, kind.name)
    page = _page(points, results, levels, extra, now or datetime.now(UTC))
    page["charts"] = [{"name": k.name, "title": k.title, "says": k.says, "note": _alarm(points)} for k in kinds]
    md, html = paths.run_dir / "bench_report.md", paths.run_dir / "bench_report.html"
    md.write_text(environment("md").get_template("bench.md.jinja").render(page), encoding="utf-8")
    page |= {"specs": _specs(points, kinds), "script": vega()}
    html.write_text(environment("html").get_template("bench.html.jinja").render(page), encoding="utf-8")
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
        "verdict": words.verdict(points),
        "loads": _loads(points),
        "latencies": _latencies(points),
        "objectives": _objectives(points),
        "levels": level_table(levels) if levels else None,
        "trust": _trust(points),
        "server": _server(points),
        "errors": _errors(points),
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
    if any(point.client.verdict == "CLIENT-BOUND" for point in points):
        found.append("CLIENT-BOUND at some load: there the figures are this client's, not the server's.")
    if any(point.cache in ("warm", "mixed") for point in points):
        found.append("Prompts came in part from the server's prefix cache.")
    by_status: dict[str, list[str]] = {}
    for point in points:
        if point.budget is not None and point.budget.status in UNPROVEN and point.level:
            by_status.setdefault(point.budget.status, []).append(point.level)
    for status, levels in by_status.items():
        found.append(f"Budget {status.upper()}: {', '.join(dict.fromkeys(levels))}: not to be read as that budget.")
    return " ".join(found)


def _loads(points: Sequence[Point]) -> Table:
    rows = []
    for p in points:
        started = f"{p.n_started - p.n_failed:,} of {p.n_started:,}"
        rows.append((
            words.name_of(p) + (" (partial)" if p.partial else ""), str(len(p.results)), started,
            *(words.with_interval(p, f"{name}_per_s") for name in ("arrivals", "requests", "output_tokens",
                                                                    "input_tokens", "total_tokens")),
            words.plain(p.figures["goodput_per_s"].value), words.share(p.attainment),
        ))  # fmt: skip
    with_levels = any(p.budget is not None for p in points)
    if with_levels:
        rows = [(row[0], p.budget.status if p.budget else "-", p.budget.reading if p.budget else "-", *row[1:])
                for row, p in zip(rows, points, strict=True)]  # fmt: skip
    head = ("Load", *(("Budget", "Evidence") if with_levels else ()), "Repeats", "Answered", "Arrivals/s", "Done/s",
            "Output tok/s", "Input tok/s", "Total tok/s", "Goodput/s", "In SLO")  # fmt: skip
    methods = sorted({p.figures["requests_per_s"].method for p in points})
    note = "In brackets: 95% confidence interval, " + ", ".join(methods)
    if not all(result.rates.steady for p in points for result in p.results):
        note += ". Where the steady part held fewer than ten completions, rates are over the whole run with its ramp-up"
    return Table(head, tuple(rows), text_columns=3 if with_levels else 1, note=note + ".")


def _latencies(points: Sequence[Point]) -> Table:
    names = {"ttft": "TTFT", "ttft_sent": "TTFT, sent", "ttfb": "TTFB", "tpot": "TPOT", "itl": "ITL",
             "itl_token": "ITL per token", "latency": "latency", "latency_sent": "latency, sent"}  # fmt: skip
    rows = []
    for p in points:
        for metric, title in names.items():
            if f"{metric}_p50_s" not in p.figures:
                continue
            answered = [words.ms(p.figures[f"{metric}_{stat}_s"].value) for stat in ("mean", "p50", "p90", "p95")]
            p99, worst = words.with_interval(p, f"{metric}_p99_s", words.ms), p.figures[f"{metric}_max_s"].value
            with_failures = words.ms(p.censored[f"{metric}_p99_s"])
            rows.append((words.name_of(p), title, *answered, p99, words.ms(worst), with_failures))
    head = ("Load", "Metric", "Mean", "p50", "p90", "p95", "p99", "Max", "p99, failures = inf")
    clock = "from the intended start" if points[0].loop == "open" else "from the first byte sent"
    note = f"Milliseconds of answered requests; TTFT and latency {clock}."
    if points[0].loop == "closed":
        note += " A closed loop is blind to stalls: while the server stalls, nothing new is sent."
    return Table(head, tuple(rows), text_columns=2, note=note)


def _objectives(points: Sequence[Point]) -> Table:
    rows = tuple(
        (words.name_of(p), words.limit_words(f), words.ms(f.value_s), f"{f.n_beyond:,} of {f.n:,}", f.verdict,
         f"{f.n_needed:,}" if f.n_needed and f.verdict == "cannot tell" else "")
        for p in points for f in p.findings
    )  # fmt: skip
    return Table(("Load", "Objective", "Seen, ms", "Beyond it", "Verdict", "Would take"), rows, text_columns=2)


def _trust(points: Sequence[Point]) -> Table:
    rows = []
    for p in points:
        audits = [r.audit for r in p.results if r.audit]
        client = p.client
        caches = [r.cache for r in p.results]
        rows.append((
            words.name_of(p), client.verdict, f"{client.error_bound_ms:.2f}", client.signal,
            words.share(min((a.sent_share for a in audits), default=float("nan"))),
            words.plain(sum(a.sent_dispersion for a in audits) / len(audits) if audits else float("nan")),
            words.ms(max((a.send_lag_s.quantiles["p99"] for a in audits), default=None)),
            p.cache + (f" ({caches[0].share:.1%}, {caches[0].source})" if caches[0].share is not None else ""),
            "/".join(sorted({r.token_source for r in p.results})),
            "yes" if any(r.resumed for r in p.results) else "no",
        ))  # fmt: skip
    head = ("Load", "Client", "Error bound, ms", "Signal", "Rate sent of planned", "Dispersion", "Send lag p99, ms",
            "Prefix cache", "Tokens by", "Resumed")  # fmt: skip
    return Table(head, tuple(rows), text_columns=4)


def _server(points: Sequence[Point]) -> Table:
    rows = []
    for p in points:
        for r in p.results:
            if (b := r.breakdown) is None:
                continue
            usage = f"{r.kv_usage.maximum:.0%}" if r.kv_usage else "-"
            parts = (b.client, b.server, b.queue, b.prefill, b.other, b.beyond)
            rows.append((words.name_of(p), *(words.ms(part) for part in parts), usage))
    head = ("Load", "TTFT here", "TTFT at the server", "Queue", "Prefill", "Other server time", "Network and client",
            "KV cache used, max")  # fmt: skip
    return Table(head, tuple(rows), note="Means in ms of all requests of a stage, warm-up included.")


def _errors(points: Sequence[Point]) -> Table:
    rows = []
    for p in points:
        counts: dict[str, int] = {}
        for r in p.results:
            for name, n in r.errors.items():
                counts[name] = counts.get(name, 0) + n
        rows += [(words.name_of(p), name, f"{n:,}") for name, n in counts.items()]
    return Table(("Load", "Error", "Requests"), tuple(rows), text_columns=2)


def charts_levels(levels: Sequence[LevelRow]) -> charts.Kind:
    """Accuracy against output tokens per second, a point a level."""
    from analyzer.bench.levels import pareto

    return charts.Kind(
        "bench_pareto", "Accuracy against throughput, by level", "Each level at the load where it gave most output; "
        "bars are confidence intervals. Accuracy comes from the sweep that bench.quality names.",
        lambda _points, look: pareto(levels, look),
    )  # fmt: skip


def _specs(points: Sequence[Point], kinds: Sequence[charts.Kind]) -> str:
    specs = {
        kind.name: {
            name: spec_of(kind.draw(points, look), look, None) for name, look in (("wide", PAGE), ("narrow", NARROW))
        }
        for kind in kinds
    }
    text = json.dumps(specs, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")

"""A benched group -> derived rows, tables, verdict, reports: what `kvt bench` calls when its stages have ended."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from analyzer.bench import stored_figures
from analyzer.bench.figure_json import finite
from analyzer.bench.figures.points import Point, points
from analyzer.bench.figures.quantiles import Summary
from analyzer.bench.figures.slo import MISSED
from analyzer.bench.figures.stage_results import StageResult, result_of
from analyzer.bench.quality import quality_words
from analyzer.bench.quality.load_loss import LoadLoss, LossRule, load_losses
from analyzer.bench.quality.scored_stages import score_stages, scored_levels
from analyzer.bench.read import stage_facts
from analyzer.bench.read.request_metrics import with_metrics
from analyzer.bench.report import bench_report, bench_verdict, conversation_tables, part_tables
from analyzer.bench.report.as_tools import FORMULAS, AsTool, as_tool
from analyzer.bench.report.level_comparison import level_rows
from analyzer.bench.stored_parts import parts_json
from analyzer.read.runs import newest_generation
from analyzer.read.snapshot import snapshot
from analyzer.store.tables import as_columns
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.paths import run_paths
from kvt_async.contract.schema import connect_for_reading

if TYPE_CHECKING:
    from kvt_async.contract.settings import Settings

Json = dict[str, Any]


def bench_stages(settings: "Settings", *, as_tool: str | None = None, asked: Mapping[str, float] | None = None) -> Json:
    """Everything about the config's benched group; `lines` is for people, the rest is --json.

    `asked`: objectives to judge by instead of those that the stages were planned with: no request has to be sent again
    to ask another question of it.
    Raises MissingPrerequisiteError where nothing was benched, ConfigError for a tool that isn't known.
    """
    if as_tool is not None and as_tool not in FORMULAS:
        raise ConfigError(f"no formulas of {as_tool!r}", where="--as", do=f"One of: {', '.join(FORMULAS)}.")
    group = settings.experiment.exp_group_id
    paths = run_paths(settings.output.runs_dir, group, settings.db.path)
    analysis = settings.analysis
    alpha = analysis.alpha
    rule = LossRule(analysis.margin, analysis.margin_kind, alpha, analysis.metric)
    conn = connect_for_reading(paths.db, write_derived=True)
    try:
        with snapshot(conn) as reader:
            generation = newest_generation(reader, group)
            levels = scored_levels(stage_facts.stages(reader, group, generation))
            score_stages(conn, reader, (group, generation), levels, rule.metric)
        with snapshot(conn) as reader:
            planned = stage_facts.stages(reader, group, generation)
            results, loads, zones = measured(reader, planned, alpha, asked)
            losses = load_losses(reader, scored_levels(planned), rule)
            as_figures = _as_tool(reader, results, as_tool) if as_tool else []
            commands = stage_facts.commands(reader, group, generation)
        rows = stored_figures.table_rows(group, generation, loads, results, zones, losses)
        made_under: Json = {"alpha": alpha, "slo": dict(asked) if asked else None}
        if losses:
            made_under |= {"margin": rule.size, "margin_kind": rule.kind, "metric": rule.metric}
        stored_figures.write(conn, group, generation, rows, made_under)
    finally:
        conn.close()
    lines = ["nothing was measured yet"]
    if loads:
        tables = [
            bench_verdict.table(loads),
            part_tables.lines(loads),
            conversation_tables.lines(loads),
            bench_verdict.server_table(loads),
        ]
        lines = [*(line for table in tables if table for line in (*table, "")), *bench_verdict.verdict(loads)]
    if losses:
        lines += ["", *quality_words.sentences(losses)]
    if asked and any(stage.slo != dict(asked) for stage in planned):
        lines.append("(objectives are those of this command; some stages were sent under others, or none)")
    files: Json = {}
    if loads:
        as_lines = bench_verdict.as_table(as_figures) if as_figures else []
        benched = bench_report.Benched(
            group=group,
            commands=commands,
            points=loads,
            results=results,
            levels=level_rows(loads, settings.bench.quality),
            as_lines=as_lines,
            losses=losses,
            charts=settings.analysis.charts,
            rows=rows["bench_points"][0]["fingerprint"],
        )
        md, html = bench_report.write(benched, paths)
        lines += ["", *as_lines, *([""] if as_lines else []), f"report: {html}", f"        {md}"]
        files = {"report_md": str(md), "report_html": str(html)}
    return {
        "exp_group_id": group,
        "generation": generation,
        "partial": any(result.stage.partial for result in results),
        "points": [
            {
                **_public(stored_figures.point_row(group, generation, point)),
                "budget": stored_figures.budget_json(point),
                "replies": stored_figures.replies_json(point),
                **stored_figures.conversations_json(point),
                **stored_figures.shared_json(point),
                "parts": parts_json(point),
                "client_bound": list(point.client_bound),
            }
            for point in loads
        ],
        "zones": zones,
        **({"quality": [quality_json(loss) for loss in losses]} if losses else {}),
        "missed": missed(loads),
        "verdict": bench_verdict.verdict(loads) if loads else [],
        **({"as": as_tool, "as_figures": [_as_json(load, figures) for load, figures in as_figures]} if as_tool else {}),
        **files,
        "lines": lines,
    }


def measured(
    reader: sqlite3.Connection,
    planned: Sequence[stage_facts.StageFacts],
    alpha: float,
    asked: Mapping[str, float] | None = None,
) -> tuple[list[StageResult], list[Point], list[Json]]:
    """Every stage, every load that anything was sent of, and the zones: all from the facts."""
    stages = [replace(stage, slo=dict(asked)) for stage in planned] if asked else planned
    results = [result_of(reader, stage, alpha) for stage in stages]
    under_load = [result for result in results if result.n_started and not result.stage.is_unloaded]
    loads = points(under_load, alpha)
    return results, loads, stored_figures.zone_rows(loads)


def quality_json(loss: LoadLoss) -> Json:
    """A row of bench_quality as --json has it: numbers that are not known are null, and beside them the sentence."""
    row = {name: finite(v) if isinstance(v, float) else v for name, v in as_columns(loss).items()}
    public = _public(row) | {"within_noise": None if loss.within_noise is None else bool(loss.within_noise)}
    says = None if loss.is_control else quality_words.load_sentence(loss)
    return public | {"method": loss.asked, "sentence": says}


def missed(loads: Sequence[Point]) -> list[Json]:
    """Objectives that are proven missed, of loads that somebody asked for. Loads that a search or an automatic ladder
    chose count where the lowest of them misses: above it, a miss is how they end."""
    rows: list[Json] = []
    for level in dict.fromkeys(point.level for point in loads):
        of_level = sorted((point for point in loads if point.level == level), key=lambda point: point.value)
        chosen = of_level[0].results[0].stage.purpose in ("auto", "search")
        rows += [
            {"level": level or "", "load": point.load, "objective": finding.objective.name}
            for point in (of_level[:1] if chosen else of_level)
            for finding in point.findings
            if finding.verdict == MISSED
        ]
    return rows


def _as_tool(conn: sqlite3.Connection, results: Sequence[StageResult], tool: str) -> list[tuple[str, AsTool]]:
    """(load, figures) of every stage that answered anything."""
    as_figures = []
    for result in results:
        frame = with_metrics(stage_facts.requests(conn, result.stage.run_id))
        answered = frame.filter((pl.col("phase") == "measured") & (pl.col("state") == "response"))
        if answered.height:
            repeat = f" (repeat {result.stage.repeat_idx})" if result.stage.repeat_idx else ""
            as_figures.append((result.stage.series + repeat, as_tool(tool, answered)))
    return as_figures


def _public(row: Json) -> Json:
    """A row of bench_points as --json has it: its JSON columns are objects."""
    names = {key.removesuffix("_json"): value for key, value in row.items()}
    return {name: json.loads(value) if f"{name}_json" in row else value for name, value in names.items()}


def _as_json(load: str, figures: AsTool) -> Json:
    row = asdict(figures)
    for name, value in row.items():
        if isinstance(getattr(figures, name), Summary):
            row[name] = {"mean": value["mean"], **value["quantiles"], "max": value["maximum"], "n": value["n"]}
    return {"load": load, **row}


__all__ = ["Point", "bench_stages"]

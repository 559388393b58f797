"""The report's verdict, tables and charts as a page of `kvt view`: of a sweep from what is stored, of a bench anew."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from analyzer.bench.bench_analysis import measured
from analyzer.bench.read import stage_facts
from analyzer.bench.report import bench_report
from analyzer.read.runs import benched, newest_generation
from analyzer.report.guards import guard
from analyzer.report.page import context
from analyzer.report.suite_page import sections, suite_context
from analyzer.results.suite_results import SuiteResults, read_suite
from kvt_async.contract.errors import ContradictedError, MissingPrerequisiteError
from kvt_async.contract.settings import Settings


@dataclass(frozen=True)
class VerdictPage:
    """What the page of a verdict shows. `kind`: sweep, suite, bench or none; `page`: what its template prints;
    `specs`: charts by name, each wide and narrow; `refusal`: why there is no verdict, a sentence."""

    kind: str
    page: Mapping[str, Any] = field(default_factory=dict)
    specs: Mapping[str, Any] = field(default_factory=dict)
    refusal: str = ""


def verdict_page(conn: sqlite3.Connection, settings: Settings) -> VerdictPage:
    """The verdict of a group as it is stored now; what is older than the answers is refused, as the report does."""
    group, now = settings.experiment.exp_group_id, datetime.now(UTC)
    if benched(conn, group):
        return _of_bench(conn, settings, now)
    try:
        suite = read_suite(conn, group, volumes=False)
        for task in suite.chosen:
            guard(task, partial=True)
        if suite.is_suite and suite.series and not suite.verdicts:
            raise MissingPrerequisiteError("the tasks have not been analysed together")
    except (MissingPrerequisiteError, ContradictedError) as refusal:
        return VerdictPage("none", refusal="\n".join([refusal.what, *refusal.details]))
    return _of_suite(suite, settings, now) if suite.is_suite else _of_sweep(suite, settings, now)


def _of_sweep(suite: SuiteResults, settings: Settings, now: datetime) -> VerdictPage:
    from analyzer.report.page_charts import captions, specs

    results = suite.first
    return VerdictPage("sweep", context(results, settings, now, captions(results)), specs(results))


def _of_suite(suite: SuiteResults, settings: Settings, now: datetime) -> VerdictPage:
    from analyzer.report.suite_pictures import suite_captions, suite_specs

    page = suite_context(suite, settings, now, suite_captions(suite), sections(suite, settings, now, {}))
    return VerdictPage("suite", page, suite_specs(suite))


def _of_bench(conn: sqlite3.Connection, settings: Settings, now: datetime) -> VerdictPage:
    group = settings.experiment.exp_group_id
    generation = newest_generation(conn, group)
    planned = stage_facts.stages(conn, group, generation)
    results, points, _ = measured(conn, planned, settings.analysis.alpha)
    if not points:
        return VerdictPage("none", refusal="nothing was measured yet")
    commands = stage_facts.commands(conn, group, generation)
    of_bench = bench_report.Benched(
        group=group,
        commands=commands,
        points=points,
        results=results,
        levels=[],
        as_lines=[],
        charts=True,
        rows="",
    )
    page = bench_report.page_context(of_bench, now)
    page["charts"] = [{"name": k.name, "title": k.title, "says": k.says, "note": ""} for k in of_bench.drawings]
    return VerdictPage("bench", page, bench_report.page_specs(of_bench))

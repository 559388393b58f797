"""Persisted results → report.md and report.html: the same rows give the same bytes, but for one generated-at line."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from analyzer.report.guards import guard, same_question
from analyzer.report.html import environment, in_script, prose
from analyzer.report.page import context
from analyzer.report.vega import vega
from analyzer.results.number_format import plural
from analyzer.results.results import Results, read_results
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.files import write_whole
from kvt_async.contract.load import known_secrets
from kvt_async.contract.paths import RunPaths
from kvt_async.contract.settings import Settings


@dataclass(frozen=True)
class ReportPaths:
    md: Path
    html: Path


def build_report(
    conn: sqlite3.Connection,
    settings: Settings,
    paths: RunPaths,
    *,
    partial: bool = False,
    now: datetime | None = None,
    results: Results | None = None,
) -> ReportPaths:
    """Write both reports beside the database, drawing pictures that are missing; `results`: where read before.

    Raises MissingPrerequisiteError when nothing was analysed or the analysis is older than the results (where no report
    stands yet, report.md then says so), ContradictedError when a server applied another budget than asked.
    """
    results = results or read_results(conn, settings.experiment.exp_group_id, volumes=True)
    try:
        guard(results, partial=partial)
    except MissingPrerequisiteError as refusal:
        say_why_no_verdict(results, paths, refusal)
        raise
    same_question(results, settings)
    if settings.analysis.charts:
        from analyzer.report.page_charts import draw_missing  # Altair takes a second to load: only where it draws

        draw_missing(conn, settings, paths.plots, results)
    now = now or datetime.now(UTC)
    return write_reports(markdown(results, settings, now), html(results, settings, now), settings, paths)


def write_reports(md: str, page: str, settings: Settings, paths: RunPaths) -> ReportPaths:
    """Both reports beside the database."""
    out, secrets = ReportPaths(paths.report_md, paths.report_html), known_secrets(settings)
    if secrets.hit(md):  # a database of before may hold what is masked today
        md, page = secrets.text(md), secrets.text(page)
    write_whole(out.md, md)
    write_whole(out.html, page)
    return out


def say_why_no_verdict(results: Results, paths: RunPaths, refusal: MissingPrerequisiteError) -> None:
    """Write a report.md that claims nothing, for whoever looks into the folder of a run that stopped. It never replaces
    a report that stands."""
    if paths.report_md.exists() or paths.report_html.exists():
        return
    finished = sum(p.responses + p.failures for p in results.progress.values())
    total = plural(finished + results.pending, "request")
    counts = f"{finished:,} of {total} have an outcome, {results.pending:,} are pending."
    page = f"# {prose(results.group)}\n\n**No verdict yet.** {counts}\n\n{prose(refusal.what)}. {refusal.do}\n"
    with suppress(OSError):  # a folder that can't be written to has the refusal on the screen
        write_whole(paths.report_md, page)


def markdown(results: Results, settings: Settings, now: datetime) -> str:
    """The text of report.md, which refers to the pictures in plots/ beside it."""
    page = context(results, settings, now, _captions(results, settings))
    return environment("md").get_template("report.md.jinja").render(page)


def html(results: Results, settings: Settings, now: datetime) -> str:
    """The text of report.html: one file that holds its charts, their data and what draws them."""
    page = context(results, settings, now, _captions(results, settings)) | {"specs": "{}", "script": ""}
    if settings.analysis.charts:
        from analyzer.report.page_charts import specs

        with ThreadPoolExecutor(1) as beside:  # bundling takes seconds and leaves Python's lock alone
            script = beside.submit(vega)
            page |= {"specs": in_script(specs(results)), "script": script.result()}
    own = {"p": page, "anchor": "", "plots": "plots"}
    return environment("html").get_template("report.html.jinja").render(page | own)


def _captions(results: Results, settings: Settings) -> list[dict[str, str]]:
    if not settings.analysis.charts:
        return []
    from analyzer.report.page_charts import captions

    return captions(results)

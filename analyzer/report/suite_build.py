"""Persisted results of several tasks → report.md and report.html, and the pictures that they show."""

import base64
import gzip
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from analyzer.report.build import ReportPaths, say_why_no_verdict, write_reports
from analyzer.report.guards import guard, same_question
from analyzer.report.html import environment, in_script
from analyzer.report.suite_page import sections, suite_context
from analyzer.report.vega import vega
from analyzer.results.suite_results import SuiteResults
from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.paths import RunPaths
from kvt_async.contract.settings import Settings


def build_suite_report(
    suite: SuiteResults, settings: Settings, paths: RunPaths, *, partial: bool = False, now: datetime | None = None
) -> ReportPaths:
    """Write both reports beside the database, drawing pictures that are missing.

    Raises MissingPrerequisiteError when a task was not analysed or its analysis is older than its results, and
    ContradictedError when a server applied another budget than asked.
    """
    try:
        for task in suite.chosen:
            guard(task, partial=partial)
        if suite.series and not suite.verdicts:
            raise MissingPrerequisiteError(
                "there is nothing to report: the tasks have not been analysed together",
                where=suite.first.group,
                do="Run `kvt analyze -c CONFIG` first.",
            )
    except MissingPrerequisiteError as refusal:
        say_why_no_verdict(suite.first, paths, refusal)
        raise
    for task in suite.chosen:
        same_question(task, settings)
    if settings.analysis.charts:
        from analyzer.report.suite_pictures import draw_missing

        draw_missing(suite, paths.plots)
    now = now or datetime.now(UTC)
    page = _page(suite, settings, now)  # once for both: of many tasks it is much
    return write_reports(_markdown(page), _html(suite, settings, page), settings, paths)


def suite_markdown(suite: SuiteResults, settings: Settings, now: datetime) -> str:
    """The text of report.md, which refers to the pictures in plots/ and in its folders."""
    return _markdown(_page(suite, settings, now))


def suite_html(suite: SuiteResults, settings: Settings, now: datetime) -> str:
    """The text of report.html: one file. The charts of a task are packed in it until its section is opened."""
    return _html(suite, settings, _page(suite, settings, now))


def _markdown(page: Mapping[str, Any]) -> str:
    return environment("md").get_template("suite.md.jinja").render(page)


def _html(suite: SuiteResults, settings: Settings, shared: Mapping[str, Any]) -> str:
    page: dict[str, Any] = {**shared, "specs": "{}", "script": ""}
    if settings.analysis.charts:
        from analyzer.report.page_charts import specs
        from analyzer.report.suite_pictures import suite_specs

        with ThreadPoolExecutor(1) as beside:  # bundling takes seconds and leaves Python's lock alone
            script = beside.submit(vega)
            packed = {task.task: _packed(specs(task)) for task in suite.tasks}
            page["tasks"] = [replace(section, specs=packed[section.name]) for section in page["tasks"]]
            page |= {"specs": in_script(suite_specs(suite)), "script": script.result()}
    return environment("html").get_template("suite.html.jinja").render(page)


def _page(suite: SuiteResults, settings: Settings, now: datetime) -> dict[str, Any]:
    charts: list[dict[str, str]] = []
    of_tasks: dict[str, list[dict[str, str]]] = {}
    if settings.analysis.charts:
        from analyzer.report.page_charts import captions
        from analyzer.report.suite_pictures import suite_captions

        charts = suite_captions(suite)
        of_tasks = {task.task: captions(task) for task in suite.tasks}
    return suite_context(suite, settings, now, charts, sections(suite, settings, now, of_tasks))


def _packed(specs: Mapping[str, Any]) -> str:
    """JSON, gzipped, in letters: the same specs give the same text."""
    text = json.dumps(specs, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()

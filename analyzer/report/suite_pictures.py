"""The charts of a report over several tasks: their files, their captions, and their specs for the page."""

from pathlib import Path
from typing import Any

from analyzer.charts.draw import CHARTS, draw
from analyzer.charts.frames import chart_data
from analyzer.charts.picture_files import FILES, Drawers, Picture
from analyzer.charts.style import NARROW, PAGE
from analyzer.charts.suite_charts import SUITE_CHARTS, draw_suite_chart, suite_files, suite_pictures
from analyzer.report.suite_page import TASK_FILES, folders
from analyzer.results.suite_alarms import suite_note
from analyzer.results.suite_results import SuiteResults


def draw_pictures(suite: SuiteResults, plots: Path, drawers: Drawers) -> list[Path]:
    """Draw the charts over the tasks into `plots`, and those of each task into its folder there."""
    pictures = suite_pictures(suite, suite_note(suite), plots)
    places = folders(suite)
    for task in suite.tasks:
        data = chart_data(task)
        pictures += [
            Picture(draw(kind, task, data), plots / places[task.task], kind.name)
            for kind in CHARTS
            if kind.name in TASK_FILES
        ]
    return drawers.save(*pictures)


def picture_files(suite: SuiteResults, plots: Path) -> list[Path]:
    """What draw_pictures writes, in its order."""
    names = [kind.name for kind in CHARTS if kind.name in TASK_FILES]
    of_tasks = [plots / place / f"{name}{end}" for place in folders(suite).values() for name in names for end in FILES]
    return [*suite_files(plots), *of_tasks]


def draw_missing(suite: SuiteResults, plots: Path) -> None:
    """Draw every picture where one is not there."""
    if missing := [file for file in picture_files(suite, plots) if not file.is_file()]:
        with Drawers(len(missing) // len(FILES)) as drawers:
            draw_pictures(suite, plots, drawers)


def suite_captions(suite: SuiteResults) -> list[dict[str, str]]:
    note = suite_note(suite)
    return [{"name": c.name, "title": c.title, "says": c.says(suite), "note": note} for c in SUITE_CHARTS]


def suite_specs(suite: SuiteResults) -> dict[str, Any]:
    """Every chart over the tasks twice, for desktops and phones."""
    return {
        chart.name: {
            name: draw_suite_chart(chart, suite, "", size, title=False)
            for name, size in (("wide", PAGE), ("narrow", NARROW))
        }
        for chart in SUITE_CHARTS
    }

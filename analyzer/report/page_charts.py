"""The charts of a report: their files, their captions, and their specs for the page that draws them itself."""

import sqlite3
from pathlib import Path
from typing import Any

from analyzer.charts.chart_news import without_news
from analyzer.charts.draw import CHARTS, draw, draw_all
from analyzer.charts.frames import chart_data, note
from analyzer.charts.picture_files import FILES
from analyzer.charts.style import NARROW, PAGE
from analyzer.results.results import Results
from kvt_async.contract.settings import Settings


def draw_missing(conn: sqlite3.Connection, settings: Settings, plots: Path, results: Results) -> None:
    """Draw every picture where one is not there."""
    if any(not (plots / f"{kind.name}{end}").is_file() for kind in CHARTS for end in FILES):
        draw_all(conn, settings, plots, results)


def captions(results: Results) -> list[dict[str, str]]:
    """What stands above every chart. left_out: why a page does not show it; empty: it does."""
    reasons = without_news(results, chart_data(results))
    said = note(results)
    return [
        {
            "name": kind.name,
            "title": kind.message(results),
            "says": kind.says(results),
            "note": said,
            "left_out": reasons.get(kind.name, ""),
        }
        for kind in CHARTS
    ]


def specs(results: Results) -> dict[str, Any]:
    """Every chart that a page shows twice, for desktops and phones."""
    data = chart_data(results)
    reasons = without_news(results, data)
    return {
        kind.name: {
            name: draw(kind, results, data, size, title=False) for name, size in (("wide", PAGE), ("narrow", NARROW))
        }
        for kind in CHARTS
        if kind.name not in reasons
    }

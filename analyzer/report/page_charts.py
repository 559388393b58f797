"""The charts of a report: their files, their captions, and their specs for the page that draws them itself."""

import sqlite3
from pathlib import Path
from typing import Any

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
    return [
        {"name": k.name, "title": k.message(results), "says": k.says(results), "note": note(results)} for k in CHARTS
    ]


def specs(results: Results) -> dict[str, Any]:
    """Every chart twice, for desktops and phones."""
    data = chart_data(results)
    return {
        kind.name: {
            name: draw(kind, results, data, size, title=False) for name, size in (("wide", PAGE), ("narrow", NARROW))
        }
        for kind in CHARTS
    }

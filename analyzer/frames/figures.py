"""The report's charts as Altair charts, for notebooks."""

from typing import Any

import altair as alt

from analyzer.charts.draw import CHARTS, draw
from analyzer.charts.figure_names import SHORT, SHORT_OF_SUITE
from analyzer.charts.frames import chart_data
from analyzer.charts.style import ChartSize
from analyzer.charts.suite_charts import SUITE_CHARTS, draw_suite_chart
from analyzer.results.results import Results
from analyzer.results.suite_alarms import suite_note
from analyzer.results.suite_results import SuiteResults
from kvt_async.contract.errors import ConfigError


def task_figure(results: Results, name: str, width: int, *, title: bool) -> Any:
    """A chart of one task. Raises ConfigError for a name that is none."""
    kinds = {kind.name: kind for kind in CHARTS}
    full = SHORT.get(name, name)
    if full not in kinds:
        raise ConfigError(f"no figure {name!r}", do=f"There are: {', '.join(SHORT)}.")
    return alt.Chart.from_dict(draw(kinds[full], results, chart_data(results), ChartSize(width), title=title))


def suite_figure(suite: SuiteResults, name: str, width: int, *, title: bool) -> Any:
    """A chart over the tasks. Raises ConfigError for a name that is none."""
    kinds = {chart.name: chart for chart in SUITE_CHARTS}
    full = SHORT_OF_SUITE.get(name, name)
    if full not in kinds:
        raise ConfigError(f"no figure {name!r} over tasks", do=f"There are: {', '.join(SHORT_OF_SUITE)}.")
    spec = draw_suite_chart(kinds[full], suite, suite_note(suite), ChartSize(width), title=title)
    return alt.Chart.from_dict(spec)

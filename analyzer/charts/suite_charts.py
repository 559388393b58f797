"""Charts over several tasks: the verdict task by task, and a map of tasks x budgets. Rows in, charts out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl
from altair.utils.schemapi import debug_mode

from analyzer.charts.axis import BudgetAxis, budget_axis
from analyzer.charts.compose import facet, layer
from analyzer.charts.picture_files import FILES, Picture
from analyzer.charts.spans import BAR_SCHEMA, NO_VERDICT, NOT_PROVEN, OPEN_ZONE, ZONE_PART, bar, spans_of
from analyzer.charts.style import WIDE, ChartSize, empty, records, spec_of, title_lines
from analyzer.charts.verdict import draw_bars
from analyzer.results.number_format import cache_share, loss_size, rounded
from analyzer.results.series_names import series_name, short_names, two_lines
from analyzer.results.suite_results import SuiteResults
from analyzer.store.suite_tables import SuiteVerdict
from kvt_async.contract.vocabulary import SeriesVerdict

ON_AVERAGE = "On average"
LOSS = ["#FBF6F1", "#FDC28C", "#E8601C", "#8A2B06"]  # from none to the largest
MAP_SCHEMA: dict[str, Any] = {
    "series": pl.String,
    "task": pl.String,
    "at": pl.String,
    "drop": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "full": pl.Float64,
    "here": pl.Float64,
    "n": pl.Int64,
    "state": pl.String,
}


@dataclass(frozen=True)
class SuiteChart:
    """`title` is the message, `says` explains the marks."""

    name: str
    title: str
    says: Callable[[SuiteResults], str]
    draw: Callable[[SuiteResults, BudgetAxis, ChartSize], Any]


def suite_axis(suite: SuiteResults) -> BudgetAxis:
    """The budget axis that the tasks share: every task has one set of levels."""
    return budget_axis(next((task for task in suite.chosen if task.series), suite.first))


def bars(suite: SuiteResults, axis: BudgetAxis) -> pl.DataFrame:
    """Spans of the first series over the tasks and of each task, then of the other series over the tasks."""
    rows: list[dict[str, Any]] = []
    names = short_names(suite.series)
    for series in suite.series:
        is_first = series == suite.series[0]
        v = suite.verdict(series)
        group = series_name(series) if is_first else "Other series, on average over tasks"
        name = ON_AVERAGE if is_first else two_lines(names[series])
        rows += bar(group, name, suite_spans(v, axis), v.verdict_text if v else "")
        for task in suite.chosen if is_first else []:
            own = task.verdict(series)
            rows += bar(group, task.task, spans_of(own, axis), own.verdict_text if own else "")
    return pl.DataFrame(rows, schema=BAR_SCHEMA, orient="row")


def suite_spans(v: SuiteVerdict | None, axis: BudgetAxis) -> list[tuple[str, float, float]]:
    """(part, from, to) of the verdict over tasks: safe with the guard, broken where the mean is."""
    top, bottom = axis.edges
    if v is None or not v.judges:
        return [(NO_VERDICT, top, bottom)]
    if v.verdict == SeriesVerdict.NO_TRANSITION:
        return [("safe", top, bottom)]
    high = top if v.suite_safe is None else axis.at(v.suite_safe)
    low = bottom if v.mean_broken_budget is None else axis.at(v.mean_broken_budget)
    between = NOT_PROVEN if v.mean_broken_budget is None else OPEN_ZONE if v.suite_safe is None else ZONE_PART
    spans = [] if v.suite_safe is None else [("safe", top, high)]
    spans.append((between, high, low))
    return spans if v.mean_broken_budget is None else [*spans, ("broken", low, bottom)]


def verdict_by_task(suite: SuiteResults, axis: BudgetAxis, size: ChartSize) -> Any:
    return draw_bars(bars(suite, axis), axis, size)


def verdict_says(suite: SuiteResults) -> str:
    v = suite.verdict(suite.series[0]) if suite.series else None
    if v is None or not v.judges:
        return "No verdict over the tasks: the sentence above says why."
    kind = v.asked.get("margin_kind", "absolute")
    m, guard = loss_size(v.asked.get("margin", 0.0), kind), loss_size(v.guard, kind)
    return (
        f"Safe: accuracy is proven to fall by less than {m} there and with any larger cache tested; on average, also "
        f"every task by less than {guard}. Broken: proven to fall by more than {m}, there and with any smaller one. "
        "Between the two neither is proven. 95% confidence; single tasks are exploratory."
    )


def drops(suite: SuiteResults) -> pl.DataFrame:
    """The loss of each task at each budget, and of their mean."""
    rows = []
    names = short_names(suite.series)
    for series in suite.series:
        for row in suite.levels(series):
            if row.drop_mean is not None:
                rows.append(
                    {
                        "series": names[series],
                        "task": ON_AVERAGE,
                        "at": cache_share(row.kv_budget, suite.unit),
                        "drop": row.drop_mean,
                        "low": row.drop_ci_low,
                        "high": row.drop_ci_high,
                        "full": row.mean_full,
                        "here": row.mean_here,
                        "n": row.n,
                        "state": "",
                    }
                )
        for task in suite.chosen:
            own, full = task.verdict(series), task.stat(task.full)
            for run in task.levels(series):
                drop = task.drop(run)
                if drop is None or drop.drop_mean is None:
                    continue
                safe = own is not None and own.judges and (own.safe_budget or 2.0) <= run.kv_budget
                broken = own is not None and own.broken is not None and run.kv_budget <= own.broken
                rows.append(
                    {
                        "series": names[series],
                        "task": task.task,
                        "at": cache_share(run.kv_budget, run.kv_unit),
                        "drop": drop.drop_mean,
                        "low": drop.drop_ci_low,
                        "high": drop.drop_ci_high,
                        "full": full.acc_mean if full else None,
                        "here": drop.acc_mean,
                        "n": drop.n,
                        "state": "safe" if safe else "broken" if broken else "not proven",
                    }
                )
    return pl.DataFrame(rows, schema=MAP_SCHEMA, orient="row")


def task_budget_map(suite: SuiteResults, axis: BudgetAxis, size: ChartSize) -> Any:
    """A cell for each task and budget: the loss against full cache; cells that are proven safe are framed."""
    del axis
    frame = drops(suite)
    if frame.is_empty():
        return empty("No loss to show: there is no full-cache run to compare with, or nothing below it.", size)
    budgets = frame["at"].unique(maintain_order=True).to_list()
    cell = (size.width - (76 if size.narrow else 190)) / max(len(budgets), 3)
    frame = frame.with_columns(shown=pl.col("drop").map_elements(_short if cell < 40 else _two, pl.String))
    order = [ON_AVERAGE, *(task.task for task in suite.chosen)]
    title = "Share of the KV cache kept" if budgets[0].endswith("%") else "Budget"
    x_axis = alt.Axis(labelAngle=0 if cell >= 36 else -90, domain=False, ticks=False)
    limit, font = (108, 10) if size.narrow else (200, 12)
    y_axis = alt.Axis(domain=False, ticks=False, labelLimit=limit, labelFontSize=font)
    inner = alt.Scale(paddingInner=0.08, paddingOuter=0.03)
    base = alt.Chart().encode(
        x=alt.X("at:N", sort=budgets, title=title, axis=x_axis, scale=inner),
        y=alt.Y("task:N", sort=order, title=None, axis=y_axis, scale=inner),
    )
    top = max(0.1, float(frame.select(pl.col("drop").max()).item() or 0.0))
    cells = base.mark_rect().encode(
        color=alt.Color(
            "drop:Q",
            scale=alt.Scale(range=LOSS, domain=[0, top], clamp=True, interpolate="rgb"),
            legend=alt.Legend(title="Loss of accuracy", format=".2f", gradientLength=min(240, size.width - 40)),
        ),
        stroke=alt.StrokeValue("transparent", condition={"test": "datum.state == 'safe'", "value": "#0072B2"}),
        strokeWidth=alt.StrokeWidthValue(0, condition={"test": "datum.state == 'safe'", "value": 2}),
        tooltip=[
            alt.Tooltip("task:N", title="task"),
            alt.Tooltip("at:N", title="cache kept"),
            alt.Tooltip("drop:Q", title="loss", format=".3f"),
            alt.Tooltip("low:Q", title="95% CI from", format=".3f"),
            alt.Tooltip("high:Q", title="95% CI to", format=".3f"),
            alt.Tooltip("full:Q", title="accuracy at full cache", format=".3f"),
            alt.Tooltip("here:Q", title="accuracy here", format=".3f"),
            alt.Tooltip("n:Q", title="pairs"),
            alt.Tooltip("state:N", title="verdict here"),
        ],
    )
    ink = alt.ColorValue("#1a1a1a", condition={"test": f"datum.drop > {0.75 * top}", "value": "#ffffff"})
    value = base.mark_text(fontSize=11 if cell >= 40 else 9).encode(text=alt.Text("shown:N"), color=ink)
    panel = layer(
        cells,
        value,
        data=records(frame, *MAP_SCHEMA, "shown"),
        width=cell * max(len(budgets), 1),
        height=alt.Step(24 if size.narrow else 26),
    )
    names = list(short_names(suite.series).values())
    return facet(panel, alt.Facet("series:N", sort=names, title=None), columns=1)


def _two(value: float) -> str:
    return rounded(value, 2).replace("-0.00", "0.00").replace("-", "−")


def _short(value: float) -> str:
    return _two(value).replace("0.", ".", 1)


SUITE_CHARTS = (
    SuiteChart("verdict_by_task", "How far the cache can shrink", verdict_says, verdict_by_task),
    SuiteChart(
        "task_budget_map",
        "What each task loses at each budget",
        lambda _: (
            "Cells: loss of accuracy against full cache, paired; tap or hover one for its 95% interval. Framed: "
            "proven safe in that task. The same numbers stand in the table below."
        ),
        task_budget_map,
    ),
)


def draw_suite_chart(
    chart: SuiteChart, suite: SuiteResults, note: str, size: ChartSize = WIDE, *, title: bool = True
) -> dict[str, Any]:
    """One chart as Vega-Lite JSON. Without `title` the page around it must carry message and note."""
    with debug_mode(False):
        drawing = chart.draw(suite, suite_axis(suite), size)
    head = title_lines(chart.title, [chart.says(suite)], note, size) if title else None
    return spec_of(drawing, size, head)


def suite_pictures(suite: SuiteResults, note: str, plots: Path) -> list[Picture]:
    """The charts over the tasks, to be drawn."""
    return [Picture(draw_suite_chart(chart, suite, note), plots, chart.name) for chart in SUITE_CHARTS]


def suite_files(plots: Path) -> list[Path]:
    """The files of suite_pictures, in their order."""
    return [plots / f"{chart.name}{end}" for chart in SUITE_CHARTS for end in FILES]

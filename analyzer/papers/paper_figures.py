"""`kvt figures`: the report's charts as files for a paper, each to the size of a column."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from analyzer.charts.chart_news import without_news
from analyzer.charts.draw import CHARTS, ChartKind, draw
from analyzer.charts.figure_names import SHORT, SHORT_OF_SUITE
from analyzer.charts.fonts import prefer_own_fonts
from analyzer.charts.frames import ChartData, chart_data, note
from analyzer.charts.style import ChartSize
from analyzer.charts.suite_charts import SUITE_CHARTS, SuiteChart, draw_suite_chart
from analyzer.papers.paper_size import PNG_PPI, POINTS, PaperSize, Spec, resized
from analyzer.read.group_connection import open_group
from analyzer.read.runs import benched
from analyzer.read.snapshot import snapshot
from analyzer.report.suite_page import TASK_FILES, folders
from analyzer.results.results import Results, refuse_older
from analyzer.results.suite_alarms import suite_note
from analyzer.results.suite_results import SuiteResults, read_suite
from analyzer.stage_answers import Json, StageAnswer
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.files import write_whole
from kvt_async.contract.paths import run_paths
from kvt_async.contract.settings import Settings

FORMATS = ("pdf", "svg", "png")
ON_PAPER = {"task_budget_map": "Cells: loss of accuracy against full cache, paired. Framed: proven safe in that task."}
"""Captions of charts whose words in a report are about the page around them."""


@dataclass(frozen=True)
class FigureOrder:
    """What is to be drawn. figures: names, full or short; empty: every chart that says something."""

    out: Path
    format: str = "pdf"
    size: PaperSize = PaperSize()  # noqa: RUF009 - frozen
    titles: bool = True
    figures: tuple[str, ...] = ()
    task: str | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConfigError(f"no format {self.format!r}", where="--format", do=f"One of: {', '.join(FORMATS)}.")


@dataclass(frozen=True)
class Figure:
    """A chart that can be drawn at any width; `caption` says what a title would."""

    name: str
    folder: str
    caption: str
    draw: Callable[[ChartSize, bool], Spec]


@dataclass(frozen=True)
class FiguresAnswer(StageAnswer):
    """The files, each with the words that its caption must carry where it has no title."""

    files: list[tuple[Path, str]]

    @property
    def lines(self) -> list[str]:
        return [line for path, caption in self.files for line in (str(path), *([f"    {caption}"] if caption else []))]

    def json(self) -> Json:
        return {"figures": [{"file": str(path), "caption": caption} for path, caption in self.files]}


def draw_figures(settings: Settings, order: FigureOrder) -> FiguresAnswer:
    """Draw the figures of the config's group, which was swept and analysed.

    Raises ConfigError for a chart that there is not and a height that can't be, MissingPrerequisiteError before the
    first analysis.
    """
    group = settings.experiment.exp_group_id
    paths = run_paths(settings.output.runs_dir, group, settings.db.path)
    with closing(open_group(paths.db)) as group_conn, snapshot(group_conn) as conn:
        if benched(conn, group):
            raise ConfigError(
                "these are the charts of a sweep, and this group was benched",
                where=group,
                do="`kvt bench report` writes a bench's charts beside its report, as SVG and PNG.",
            )
        suite = read_suite(conn, group)
    if not any(task.stats for task in suite.tasks):
        raise MissingPrerequisiteError("nothing was analysed yet", where=group, do="Run `kvt all -c CONFIG` first.")
    for task in suite.tasks:
        refuse_older(task)
    prefer_own_fonts()
    files = []
    for figure in _chosen(suite, order):
        path = order.out / figure.folder / f"{figure.name}.{order.format}"
        _write(path, order, figure)
        files.append((path, "" if order.titles else figure.caption))
    return FiguresAnswer(files)


def _chosen(suite: SuiteResults, order: FigureOrder) -> list[Figure]:
    tasks = suite.tasks if order.task is None else [suite.task(order.task)]
    over_tasks = suite.is_suite and order.task is None
    wanted = {SHORT.get(name, SHORT_OF_SUITE.get(name, name)) for name in order.figures}
    known = [kind.name for kind in CHARTS] + [chart.name for chart in SUITE_CHARTS if over_tasks]
    if unknown := sorted(wanted - set(known)):
        short = {full: name for name, full in (SHORT | SHORT_OF_SUITE).items()}
        named = ", ".join(f"{short[name]} ({name})" if name in short else name for name in known)
        raise ConfigError(f"no figure {', '.join(unknown)}", where="--figures", do=f"There are: {named}.")
    figures = list(suite_figures(suite, wanted)) if over_tasks else []
    places = folders(suite) if over_tasks else {}
    for task in tasks:
        names = wanted or _telling(task, TASK_FILES if over_tasks else [kind.name for kind in CHARTS])
        figures += _task_figures(task, places.get(task.task, ""), names)
    return figures


def _telling(task: Results, names: Iterable[str]) -> set[str]:
    """Those charts that show something."""
    return set(names) - set(without_news(task, chart_data(task)))


def suite_figures(suite: SuiteResults, wanted: set[str]) -> Iterator[Figure]:
    """The charts over the tasks; those that are wanted, all where none is named."""
    said = suite_note(suite)
    for chart in SUITE_CHARTS:
        if not wanted or chart.name in wanted:
            yield Figure(
                chart.name,
                "",
                _caption(chart.title, ON_PAPER.get(chart.name) or chart.says(suite), said),
                partial(_over_tasks, chart, suite),
            )


def _task_figures(task: Results, folder: str, names: set[str]) -> Iterator[Figure]:
    data = chart_data(task)
    for kind in CHARTS:
        if kind.name in names:
            yield Figure(
                kind.name,
                folder,
                _caption(kind.message(task), kind.says(task), note(task)),
                partial(_of_task, kind, task, data),
            )


def _over_tasks(chart: SuiteChart, suite: SuiteResults, size: ChartSize, title: bool) -> Spec:
    return draw_suite_chart(chart, suite, suite_note(suite), size, title=title)


def _of_task(kind: ChartKind, task: Results, data: ChartData, size: ChartSize, title: bool) -> Spec:
    return draw(kind, task, data, size, title=title)


def _caption(*parts: str) -> str:
    return " ".join(part if part.endswith((".", "?", "!")) else f"{part}." for part in parts if part)


def _write(path: Path, order: FigureOrder, figure: Figure) -> None:
    import vl_convert

    svg = order.size.svg(lambda size: figure.draw(size, order.titles))
    content: str | bytes
    if order.format == "svg":
        content = resized(svg, order.size.width, "in")
    elif order.format == "pdf":
        content = vl_convert.svg_to_pdf(resized(svg, order.size.width * POINTS))
    else:
        content = vl_convert.svg_to_png(resized(svg, order.size.width * POINTS), ppi=PNG_PPI)
    write_whole(path, content)

"""The analyzer's stages with their files: open the database, call one stage, say what it did."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analyzer.read.group_connection import open_group
from analyzer.stage_answers import (
    AnalyzeAnswer,
    BenchAnswer,
    CheckAnswer,
    ReportAnswer,
    ScoreAnswer,
    Standing,
    VerdictAnswer,
)
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.paths import DB_NAME, RunPaths, run_paths

if TYPE_CHECKING:
    from analyzer.results.suite_results import SuiteResults
    from analyzer.summarise.analyze import AnalyzeReport
    from analyzer.verbs.compare import CompareAnswer
    from analyzer.verbs.compared_groups import GroupsAnswer
    from analyzer.verbs.export import ExportAnswer
    from analyzer.verbs.power import PlanAnswer
    from analyzer.verbs.show import ShowAnswer
    from analyzer.verbs.suite_plan import SuitePlan
    from analyzer.verify.findings import VerifyAnswer
    from kvt_async.contract.planned_task import PlannedTask
    from kvt_async.contract.settings import Settings


@dataclass(frozen=True)
class OpenGroup:
    """The config's group, its database open."""

    conn: sqlite3.Connection
    settings: "Settings"
    paths: RunPaths

    @property
    def name(self) -> str:
        return self.settings.experiment.exp_group_id


def score_stage(settings: "Settings", *, run_id: str | None = None, recompute: bool = False) -> ScoreAnswer:
    """Score what is finished and not scored yet; with `recompute` everything, of earlier generations too."""
    from analyzer.scoring.score import score

    _refuse_bench(settings, "a bench's answers are scored where its loads are compared")
    with _open(settings, write=True) as group:
        for generation, own, _ in _earlier(group) if recompute and run_id is None else ():
            score(group.conn, group.name, generation=generation, metric=own.analysis.metric, recompute=True)
        done = score(group.conn, group.name, run_id=run_id, metric=settings.analysis.metric, recompute=recompute)
    return ScoreAnswer(done.scored, done.skipped, done.rescored)


def analyze_stage(
    settings: "Settings", *, run_id: str | None = None, partial: bool = False, recompute: bool = False
) -> AnalyzeAnswer:
    """Derived tables and charts; with `recompute` those of earlier generations too, under their own settings."""
    from analyzer.results.suite_results import read_suite

    _refuse_bench(settings, "a bench has loads, and no budgets to analyze")
    with _open(settings, write=True) as group:
        done = _analyze(group, run_id=run_id, partial=partial, recompute=recompute)
        return _charts(group, done, read_suite(group.conn, group.name), recompute=recompute)


def report_stage(
    settings: "Settings", *, partial: bool = False, recompute: bool = False
) -> "ReportAnswer | BenchAnswer":
    """report.md and report.html from persisted results; of a bench, from its stages."""
    from analyzer.read.drift import refuse_drift
    from analyzer.results.suite_results import read_suite

    if _is_benched(settings):
        return _bench(settings)
    with _open(settings) as group:
        suite = read_suite(group.conn, group.name, volumes=True, telling=False)
        refuse_drift([] if settings.analysis.allow_drift else suite.first.drifts)
        return _report(group, suite, partial=partial, recompute=recompute)


def every_stage(
    settings: "Settings", *, run_id: str | None = None, partial: bool = False, recompute: bool = False
) -> "VerdictAnswer | BenchAnswer":
    """score, analyze, report, then the verdict; of a bench, what `kvt bench report` says."""
    from analyzer.read import kept_counts
    from analyzer.report.figures_json import figures, suite_figures
    from analyzer.report.suite_answers import suite_screen
    from analyzer.report.terminal_verdict import screen_lines, verdict_lines
    from analyzer.results.suite_results import read_suite
    from analyzer.store import derived_rows

    if _is_benched(settings):
        return _bench(settings)
    scored = score_stage(settings, run_id=run_id, recompute=recompute)
    with _open(settings, write=True) as group:
        done = _analyze(group, run_id=run_id, partial=partial, recompute=recompute)
        mark = kept_counts.facts_mark(group.conn, kept_counts.VOLUMES)
        suite = read_suite(group.conn, group.name, volumes=True, telling=False)  # once for all: they are many rows
        volumes = {"sessions": [astuple(volume) for volume in suite.first.volumes]}
        derived_rows.keep(group.conn, group.name, done.generation, kept_counts.VOLUMES, mark, volumes)
        analyzed = _charts(group, done, suite, recompute=recompute)
        reported = _report(group, suite, partial=partial, recompute=recompute)
        if suite.is_suite:
            lines, all_figures = screen_lines(suite_screen(suite, settings)), suite_figures(suite, settings)
        else:
            lines, all_figures = verdict_lines(suite.first, settings), figures(suite.first, settings)
        return VerdictAnswer(scored, analyzed, reported, lines, all_figures)


def verify_stage(settings: "Settings", progress: Callable[[str], None] = lambda _: None) -> "VerifyAnswer":
    """Every derived row made again from the facts and compared; `exit_code` is 0, 1 (a difference) or 3 (unchecked)."""
    from analyzer.verify.findings import verified

    paths = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)
    return verified(paths.db, Path(settings.output.data_dir), progress)


def check_stage(settings: "Settings", *, strict: bool = False) -> CheckAnswer:
    """The config's assertions, each with its finding. `strict`: what cannot be told does not pass."""
    from analyzer.results.results import refuse_older
    from analyzer.results.suite_results import read_suite
    from analyzer.verbs.check import assertions_of, check_suite

    if not assertions_of(settings):
        raise ConfigError(
            "this config has no check: section", where="check", do="`kvt check -c sanity --print-config` shows one."
        )
    if _is_benched(settings):
        from analyzer.bench.bench_checks import check_bench

        return CheckAnswer(check_bench(settings), Standing((), are_short=False), strict=strict)
    with _open(settings) as group:
        suite = read_suite(group.conn, group.name)
    for task in suite.tasks:
        refuse_older(task)
    return CheckAnswer(check_suite(suite, settings), _standing(suite), suite.rescored, strict)


def show_stage(
    settings: "Settings",
    example_id: str | None,
    *,
    sample: int | None = None,
    task: str | None = None,
    run_id: str | None = None,
    full: bool = False,
) -> "ShowAnswer":
    """One example or a seeded sample, with every answer."""
    from analyzer.verbs.show import show

    if (example_id is None) == (sample is None):
        raise ConfigError("say which example", where="kvt show", do="Pass an EXAMPLE_ID, or --sample N.")
    with _open(settings) as group:
        return show(group.conn, settings, example_id, sample=sample, task=task, run_id=run_id, full=full)


def compare_stage(
    places: Sequence[Path], *, allow_drift: bool = False, out: Path | None = None
) -> "CompareAnswer | GroupsAnswer":
    """Groups side by side, in `out` as a page."""
    from analyzer.verbs.compared_groups import compare_groups

    with ExitStack() as stack:
        conns = [stack.enter_context(closing(open_group(_database(place)))) for place in places]
        answer = compare_groups(places, conns, allow_drift=allow_drift)
    if out is not None:
        from analyzer.verbs.compare_page import write_page

        write_page(answer, out)
    return answer


def plan_stage(
    settings: "Settings",
    tasks: "Sequence[PlannedTask]" = (),
    *,
    flip_rate: float | None = None,
    measured: Path | None = None,
) -> "PlanAnswer | SuitePlan":
    """What this config can prove with its tasks, before anything is sent. Without tasks: as one, of what the group has.

    The share of flips is the one given; or measured by the A/A control of the group in `measured` (a run directory or
    database), or of the config's own group, there of each task by itself; or assumed where nothing was measured.
    """
    from analyzer.read import examples, runs
    from analyzer.verbs.power import ASSUMED_FLIPS, Flips, plan
    from analyzer.verbs.suite_plan import layout_of, suite_plan

    flips, version, layout = Flips(ASSUMED_FLIPS), 0, None
    own: dict[str, Flips] = {}
    if run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path).db.is_file():
        with _open(settings) as group:
            flips = Flips.in_control(group.conn, group.name) or flips
            version, layout = runs.analysed_version(group.conn, group.name), examples.layout(group.conn)
            tasks = [replace(t, contexts=examples.places(group.conn, t.dataset_id) or t.contexts) for t in tasks]
            of_tasks = {t.name: Flips.in_control(group.conn, group.name, t.dataset_id) for t in tasks}
            own = {name: measured_flips for name, measured_flips in of_tasks.items() if measured_flips is not None}
    if measured is not None:
        with closing(open_group(_database(measured))) as conn:
            flips, own = Flips.measured_in(conn, measured), {}
    if flip_rate is not None:
        flips, own = Flips(flip_rate), {}
    if len(tasks) > 1:
        return suite_plan(settings, tasks, flips, own)
    if tasks:
        flips = own.get(tasks[0].name, flips)
        layout = layout_of(tasks[0]) if tasks[0].contexts else layout
    turns = tasks[0].turns if tasks else 1.0
    return plan(tasks[0].settings if tasks else settings, flips=flips, version=version, layout=layout, turns=turns)


def export_stage(settings: "Settings", out: Path, *, exact: bool = False, with_context: bool = False) -> "ExportAnswer":
    """One row per outcome to Parquet, CSV or JSON lines."""
    from analyzer.verbs.export import export

    _refuse_bench(
        settings,
        "a bench has no outcomes to export",
        do="Write its loads and requests with `kvt bench export GROUP --format csv`.",
    )
    with _open(settings) as group:
        return export(group.conn, settings, out, exact=exact, with_context=with_context)


def _analyze(group: OpenGroup, *, run_id: str | None, partial: bool, recompute: bool) -> "AnalyzeReport":
    """Analyse; with `recompute` earlier generations too, under their own settings."""
    from analyzer.store import derived_rows
    from analyzer.summarise.analyze import analyze

    if recompute and run_id is None:
        derived_rows.drop_unexplained(group.conn)
        for generation, own, was_partial in _earlier(group):
            analyze(group.conn, own, generation=generation, partial=was_partial, recompute=True)
    return analyze(group.conn, group.settings, run_id=run_id, partial=partial, recompute=recompute)


def _earlier(group: OpenGroup) -> list[tuple[int, "Settings", bool]]:
    """(generation, the settings it was analysed under, partial) of a group's earlier generations."""
    from analyzer.read import runs
    from analyzer.store import derived_rows
    from kvt_async.contract.settings import Analysis

    newest = runs.newest_generation(group.conn, group.name)
    return [
        (
            generation,
            group.settings.model_copy(update={"analysis": Analysis.model_validate(record["settings"])}),
            bool(record["partial"]),
        )
        for generation, record in derived_rows.analysed_before(group.conn, group.name, newest)
    ]


def _charts(group: OpenGroup, done: "AnalyzeReport", suite: "SuiteResults", *, recompute: bool) -> AnalyzeAnswer:
    from analyzer.store.artifacts import once

    def draw() -> list[Path]:
        if suite.is_suite:
            from analyzer.charts.picture_files import Drawers
            from analyzer.report.suite_page import TASK_FILES

            with Drawers(len(TASK_FILES) * len(suite.tasks)) as drawers:
                from analyzer.report.suite_pictures import draw_pictures  # takes half a second, with Altair

                return draw_pictures(suite, group.paths.plots, drawers)
        from analyzer.charts.draw import draw_all

        return draw_all(group.conn, group.settings, group.paths.plots, suite.first)

    charts: list[Path] = []
    if group.settings.analysis.charts:
        drawn = [replace(suite, tasks=[replace(task, volumes=[]) for task in suite.tasks])]
        charts = once(group.paths.run_dir, "charts", drawn, draw, anew=recompute).files
    return AnalyzeAnswer(done.recomputed, done.runs, done.partial, charts, group.paths.plots, _standing(suite))


def _report(group: OpenGroup, suite: "SuiteResults", *, partial: bool, recompute: bool) -> ReportAnswer:
    from analyzer.report.build import build_report
    from analyzer.results.memory import load_of
    from analyzer.results.results import with_telling
    from analyzer.store import derived_rows
    from analyzer.store.artifacts import once

    conn, settings, paths = group.conn, group.settings, group.paths

    def build() -> list[Path]:
        from analyzer.charts.draw import files

        shown = replace(suite, tasks=with_telling(conn, suite.tasks))  # only where there is a report to make
        if suite.is_suite:
            from analyzer.report.suite_build import build_suite_report
            from analyzer.report.suite_pictures import picture_files

            built = build_suite_report(shown, settings, paths, partial=partial)
            return [built.md, built.html, *(picture_files(suite, paths.plots) if settings.analysis.charts else [])]
        built = build_report(conn, settings, paths, partial=partial, results=shown.first)
        return [built.md, built.html, *(files(paths.plots) if settings.analysis.charts else [])]

    inputs = [suite, settings, partial, [load_of(task, settings) for task in suite.tasks]]
    rows = derived_rows.content(conn, suite.first.group, suite.first.generation, "*")["content"]
    once(paths.run_dir, "report", inputs, build, rows=rows, anew=recompute)
    return ReportAnswer(paths.report_md, paths.report_html, _standing(suite))


def _standing(suite: "SuiteResults") -> Standing:
    """What speaks against the results."""
    from analyzer.results.suite_alarms import suite_alarms

    are_short = any(task.prompts.are_short for task in suite.tasks)
    return Standing(tuple((alarm.name, alarm.says) for alarm in suite_alarms(suite)), are_short)


def _is_benched(settings: "Settings") -> bool:
    from analyzer.read.runs import benched

    with _open(settings) as group:
        return benched(group.conn, group.name)


def _refuse_bench(settings: "Settings", what: str, do: str = "Run `kvt bench report` with the same config.") -> None:
    """Raise ConfigError where the group was benched."""
    if _is_benched(settings):
        raise ConfigError(what, where=f"experiment.exp_group_id {settings.experiment.exp_group_id}", do=do)


def _bench(settings: "Settings") -> BenchAnswer:
    from analyzer.bench.bench_analysis import bench_stages

    return BenchAnswer(bench_stages(settings))


def _database(place: Path) -> Path:
    return place / DB_NAME if place.is_dir() else place


@contextmanager
def _open(settings: "Settings", *, write: bool = False) -> Iterator[OpenGroup]:
    paths = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)
    with closing(open_group(paths.db, write_derived=write)) as conn:
        yield OpenGroup(conn, settings, paths)

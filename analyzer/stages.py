"""The analyzer's stages with their files: open the database, call one stage, say what it did.

Each function returns JSON-able facts; `lines` among them is what a person reads.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvt_async.contract.errors import ConfigError, FailuresStandError, MissingPrerequisiteError
from kvt_async.contract.paths import DB_NAME, RunPaths, run_paths
from kvt_async.contract.schema import connect_for_reading

if TYPE_CHECKING:
    from analyzer.results.results import Results
    from analyzer.summarise.analyze import AnalyzeReport
    from kvt_async.contract.settings import Settings

Facts = dict[str, Any]


def score_stage(settings: "Settings", *, run_id: str | None = None, recompute: bool = False) -> Facts:
    """Score what is finished and not scored yet; with `recompute` everything, of earlier generations too."""
    from analyzer.scoring.score import score

    with _open(settings, write=True) as (conn, _):
        for generation, *_ in _earlier(conn, settings) if recompute and run_id is None else ():
            score(conn, settings.experiment.exp_group_id, generation=generation, recompute=True)
        done = score(conn, settings.experiment.exp_group_id, run_id=run_id, recompute=recompute)
    return {
        "scored": done.scored,
        "skipped": done.skipped,
        "lines": [f"scored {done.scored}, {done.skipped} were scored already"],
    }


def analyze_stage(
    settings: "Settings", *, run_id: str | None = None, partial: bool = False, recompute: bool = False
) -> Facts:
    """Derived tables and charts; with `recompute` those of earlier generations too, under their own settings."""
    from analyzer.results.results import read_results
    from analyzer.summarise.analyze import analyze

    with _open(settings, write=True) as (conn, paths):
        if recompute and run_id is None:
            _mend_earlier(conn, settings)
        done = analyze(conn, settings, run_id=run_id, partial=partial, recompute=recompute)
        results = read_results(conn, settings.experiment.exp_group_id)
        return _charts(conn, settings, paths, done, results, recompute=recompute) | _standing(results)


def report_stage(settings: "Settings", *, partial: bool = False, recompute: bool = False) -> Facts:
    """report.md and report.html from persisted results; of a bench, from its stages."""
    from analyzer.read.drift import refuse_drift
    from analyzer.results.results import read_results

    if _is_benched(settings):
        return _bench(settings)
    with _open(settings) as (conn, paths):
        facts = read_results(conn, settings.experiment.exp_group_id, volumes=True)
        refuse_drift([] if settings.analysis.allow_drift else facts.drifts)
        return _report(conn, settings, paths, facts, partial=partial, recompute=recompute) | _standing(facts)


def every_stage(
    settings: "Settings", *, run_id: str | None = None, partial: bool = False, recompute: bool = False
) -> Facts:
    """score, analyze, report, then the verdict; of a bench, what `kvt bench report` says."""
    from analyzer.report.figures_json import figures
    from analyzer.report.terminal_verdict import verdict_lines
    from analyzer.results.results import read_results
    from analyzer.summarise.analyze import analyze

    if _is_benched(settings):
        return _bench(settings)
    facts: Facts = {"score": score_stage(settings, run_id=run_id, recompute=recompute)}
    with _open(settings, write=True) as (conn, paths):
        if recompute and run_id is None:
            _mend_earlier(conn, settings)
        done = analyze(conn, settings, run_id=run_id, partial=partial, recompute=recompute)
        results = read_results(conn, settings.experiment.exp_group_id, volumes=True)  # once for all: they are many rows
        facts["analyze"] = _charts(conn, settings, paths, done, results, recompute=recompute)
        facts["report"] = _report(conn, settings, paths, results, partial=partial, recompute=recompute)
        verdict, numbers = verdict_lines(results, settings), figures(results, settings)
    lines = [line for stage in facts.values() for line in stage.pop("lines")]
    return {
        **facts, "verdict": verdict, "results": numbers, **_standing(results),
        "lines": [*lines[:-2], "", *verdict, "", *lines[-2:]],
    }  # fmt: skip


def _standing(results: "Results") -> Facts:
    """What speaks against the results, and the exit code that says so."""
    from analyzer.results.alarms import alarms

    found = alarms(results)
    code = FailuresStandError.exit_code if results.prompts.are_short else 0
    return {"alarms": [{"name": alarm.name, "says": alarm.says} for alarm in found], "exit_code": code}


def _earlier(conn: sqlite3.Connection, settings: "Settings") -> list[tuple[int, "Settings", bool]]:
    """(generation, the settings it was analysed under, partial) of a group's earlier generations."""
    from analyzer.read import runs
    from analyzer.store import derived_rows
    from kvt_async.contract.settings import Analysis

    group = settings.experiment.exp_group_id
    return [
        (
            generation,
            settings.model_copy(update={"analysis": Analysis.model_validate(record["settings"])}),
            bool(record["partial"]),
        )
        for generation, record in derived_rows.analysed_before(conn, group, runs.newest_generation(conn, group))
    ]


def _mend_earlier(conn: sqlite3.Connection, settings: "Settings") -> None:
    from analyzer.store import derived_rows
    from analyzer.summarise.analyze import analyze

    derived_rows.drop_unexplained(conn)
    for generation, own, partial in _earlier(conn, settings):
        analyze(conn, own, generation=generation, partial=partial, recompute=True)


def _charts(
    conn: sqlite3.Connection,
    settings: "Settings",
    paths: RunPaths,
    done: "AnalyzeReport",
    results: "Results",
    *,
    recompute: bool,
) -> Facts:
    from analyzer.store.artifacts import once

    def draw() -> list[Path]:
        from analyzer.charts.draw import draw_all

        return draw_all(conn, settings, paths.plots, results)

    drawn = [replace(results, volumes=[])]
    charts = once(paths.run_dir, "charts", drawn, draw, anew=recompute).files if settings.analysis.charts else []
    state = "recomputed" if done.recomputed else "nothing had changed"
    kinds = sorted({chart.name.partition(".")[2] for chart in charts})
    n = len({chart.name.partition(".")[0] for chart in charts})
    drawings = f"{n} charts ({', '.join(kinds)}) in {paths.plots}" if charts else "no charts"
    return {
        "recomputed": done.recomputed,
        "runs": done.runs,
        "partial": done.partial,
        "charts": [str(c) for c in charts],
        "lines": [f"analyzed {done.runs} runs ({state}); {drawings}"],
    }


def _report(
    conn: sqlite3.Connection,
    settings: "Settings",
    paths: RunPaths,
    results: "Results",
    *,
    partial: bool,
    recompute: bool,
) -> Facts:
    from analyzer.report.build import build_report
    from analyzer.results.memory import load_of
    from analyzer.store import derived_rows
    from analyzer.store.artifacts import once

    def build() -> list[Path]:
        from analyzer.charts.draw import files

        built = build_report(conn, settings, paths, partial=partial, results=results)
        return [built.md, built.html, *(files(paths.plots) if settings.analysis.charts else [])]

    inputs = [results, settings, partial, load_of(results, settings)]
    rows = derived_rows.content(conn, results.group, results.generation, "*")["content"]
    once(paths.run_dir, "report", inputs, build, rows=rows, anew=recompute)
    return {
        "report_md": str(paths.report_md),
        "report_html": str(paths.report_html),
        "lines": [f"report: {paths.report_html}", f"        {paths.report_md}"],
    }


def verify_stage(settings: "Settings", progress: Callable[[str], None] = lambda _: None) -> Facts:
    """Every derived row made again from the facts and compared; `exit_code` is 0, 1 (a difference) or 3 (unchecked)."""
    from analyzer.verify.findings import verified

    paths = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)
    return verified(paths.db, Path(settings.output.data_dir), progress)


def check_stage(settings: "Settings") -> Facts:
    """The config's assertions, each with its finding."""
    from analyzer.results.results import read_results, refuse_older
    from analyzer.verbs.check import check

    if not settings.check:
        raise ConfigError(
            "this config has no check: section", where="check", do="`kvt check -c sanity --print-config` shows one."
        )
    with _open(settings) as (conn, _):
        facts = read_results(conn, settings.experiment.exp_group_id)
        refuse_older(facts)
        results = check(conn, settings)
        standing = _standing(facts)
    lines = [f"ALARM {alarm['name']}: {alarm['says']}" for alarm in standing["alarms"]]
    lines += [f"{'ok  ' if r.passed else 'FAIL'} {r.name}: {r.finding}" for r in results]
    passed = all(r.passed for r in results) and not standing["exit_code"]
    return {
        "passed": passed, "alarms": standing["alarms"], "results": [r.__dict__ for r in results], "lines": lines,
    }  # fmt: skip


def show_stage(
    settings: "Settings",
    example_id: str | None,
    *,
    sample: int | None = None,
    run_id: str | None = None,
    full: bool = False,
) -> Facts:
    """One example or a seeded sample, with every answer."""
    from analyzer.verbs.show import show

    if (example_id is None) == (sample is None):
        raise ConfigError("say which example", where="kvt show", do="Pass an EXAMPLE_ID, or --sample N.")
    with _open(settings) as (conn, _):
        return show(conn, settings, example_id, sample=sample, run_id=run_id, full=full)


def compare_stage(group_a: Path, group_b: Path, *, allow_drift: bool = False) -> Facts:
    """Two groups side by side."""
    from analyzer.verbs.compare import compare

    dbs = [g / DB_NAME if g.is_dir() else g for g in (group_a, group_b)]
    a, b = connect_for_reading(dbs[0]), connect_for_reading(dbs[1])
    try:
        return compare(a, b, allow_drift=allow_drift)
    finally:
        a.close()
        b.close()


def plan_stage(settings: "Settings", *, flip_rate: float | None = None, measured: Path | None = None) -> Facts:
    """What this config can prove, before anything is sent.

    The share of flips is the one given; or measured by the A/A control of the group in `measured` (a run directory or
    database), or of the config's own group; or assumed where nothing was measured.
    """
    from analyzer.read import runs
    from analyzer.store import derived_rows
    from analyzer.verbs.power import ASSUMED_FLIPS, Flips, plan

    group = settings.experiment.exp_group_id
    own = run_paths(settings.output.runs_dir, group, settings.db.path).db
    flips, version, layout = Flips(ASSUMED_FLIPS), 0, None
    if own.is_file():
        with _open(settings) as (conn, _):
            count, n = derived_rows.control_flips(conn, group)
            flips = Flips.measured(count, n, group) if n else flips
            version = runs.analysed_version(conn, group)
            layout = runs.layout(conn)
    if measured is not None:
        conn = connect_for_reading(measured / DB_NAME if measured.is_dir() else measured)
        try:
            group = runs.newest_group(conn)[0]
            count, n = derived_rows.control_flips(conn, group)
        finally:
            conn.close()
        if not n:
            raise MissingPrerequisiteError(
                f"{group} has no analysed A/A control",
                where=str(measured),
                do="Run it with kv.control_repeats: 1 and `kvt all`, or give --flip-rate.",
            )
        flips = Flips.measured(count, n, group)
    return plan(settings, flips=flips if flip_rate is None else Flips(flip_rate), version=version, layout=layout)


def export_stage(settings: "Settings", out: Path, *, exact: bool = False) -> Facts:
    """One row per outcome to Parquet or CSV."""
    from analyzer.verbs.export import export

    with _open(settings) as (conn, _):
        done = export(conn, settings, out, exact=exact)
    lines = [f"{done.rows} rows in {out}"]
    if done.guarded:
        lines.append(
            f"{done.guarded} texts that a spreadsheet would take for formulas begin with ' there; --exact and .parquet "
            "keep them as they are"
        )
    return {"rows": done.rows, "guarded": done.guarded, "file": str(out), "lines": lines}


def _is_benched(settings: "Settings") -> bool:
    from analyzer.read.runs import benched

    with _open(settings) as (conn, _):
        return benched(conn, settings.experiment.exp_group_id)


def _bench(settings: "Settings") -> Facts:
    from analyzer.bench.bench_analysis import bench_stages

    return bench_stages(settings)


@contextmanager
def _open(settings: "Settings", *, write: bool = False) -> Iterator[tuple[sqlite3.Connection, RunPaths]]:
    paths = run_paths(settings.output.runs_dir, settings.experiment.exp_group_id, settings.db.path)
    conn = connect_for_reading(paths.db, write_derived=write)
    try:
        yield conn, paths
    finally:
        conn.close()

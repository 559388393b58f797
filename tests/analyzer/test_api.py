"""`analyzer.open_group`: what a notebook gets of a run's folder, as typed as a type checker sees it, and cheap to
import."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import polars as pl
import pytest

import analyzer
from analyzer import GroupResults, open_bench, open_group, open_suite, stages
from analyzer.read.run_counts import RunCounts
from analyzer.read.runs import Run
from analyzer.store.suite_tables import SuiteStat, SuiteVerdict
from analyzer.store.tables import (
    BinStat,
    Comparison,
    Drop,
    Evidence,
    OutcomeChange,
    Verdict,
)
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from kvt_async.contract.load import load_settings
from tests.analyzer.bench_rows import Load, steady, write_bench
from tests.analyzer.synthetic import make_db

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "API.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a group that was analysed."""
    place = tmp_path_factory.mktemp("api") / "runs" / "demo"
    make_db(place / "kv_transition.sqlite", n_bins=2, n_per_bin=12, exp_group_id="demo", series=("a", "b"))
    given = ("experiment.exp_group_id=demo", f"output.runs_dir={place.parent}", "analysis.resamples=200")
    settings = load_settings(None, (*given, "analysis.charts=false"), environ={})
    stages.score_stage(settings)
    stages.analyze_stage(settings)
    return place


@pytest.fixture
def beside(folder: Path) -> Iterator[Path]:
    """The working directory of somebody whose runs/ holds that folder, and a bench's."""
    if not (bench := folder.with_name("bench")).is_dir():
        bench.mkdir()
        write_bench(bench / "kv_transition.sqlite", [Load(steady(4))]).close()
    before = Path.cwd()
    os.chdir(folder.parents[1])
    yield folder
    os.chdir(before)


def test_a_folder_gives_the_rows_that_its_analysis_stored(folder: Path) -> None:
    results = open_group(folder)
    assert results.group == "demo"
    assert {row.series for row in results.verdicts} == {"a", "b"}
    assert len(results.drops) == 3 * (2 * 2 + 1), "in two bins and all: two budgets of two series, and the A/A control"
    assert results.partial is False


def test_the_database_itself_is_as_good_as_its_folder(folder: Path) -> None:
    assert open_group(str(folder / "kv_transition.sqlite"), "demo") == open_group(folder)


def test_without_an_analysis_there_are_runs_and_no_verdicts(tmp_path: Path) -> None:
    results = open_group(make_db(tmp_path / "kv_transition.sqlite", n_bins=1, n_per_bin=2))
    assert results.runs
    assert not results.verdicts


def test_nothing_is_written(folder: Path) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}  # SQLite's own

    before = contents()
    open_group(folder, volumes=True)
    assert contents() == before


def test_a_place_without_a_run_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        open_group(tmp_path / "nowhere")
    with pytest.raises(MissingPrerequisiteError, match="holds no run"):
        open_group(tmp_path)
    with pytest.raises(MissingPrerequisiteError, match="no experiment group 'other'"):
        open_group(folder, "other")


def test_a_bench_has_no_verdicts_to_open(tmp_path: Path) -> None:
    db = tmp_path / "kv_transition.sqlite"
    write_bench(db, [Load(steady(4))]).close()
    with pytest.raises(ConfigError, match="was benched"):
        open_group(db)


def test_what_a_type_checker_knows_of_it(folder: Path) -> None:
    """mypy reads this as strictly as the product; at run time each of these is the value itself."""
    results = assert_type(open_group(folder), GroupResults)
    run = results.runs[0]
    assert_type(results.runs, list[Run])
    assert_type(results.full, Run | None)
    assert_type(results.progress, dict[str, RunCounts])
    assert_type(results.stat(run), BinStat | None)
    assert_type(results.drop(run), Drop | None)
    assert_type(results.verdict("a"), Verdict | None)
    assert_type(results.paired("a"), list[tuple[float, Drop]])
    assert_type(results.comparisons, list[Comparison])
    assert_type(results.evidence, dict[str, Evidence])
    assert_type(results.verdicts[0].safe_budget, float | None)


def test_outcomes_are_a_row_for_every_finished_request_and_make_the_stored_accuracy(folder: Path) -> None:
    results = open_group(folder)
    outcomes, answers = results.outcomes(), results.answers()
    assert (
        outcomes.height
        == answers.height
        == sum(count.responses + count.failures for count in results.progress.values())
    )
    curves = results.curves().filter(pl.col("bin_idx") == 0)
    means = (
        outcomes.filter(pl.col("bin_idx") == 0)
        .group_by("series", "kv_budget", "repeat_idx")
        .agg(pl.col("score").mean())
    )
    both = curves.join(means, on=["series", "kv_budget", "repeat_idx"])
    assert both["acc_mean"].to_list() == pytest.approx(both["score"].to_list())
    assert set(outcomes["state"]) == {"answered"}
    assert {"example_id", "turn_idx", "kept_tokens", "failure_label", "ttft_s"} <= set(outcomes.columns)
    assert answers.schema["golds"] == pl.List(pl.String)


def test_frames_hold_the_stored_rows(folder: Path) -> None:
    results = open_group(folder)
    assert results.drops_frame()["drop_mean"].sum() == pytest.approx(sum(drop.drop_mean or 0 for drop in results.drops))
    assert set(results.verdicts_frame()["verdict_text"]) == {verdict.verdict_text for verdict in results.verdicts}
    assert results.comparisons_frame().height == len(results.comparisons)


def test_a_figure_is_a_chart_of_the_report(folder: Path) -> None:
    results = open_group(folder)
    assert results.figure("accuracy", title=False).to_dict()["datasets"]
    with pytest.raises(ConfigError, match="no figure 'acc'"):
        results.figure("acc")


def test_rescoring_by_the_own_metric_finds_the_stored_scores_and_by_another_its_own(folder: Path) -> None:
    results = open_group(folder)
    own = results.rescore(results.metric)
    assert own["score"].to_list() == pytest.approx(own["stored_score"].to_list())
    assert results.rescore(lambda answer, golds, meta: 0.25)["score"].unique().to_list() == [0.25]
    with pytest.raises(ValueError, match="not from 0 to 1"):
        results.rescore(lambda answer, golds, meta: 2)
    with pytest.raises(ConfigError, match="rouge_of_mine"):
        results.rescore("rouge_of_mine")
    assert results.outcomes()["score"].to_list() == own["stored_score"].to_list(), "nothing was stored"


def test_a_group_of_one_task_is_a_suite_of_one_and_a_sweep_no_bench(folder: Path) -> None:
    suite = open_suite(folder)
    assert suite.outcomes().equals(open_group(folder).outcomes())
    assert suite.task(suite.tasks[0].task).verdicts == open_group(folder).verdicts
    with pytest.raises(ConfigError, match="was swept"):
        open_bench(folder)


@pytest.mark.usefixtures("beside")
def test_the_examples_of_the_page_run_as_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 6
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "API.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "drop +" in printed
    assert "kv_budget" in printed
    assert "ttft_p99_s_low" in printed


def test_the_page_names_every_class_of_rows() -> None:
    for row in (Run, RunCounts, BinStat, Drop, Verdict, Comparison, Evidence, OutcomeChange, SuiteStat, SuiteVerdict):
        assert f"`{row.__name__}`" in PAGE


def test_importing_the_package_loads_no_library_until_the_door_is_opened() -> None:
    loaded = "print(*{'polars', 'pydantic', 'analyzer.api'} & set(sys.modules))"
    code = f"import sys, analyzer; {loaded}; analyzer.open_group; {loaded}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    before, after = done.stdout.splitlines()
    assert not before
    assert "analyzer.api" in after
    with pytest.raises(AttributeError, match="no attribute 'open_groups'"):
        getattr(analyzer, "open_groups")  # noqa: B009 - mypy knows that there is none

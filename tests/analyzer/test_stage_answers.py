"""What every command of the analyzer answers with --json: its keys, in their order, and its exit code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from analyzer import stages
from kvt_async.cli import app
from kvt_async.contract.errors import ConfigError
from kvt_async.contract.load import load_settings
from kvt_async.contract.paths import DB_NAME
from tests.analyzer.bench_rows import GROUP as BENCHED
from tests.analyzer.bench_rows import Load, steady, write_bench
from tests.analyzer.synthetic import make_db

CHECK = "check=[{name: answers, kind: min_accuracy, value: 0.1}, {name: all, kind: min_accuracy, value: 1.0}]"
STANDING = ["alarms", "exit_code"]
KEYS = {
    "score": ["scored", "skipped", "rescored"],
    "analyze": ["recomputed", "runs", "partial", "charts", *STANDING],
    "report": ["report_md", "report_html", *STANDING],
    "all": ["score", "analyze", "report", "verdict", "results", *STANDING],
    "verify": ["database", "exit_code", "n_differences", "facts", "groups", "files"],
    "check": ["passed", "strict", "alarms", "rescored", "results"],
    "show": ["examples"],
    "export": ["rows", "guarded", "file"],
    "compare": ["a", "b", "differs", "levels", "only_in", "series_only", "drift", "read_short"],
}
PLAN = [
    "n",
    "n_per_bin",
    "contexts",
    "budgets",
    "flip_rate",
    "flip_rate_source",
    "level",
    "margin",
    "pairs_without_loss",
    "chance_safe",
    "chance_all_safe",
    "chance_safe_in_a_bin",
    "smallest_detectable_drop",
    "smallest_detectable_drop_in_a_bin",
    "n_needed",
    "n_needed_for_all",
]
FEW = ("--override", "analysis.resamples=100", "--override", "analysis.charts=false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a group that was analysed and reported."""
    place = tmp_path_factory.mktemp("answers")
    make_db(place / "kv_transition.sqlite", n_bins=2, n_per_bin=12, hashes=True)
    assert answered("all", str(place), *FEW).exit_code == 0
    return place


def answered(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def as_json(*words: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(answered(*words, "--json").stdout)
    return answer


@pytest.mark.parametrize("command", ["score", "analyze", "report", "all"])
def test_a_stage_answers_with_what_it_did(folder: Path, command: str) -> None:
    assert list(as_json(command, str(folder), *FEW)) == KEYS[command]


def test_what_stands_within_the_answer_of_all_is_said_once(folder: Path) -> None:
    answer = as_json("all", str(folder), *FEW)
    for stage in ("score", "analyze", "report"):
        assert list(answer[stage]) == [key for key in KEYS[stage] if key not in STANDING]


def test_verify_answers_with_each_part_that_it_compared(folder: Path) -> None:
    answer = as_json("verify", str(folder))
    assert list(answer) == KEYS["verify"]
    parts = ["checked", "n_differences", "differences", "not_checkable", "notes"]
    assert list(answer["facts"]) == list(answer["files"]) == parts
    assert list(answer["groups"][0]) == ["exp_group_id", "generation", "part", *parts]


def test_a_failed_check_ends_with_1_and_says_which_assertion_it_was(folder: Path) -> None:
    done = answered("check", str(folder), "--override", CHECK, "--json")
    answer = json.loads(done.stdout)
    assert done.exit_code == 1
    assert list(answer) == KEYS["check"]
    assert [(result["name"], result["passed"]) for result in answer["results"]] == [("answers", True), ("all", False)]


def test_the_other_verbs_answer_with_what_they_found(folder: Path, tmp_path: Path) -> None:
    assert list(as_json("show", str(folder), "--sample", "1")) == KEYS["show"]
    assert list(as_json("export", str(folder), str(tmp_path / "rows.csv"))) == KEYS["export"]
    assert list(as_json("compare", str(folder), str(folder))) == KEYS["compare"]


def test_what_asks_for_budgets_sends_a_bench_to_its_own_command(folder: Path, tmp_path: Path) -> None:
    db, out = tmp_path / BENCHED / DB_NAME, tmp_path / "rows.csv"
    db.parent.mkdir()
    write_bench(db, [Load(steady(4))]).close()
    bench = load_settings(None, [f"experiment.exp_group_id={BENCHED}", f"output.runs_dir={tmp_path}"], environ={})
    refused: dict[str, Callable[[], object]] = {
        "kvt bench report": lambda: stages.score_stage(bench),
        "`kvt bench report` with": lambda: stages.analyze_stage(bench),
        "kvt bench export": lambda: stages.export_stage(bench, out),
        "with `kvt bench report`": lambda: stages.compare_stage([db, folder]),
        "its figures with `kvt bench report`": lambda: stages.show_stage(bench, None, sample=1),
    }
    for way_on, ask in refused.items():
        with pytest.raises(ConfigError) as refusal:
            ask()
        assert way_on in refusal.value.do
    assert not out.exists()


def test_a_plan_tells_of_the_interval_of_flips_only_where_they_were_measured(folder: Path, tmp_path: Path) -> None:
    small = ("--override", "binning.n_bins=2", "--override", "binning.n_per_bin=12")
    measured = ["flip_rate_low", "flip_rate_high", "n_needed_at_high"]
    assert list(as_json("plan", str(folder), *small)) == [*PLAN, *measured]
    fresh = make_db(tmp_path / "kv_transition.sqlite", n_bins=1, n_per_bin=2)
    assert list(as_json("plan", str(fresh), *small)) == PLAN

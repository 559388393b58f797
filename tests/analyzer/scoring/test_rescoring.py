"""Stored answers scored by another metric: no fact changes, every page says so, the way back gives the same numbers."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from analyzer.cli import app
from analyzer.results.results import Results, read_results
from analyzer.results.suite_results import read_suite
from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from kvt_async.contract.errors import KvtError, MissingPrerequisiteError
from kvt_async.contract.schema import connect_for_reading, connect_for_writing
from kvt_async.contract.schema_tables import FACT_TABLES
from tests.analyzer.conftest import Experiment
from tests.analyzer.synthetic import make_db

FEW = ("--override", "analysis.resamples=100", "--override", "analysis.charts=false")
CHECK = "check=[{name: answers, kind: min_accuracy, value: 0.1}]"
SAYS = "Scored by squad_em; the task's own metric is f1."
LATE = "The metric squad_em was chosen after the data; the plan said f1."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A group whose answers are graded by its own metric, f1, so that an exact rule gives other scores."""
    make_db(tmp_path / "kv_transition.sqlite", n_bins=2, n_per_bin=8, graded=True, hashes=True)
    planned(tmp_path, "analysis: {margin: 0.05, alpha: 0.05}")
    return tmp_path


def planned(folder: Path, config: str) -> None:
    """The first session had this config."""
    with closing(connect_for_writing(folder / "kv_transition.sqlite")) as conn:
        (guard,) = conn.execute("SELECT sql FROM sqlite_master WHERE name = 'sessions_no_update'").fetchone()
        conn.execute("DROP TRIGGER sessions_no_update")
        sha256 = hashlib.sha256(config.encode()).hexdigest()
        conn.execute("UPDATE sessions SET config_yaml = ?, config_sha256 = ?", (config, sha256))
        conn.execute(guard)


def kvt(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def done(*words: str) -> dict[str, Any]:
    result = kvt(*words, "--json")
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def refused(*words: str) -> KvtError:
    error = kvt(*words).exception
    assert isinstance(error, KvtError), error
    return error


def rows(folder: Path, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
    with closing(connect_for_reading(folder / "kv_transition.sqlite")) as conn:
        return {table: conn.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in tables}


def results(folder: Path) -> Results:
    with closing(connect_for_reading(folder / "kv_transition.sqlite")) as conn:
        return read_results(conn, "synthetic")


def test_another_metric_scores_what_is_stored_and_the_own_one_gives_the_numbers_of_before(folder: Path) -> None:
    facts, own = rows(folder, *FACT_TABLES), done("all", str(folder), *FEW)
    derived = rows(folder, "scores", "bin_stats", "budget_stats", "transition_summary")
    other = done("all", str(folder), *FEW, "--metric", "squad_em")
    assert other["score"]["scored"] == own["score"]["scored"]
    assert {row[4] for row in rows(folder, "scores")["scores"]} == {"squad_em"}
    assert results(folder).stats != {}
    assert rows(folder, "bin_stats")["bin_stats"] != derived["bin_stats"]
    back = done("all", str(folder), *FEW)
    assert back["results"] == own["results"]
    assert rows(folder, *derived) == derived
    assert rows(folder, *FACT_TABLES) == facts


def test_the_same_metric_again_scores_nothing_anew(folder: Path) -> None:
    done("all", str(folder), *FEW, "--metric", "squad_em")
    again = done("all", str(folder), *FEW, "--metric", "squad_em")
    assert again["score"]["scored"] == 0
    assert not again["analyze"]["recomputed"]


def test_headline_report_provenance_and_json_name_both_metrics_and_that_it_was_not_the_plan(folder: Path) -> None:
    answer = done("all", str(folder), *FEW, "--metric", "squad_em")
    assert answer["score"]["rescored"] == [SAYS]
    assert (answer["results"]["metric"], answer["results"]["own_metric"]) == ("squad_em", "f1")
    assert f"{SAYS} {LATE}" in answer["results"]["headline"]
    page = (folder / "report.md").read_text()
    assert f"{SAYS} {LATE}" in " ".join(page.split())
    assert "squad_em; the task's own metric is f1" in page.partition("metric of score")[2].splitlines()[0]
    assert SAYS in kvt("score", str(folder), "--metric", "squad_em").stdout
    assert SAYS in kvt("check", str(folder), "--override", CHECK).stdout


def test_the_own_metric_by_its_name_is_no_other_one(folder: Path) -> None:
    own = done("all", str(folder), *FEW)
    named = done("all", str(folder), *FEW, "--metric", "f1")
    assert named["results"] == own["results"]
    assert named["score"]["scored"] == 0


def test_a_metric_that_the_first_session_named_is_the_plan(folder: Path) -> None:
    planned(folder, "analysis: {margin: 0.05, alpha: 0.05, metric: squad_em}")
    as_planned = done("all", str(folder), *FEW)["results"]  # of the folder's own config
    assert SAYS in as_planned["headline"]
    assert LATE not in as_planned["headline"]
    own = done("all", str(folder), *FEW, "--override", "analysis.metric=null")["results"]["headline"]
    assert "The metric f1 was chosen after the data; the plan said squad_em." in own
    assert SAYS not in own


def test_every_row_of_a_rescored_group_can_be_checked(folder: Path) -> None:
    done("all", str(folder), *FEW, "--metric", "squad_em")
    answer = done("verify", str(folder))
    assert answer["n_differences"] == 0
    assert SAYS in json.dumps(answer)
    with closing(sqlite3.connect(folder / "kv_transition.sqlite")) as conn:
        conn.execute("UPDATE scores SET metric = 'f1'")
        conn.commit()
    assert kvt("verify", str(folder)).exit_code == 1


def test_an_analysis_never_stands_on_scores_of_another_metric(folder: Path) -> None:
    done("all", str(folder), *FEW)
    done("score", str(folder), "--metric", "squad_em")
    refusal = refused("analyze", str(folder), *FEW)
    assert (refusal.exit_code, "--metric squad_em" in refusal.do) == (3, True)
    for command in ("report", "check"):
        refusal = refused(command, str(folder), *FEW, "--override", CHECK)
        assert "the stored analysis is of the metric f1; answers were scored by squad_em since" in str(refusal)


def test_one_run_of_another_metric_stops_the_report_of_all(folder: Path) -> None:
    done("all", str(folder), *FEW)
    last = results(folder).runs[-1].run_id
    done("score", str(folder), "--metric", "squad_em", "--run-id", last)
    assert "answers were scored by squad_em since" in str(refused("report", str(folder), *FEW))
    assert f"{last}: scored by squad_em" in refused("analyze", str(folder), *FEW).details
    done("all", str(folder), *FEW)


def test_two_groups_of_different_metrics_are_not_compared(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    make_db(other / "kv_transition.sqlite", n_bins=2, n_per_bin=8, graded=True, hashes=True)
    done("all", str(folder), *FEW)
    done("all", str(other), *FEW, "--metric", "squad_em")
    assert "dataset.metric: 'f1' and 'squad_em'" in str(refused("compare", str(folder), str(other)))
    done("all", str(folder), *FEW, "--metric", "squad_em")
    assert done("compare", str(folder), str(other))["differs"] == {}


BOMB = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30))])


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("plugins: [{path: mine.py, sha256: abc}]", "it was defined by mine.py, SHA-256 abc"),
        (f"{BOMB}\nplugins: [{{path: *a29, sha256: *a29}}]", "it was defined by , SHA-256"),
        ("plugins: " + "[" * 3000, "no metric is called 'mine'"),
        ("plugins: 3", "no metric is called 'mine'"),
    ],
)
def test_a_database_from_anybody_says_no_more_than_which_files_defined_its_metric(
    tmp_path: Path, config: str, says: str
) -> None:
    make_db(tmp_path / "kv_transition.sqlite", n_bins=1, n_per_bin=2, metric="mine")
    planned(tmp_path, config)
    conn = connect_for_reading(tmp_path / "kv_transition.sqlite", write_derived=True)
    with closing(conn), pytest.raises(KvtError) as caught:
        score(conn, "synthetic")
    assert says in str(caught.value)


def test_every_task_of_a_group_is_rescored_and_the_plan_of_all_is_named(experiment: Experiment) -> None:
    tasks = ({"task": "a"}, {"task": "b", "metric": "qa_f1"}, {"task": "c", "metric": "squad_em"})
    conn, settings = experiment(tasks=tasks, n_bins=1, n_per_bin=6, resamples=100, graded=True)
    own = settings.model_copy(update={"analysis": settings.analysis.model_copy(update={"metric": "squad_em"})})
    score(conn, "synthetic", metric="squad_em")
    with pytest.raises(MissingPrerequisiteError, match="these scores are of another metric than f1"):
        analyze(conn, settings)
    analyze(conn, own)
    suite = read_suite(conn, "synthetic")
    assert suite.rescored == "Scored by squad_em; the tasks' own metrics are f1 (a) and qa_f1 (b)."
    assert [task.metric for task in suite.tasks] == ["squad_em"] * 3
    score(conn, "synthetic")
    analyze(conn, settings)
    assert read_suite(conn, "synthetic").rescored == ""


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("classification", "16 of 16 examples have no meta.all_classes"),
        ("tool_call", "16 of 16 examples have no meta.tools"),
        ("choice_letter", "finds no answer of its form in the golds of 16 of 16 examples"),
        ("squad_fl", "Did you mean squad_f1?"),
    ],
)
def test_a_metric_that_needs_what_the_examples_lack_is_refused_before_a_score_goes(
    folder: Path, metric: str, says: str
) -> None:
    done("all", str(folder), *FEW)
    before = rows(folder, "scores")
    refusal = refused("all", str(folder), *FEW, "--metric", metric)
    assert (refusal.exit_code, refusal.where) == (2, "analysis.metric")
    assert says in str(refusal)
    assert rows(folder, "scores") == before

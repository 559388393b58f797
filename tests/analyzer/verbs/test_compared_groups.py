"""Groups of known accuracy in one table: which differences are marked, what differs, and what each group may do."""

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from analyzer.verbs.compare import CompareAnswer
from analyzer.verbs.compare_page import write_page
from analyzer.verbs.compared_groups import ComparedRow, GroupsAnswer, SafeRow, compare_groups
from kvt_async.contract.schema import connect_for_reading
from tests.analyzer.conftest import Experiment
from tests.analyzer.synthetic import make_db

RIGHT = {"first": 0.5, "equal": 0.5, "worse": 0.05, "better": 0.98}


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> GroupsAnswer:
    folder = tmp_path_factory.mktemp("groups")
    with ExitStack() as opened:
        conns = []
        for name, right in RIGHT.items():
            db = make_db(folder / f"{name}.sqlite", exp_group_id=name, n_bins=2, n_per_bin=40, p_correct=right)
            conn = opened.enter_context(closing(connect_for_reading(db, write_derived=True)))
            score(conn, name)
            conns.append(conn)
        compared = compare_groups([Path(name) for name in RIGHT], conns)
    assert isinstance(compared, GroupsAnswer)
    return compared


def full_cache(answer: GroupsAnswer) -> ComparedRow:
    return next(row for row in answer.rows if row.series == "full")


def test_a_difference_is_the_group_minus_the_first_one(answer: GroupsAnswer) -> None:
    row = full_cache(answer)
    assert answer.groups == list(RIGHT)
    assert row.diff[0] is None
    for accuracy, diff in list(zip(row.accuracy, row.diff, strict=True))[1:]:
        assert accuracy is not None
        assert row.accuracy[0] is not None
        assert diff == pytest.approx(accuracy - row.accuracy[0])
    assert row.diff[1] == 0.0
    assert [diff is not None and diff < -0.2 for diff in row.diff[2:]] == [True, False]


def test_marks_stand_at_differences_that_are_proven_and_nowhere_else(answer: GroupsAnswer) -> None:
    assert {tuple(row.proven) for row in answer.rows} == {(False, False, True, True)}
    assert all(cells[-1].endswith("*") and not cells[-3].endswith("*") for cells in answer.table.rows)


SERIES = "snapkv/aware"


def keeps(*, down_to: float) -> Any:
    """Nine of ten right down to a budget, and below it almost none."""
    return lambda series, budget, bin_idx: 0.9 if budget >= down_to else 0.1


def together(experiment: Experiment, *groups: dict[str, Any]) -> GroupsAnswer:
    """Groups `g0`, `g1`, ... of these parameters, scored, and all but the last analysed."""
    conns = []
    for at, asked in enumerate(groups):
        name = f"g{at}"
        conn, settings = experiment(**{"n_bins": 2, "n_per_bin": 40, "resamples": 100, "exp_group_id": name} | asked)
        score(conn, name)
        if at < len(groups) - 1:
            analyze(conn, settings)
        conns.append(conn)
    answer = compare_groups([Path(f"g{at}") for at in range(len(groups))], conns)
    assert isinstance(answer, GroupsAnswer)
    return answer


def test_what_each_group_may_do_is_its_safe_budget_or_none_or_unknown(experiment: Experiment) -> None:
    answer = together(
        experiment, {"p_correct": keeps(down_to=0.5)}, {"p_correct": keeps(down_to=1.0)}, {"series": ("random",)}
    )
    assert answer.safe == [
        SafeRow(SERIES, [0.5, None, None], [True, True, False]),
        SafeRow("random", [None] * 3, [False] * 3),
    ]
    assert answer.summary.rows == (
        ("Safe budget", SERIES, "", "0.5", "none proven", "-"), ("Safe budget", "random", "", "-", "-", "-"),
    )  # fmt: skip
    assert any(line.split() == ["Safe", "budget", SERIES, "0.5", "none", "proven", "-"] for line in answer.lines)


def test_series_and_answers_that_the_first_group_lacks_are_named(experiment: Experiment) -> None:
    answer = together(experiment, {}, {"series": ("random",)}, {"samples": 3})
    assert [line for line in answer.remarks if "dataset_id" not in line] == [
        f"g1: series only in g0: {SERIES}", "g1: series only in g1: random", "g2: decoding.samples: 3, in g0 1",
    ]  # fmt: skip


def test_of_several_tasks_the_safe_budget_is_that_of_all_together(experiment: Experiment) -> None:
    early = [{"task": "niah", "p_correct": keeps(down_to=0.5)}, {"task": "qa", "p_correct": keeps(down_to=0.2)}]
    late = [task | {"p_correct": keeps(down_to=0.2)} for task in early]
    answer = together(experiment, {"tasks": early}, {"tasks": late}, {"tasks": late})
    assert answer.safe == [SafeRow(SERIES, [0.5, 0.2, None], [True, True, False])]


def test_the_mean_is_over_the_tasks_that_every_group_has(experiment: Experiment) -> None:
    curves = {"niah": keeps(down_to=0.5), "qa": keeps(down_to=0.2), "vt": 0.01}
    tasks = [{"task": name, "p_correct": curve} for name, curve in curves.items()]
    answer = together(experiment, {"tasks": tasks[:2]}, {"tasks": tasks}, {"tasks": tasks, "budgets": (1.0, 0.5)})
    assert answer.mean_tasks == ["niah", "qa"]
    of_level = {(row.series, row.kv_budget): row.accuracy for row in answer.means}
    assert list(of_level) == [("full", 1.0), (SERIES, 0.5), (SERIES, 0.2)]
    assert of_level[SERIES, 0.2] == [pytest.approx(0.5, abs=0.1)] * 2 + [None]
    at_half: list[Any] = [row.accuracy for row in answer.rows if row.kv_budget == 0.5 and row.task in ("niah", "qa")]
    assert of_level[SERIES, 0.5] == [pytest.approx((niah + qa) / 2) for niah, qa in zip(*at_half, strict=True)]
    assert "of the accuracies of niah and qa" in answer.summary_note


def test_two_groups_of_one_name_are_told_apart_by_their_folders(experiment: Experiment) -> None:
    conns = []
    for budgets in ((1.0, 0.5), (1.0, 0.2)):
        conn, _ = experiment(n_per_bin=4, budgets=budgets)
        score(conn, "synthetic")
        conns.append(conn)
    answer = compare_groups([Path("x"), Path("y")], conns)
    assert isinstance(answer, CompareAnswer)
    assert answer.only_in == {"synthetic (x)": [f"{SERIES} 0.5"], "synthetic (y)": [f"{SERIES} 0.2"]}


def test_one_task_has_no_mean(answer: GroupsAnswer) -> None:
    assert answer.means == []


@pytest.mark.parametrize("suffix", ["html", "md", "csv"])
def test_a_page_has_what_each_group_may_do_and_csv_the_table_alone(
    answer: GroupsAnswer, tmp_path: Path, suffix: str
) -> None:
    write_page(answer, tmp_path / f"page.{suffix}")
    text = (tmp_path / f"page.{suffix}").read_text()
    assert ("What each group may do" in text, "Safe budget" in text) == ((suffix != "csv",) * 2)

"""Groups of known accuracy in one table: which differences are marked, and on which side."""

from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from analyzer.scoring.score import score
from analyzer.verbs.compared_groups import ComparedRow, GroupsAnswer, compare_groups
from kvt_async.contract.schema import connect_for_reading
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

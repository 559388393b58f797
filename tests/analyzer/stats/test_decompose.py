"""Shapley shares of a drop: known answers, and that they always add up."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.stats.decompose import LABELS, Outcomes, decompose

WRONG = LABELS.index("WRONG_ANSWER")
TIMEOUT = LABELS.index("TIMEOUT")
TRUNCATED = LABELS.index("TRUNCATED")


def outcomes(scores: Sequence[float], failed: Sequence[int], cut: Sequence[int] = ()) -> Outcomes:
    fails = np.array(failed, dtype=bool)
    cuts = (np.array(cut, dtype=bool) if len(cut) else np.zeros(len(fails), dtype=bool)) & ~fails
    label = np.where(fails, TIMEOUT, np.where(cuts, TRUNCATED, WRONG))
    return Outcomes(np.where(fails, 0.0, np.array(scores, dtype=float)), fails, label, cuts)


def even(n: int) -> np.ndarray[Any, Any]:
    return np.full(n, 1 / n)


def test_failures_of_answers_that_would_have_been_right_are_all_failures() -> None:
    full = outcomes([1, 1, 1, 1], [0, 0, 0, 0])
    shares = decompose(full, outcomes([1, 1, 0, 0], [0, 0, 1, 1]), even(4))
    assert (shares.failures, shares.answers) == pytest.approx((0.5, 0.0))
    assert shares.by_label == {"TIMEOUT": pytest.approx(0.5)}


def test_wrong_answers_alone_are_all_answers() -> None:
    full = outcomes([1, 1], [0, 0])
    shares = decompose(full, outcomes([1, 0], [0, 0]), even(2))
    assert (shares.failures, shares.answers) == pytest.approx((0.0, 0.5))
    assert shares.by_label == {"WRONG_ANSWER": pytest.approx(0.5)}


def test_both_factors_share_their_joint_effect_equally() -> None:
    full = outcomes([1, 1, 1, 1], [0, 0, 0, 0])
    shares = decompose(
        full, outcomes([1, 0, 0, 0], [0, 0, 1, 1]), even(4)
    )  # 0.75 lost: half fail, half of the rest wrong
    assert (shares.failures, shares.answers) == pytest.approx((0.5 * 0.75, 0.5 * 0.75))


def test_when_everything_fails_nothing_is_put_on_answers() -> None:
    shares = decompose(outcomes([1, 0], [0, 0]), outcomes([0, 0], [1, 1]), even(2))
    assert (shares.failures, shares.answers) == pytest.approx((0.5, 0.0))


def test_answers_cut_off_that_would_have_been_right_are_all_cut_off() -> None:
    full = outcomes([1, 1, 0, 0], [0, 0, 0, 0])
    shares = decompose(full, outcomes([1, 0, 0, 0], [0, 0, 0, 0], cut=[0, 1, 0, 1]), even(4))
    assert (shares.failures, shares.cut_off, shares.wrong) == pytest.approx((0.0, 0.25, 0.0))
    assert shares.by_label == {"CUT_OFF": pytest.approx(0.25)}, "its label does not stand beside it"


def test_what_a_cut_answer_is_still_worth_is_no_loss() -> None:
    """A summary that is cut keeps part of its score."""
    full = outcomes([0.8, 0.8], [0, 0])
    shares = decompose(full, outcomes([0.8, 0.6], [0, 0], cut=[0, 1]), even(2))
    assert (shares.cut_off, shares.wrong) == pytest.approx((0.1, 0.0))


def test_being_cut_off_and_being_wrong_share_their_joint_effect_equally() -> None:
    full = outcomes([1, 1, 1, 1], [0, 0, 0, 0])
    shares = decompose(full, outcomes([1, 0, 0, 0], [0, 0, 0, 0], cut=[0, 0, 1, 1]), even(4))
    assert (shares.cut_off, shares.wrong) == pytest.approx((0.375, 0.375))


def test_when_every_answer_is_cut_off_nothing_is_put_on_wrong_answers() -> None:
    shares = decompose(outcomes([1, 0], [0, 0]), outcomes([0, 0], [0, 0], cut=[1, 1]), even(2))
    assert (shares.failures, shares.cut_off, shares.wrong) == pytest.approx((0.0, 0.5, 0.0))


RUN = st.tuples(st.floats(0, 1), st.booleans(), st.booleans())
RUNS = st.lists(st.tuples(RUN, RUN, st.floats(0.01, 1)), min_size=1, max_size=12)


@given(RUNS)
def test_failures_cut_off_and_wrong_answers_add_up_to_the_drop_as_do_their_labels(rows: Any) -> None:
    full, here = (outcomes(*zip(*(row[i] for row in rows), strict=True)) for i in (0, 1))
    weight = np.array([row[2] for row in rows])
    weight = weight / weight.sum()
    shares = decompose(full, here, weight)
    drop = float(np.sum(weight * (full.score - here.score)))
    assert shares.failures + shares.cut_off + shares.wrong == pytest.approx(drop, abs=1e-9)
    assert sum(shares.by_label.values()) == pytest.approx(drop, abs=1e-6)


@given(RUNS)
def test_how_answers_were_wrong_moves_nothing_to_failures(rows: Any) -> None:
    full, here = (list(zip(*(row[i] for row in rows), strict=True)) for i in (0, 1))
    with_cuts = decompose(outcomes(*full), outcomes(*here), even(len(rows)))
    without = decompose(outcomes(*full[:2]), outcomes(*here[:2]), even(len(rows)))
    assert with_cuts.failures == pytest.approx(without.failures, abs=1e-9)
    assert with_cuts.answers == pytest.approx(without.wrong, abs=1e-9)

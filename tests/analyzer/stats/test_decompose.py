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


def outcomes(scores: Sequence[float], failed: Sequence[int]) -> Outcomes:
    fails = np.array(failed, dtype=bool)
    return Outcomes(np.where(fails, 0.0, np.array(scores, dtype=float)), fails, np.where(fails, TIMEOUT, WRONG))


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


RUNS = st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.floats(0, 1), st.booleans()), min_size=1, max_size=12)


@given(RUNS)
def test_shares_and_labels_add_up_to_the_drop(rows: Any) -> None:
    full = outcomes([r[0] for r in rows], [r[1] for r in rows])
    here = outcomes([r[2] for r in rows], [r[3] for r in rows])
    weight = even(len(rows))
    shares = decompose(full, here, weight)
    drop = float(np.sum(weight * (full.score - here.score)))
    assert shares.failures + shares.answers == pytest.approx(drop, abs=1e-9)
    assert sum(shares.by_label.values()) == pytest.approx(drop, abs=1e-6)

"""Several answers an example: its mean, the best of some of them, the answer given most often."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.stats.repeated_answers import NO_ANSWER, Aggregate, any_failed, best_of, majority

SCORES = st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=1, max_size=7)


@given(SCORES, st.integers(1, 7))
def test_the_best_of_some_answers_is_its_mean_over_all_ways_to_take_them(scores: list[float], size: int) -> None:
    if size > len(scores):
        return
    ways = [max(taken) for taken in combinations(scores, size)]
    assert best_of(np.array([scores]), size)[0] == pytest.approx(np.mean(ways))


def test_pass_at_k_is_the_unbiased_estimator() -> None:
    """3 of 10 right: 1 - C(7, 5) / C(10, 5) = 1 - 21/252."""
    scores = np.array([[1.0] * 3 + [0.0] * 7])
    assert Aggregate.of("pass@5").scores(scores)[0] == pytest.approx(1 - 21 / 252)
    assert Aggregate.of("pass@1").scores(scores)[0] == pytest.approx(0.3)


def test_the_mean_counts_a_failed_request_as_0() -> None:
    assert Aggregate.of("mean").scores(np.array([[1.0, 0.0, 1.0, 1.0]])).tolist() == [0.75]


def test_the_majority_is_the_answer_given_most_often_and_the_first_of_equals() -> None:
    answer = np.array([[7, 8, 8, 7, 8], [4, 5, 5, 4, 6], [1, 2, 3, 4, 5]])
    score = (answer == np.array([[8], [4], [1]])).astype(float)
    assert majority(score, answer).tolist() == [1.0, 1.0, 1.0]
    assert Aggregate.of("majority@3").scores(score, answer).tolist() == [1.0, 0.0, 1.0]


def test_failed_requests_have_no_vote_and_an_example_without_an_answer_scores_0() -> None:
    answer = np.array([[NO_ANSWER, NO_ANSWER, 3], [NO_ANSWER] * 3])
    assert majority(np.array([[0.0, 0.0, 1.0], [0.0] * 3]), answer).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("text", ["mean", "pass@2", "majority@2"])
def test_an_example_with_an_answer_not_scored_yet_has_no_score(text: str) -> None:
    score, answer = np.array([[1.0, np.nan], [1.0, 0.0]]), np.array([[1, 1], [1, 2]])
    assert np.isnan(Aggregate.of(text).scores(score, answer)).tolist() == [True, False]


def test_an_example_counts_as_failed_where_one_of_its_requests_did() -> None:
    assert any_failed(np.array([[False, True], [False, False]])).tolist() == [True, False]


@pytest.mark.parametrize("text", ["pass@0", "pass", "median", "majority@-1", "mean@3", "pass@2x"])
def test_an_aggregate_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="none of mean, pass@K, majority@K"):
        Aggregate.of(text)


@pytest.mark.parametrize("text", ["pass@4", "majority@4"])
def test_more_answers_than_there_are_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="needs 4 answers an example, and there are 3"):
        Aggregate.of(text).scores(np.zeros((2, 3)), np.zeros((2, 3), dtype=int))

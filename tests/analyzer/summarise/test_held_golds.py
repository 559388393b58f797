"""A wordy model: full cache scores low, though its answers hold the gold. The report says so, and what to try."""

import json

import pytest

from analyzer.report.answers import AnswerKey, first_screen
from analyzer.results.results import read_results
from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from tests.analyzer.conftest import Experiment

WORDS = "As far as one can tell from what the long text above says about it, the answer must be {} and nothing else."


def limits_of(experiment: Experiment, n_held: int, metric: str = "f1", text: str = WORDS) -> str:
    """What limits the verdict where so many of 20 answers hold their gold in a sentence and the others are wrong."""
    asked = {"n_bins": 1, "n_per_bin": 20, "p_correct": 0.0, "metric": metric}
    known, _ = experiment(**asked)
    golds = [json.loads(row[0])[0] for row in known.execute("SELECT answers_json FROM examples ORDER BY example_id")]
    said = [text.format(gold if i < n_held else "unknown") for i, gold in enumerate(golds)]
    conn, settings = experiment(**asked, said=said, resamples=100)
    score(conn, "synthetic")
    analyze(conn, settings)
    screen = first_screen(read_results(conn, "synthetic"), settings)
    return " ".join(line for answer in screen.answers if answer.key == AnswerKey.LIMITS for line in answer.lines)


def test_what_the_answers_hold_is_told_beside_a_low_score(experiment: Experiment) -> None:
    text = limits_of(experiment, n_held=9)
    assert "Answers: full cache scores 0.07 by f1, but 45% of its answers hold the gold among other words" in text
    assert "`kvt all --metric string_match_part`" in text
    assert "check of kind baseline" in text


@pytest.mark.parametrize(
    ("n_held", "metric", "text"),
    [
        (3, "f1", WORDS),  # a few: the score is low because the answers are wrong
        (20, "f1", "{}"),  # the gold alone: the score is high
        (9, "string_match_all", WORDS),  # this metric finds the gold among other words
    ],
)
def test_nothing_is_said_where_the_score_tells_it(experiment: Experiment, n_held: int, metric: str, text: str) -> None:
    assert "among other words" not in limits_of(experiment, n_held, metric, text)

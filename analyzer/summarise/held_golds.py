"""Answers that hold the gold among other words: full cache scores low, and losses look small."""

import sqlite3

from analyzer.read import outcomes
from analyzer.read.runs import Run, metric_of_scores
from analyzer.results.number_format import number, percent

WHOLE_TEXT = frozenset({"em", "f1", "qa_f1", "qa_f1_first_line", "squad_em", "squad_f1", "scbench_qa_eng"})
"""Metrics that hold an answer's whole text against a gold: each word beside the gold costs."""
LOW, MUCH = 0.3, 0.2  # a score that is low, and how much larger the share of answers with the gold is to be


def held_share(facts: sqlite3.Connection, run: Run, samples: int, score: float) -> float | None:
    """Share of a run's scored answers that hold the best of their golds as whole words, failures among those that
    don't; None where its mean `score` isn't low, or the metric is no whole-text one."""
    if not score < LOW or metric_of_scores(facts, run.run_id) not in WHOLE_TEXT:
        return None
    return outcomes.share_with_gold(facts, run, samples)


def held_note(score: float | None, held: float | None, metric: str) -> list[str]:
    """What to try where far more answers hold the gold than the score says."""
    if score is None or held is None or score >= LOW or held < score + MUCH:
        return []
    return [
        f"answers: full cache scores {number(score)} by {metric}, but {percent(held)} of its answers hold the gold "
        "among other words, so losses look small. `kvt all --metric string_match_part` scores the stored answers by "
        "that; a stop string, or a prompt that asks for the answer alone, makes them short; a check of kind baseline "
        "says what full cache should score, before budgets are run"
    ]

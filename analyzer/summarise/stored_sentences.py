"""Verdict rows -> the same rows with their sentence: the one that the report prints, but for what holds at which
length."""

from dataclasses import replace

from analyzer.results import verdict_sentence
from analyzer.summarise.summaries import GroupRows


def with_sentences(rows: GroupRows, unit: str, margin: float) -> GroupRows:
    """The rows with their sentences; `unit` is that of the budgets. Claims that were taken back have theirs already."""
    verdicts = [
        row if row.verdict_text else replace(row, verdict_text=verdict_sentence.verdict(row, unit, margin))
        for row in rows.verdicts
    ]
    return replace(rows, verdicts=verdicts)

"""Verdict rows -> the same rows with their sentence: the one that the report prints, but for what holds at which
length."""

import json
from dataclasses import replace
from typing import Any

from analyzer.results import verdict_sentence
from analyzer.store.tables import Verdict, columns
from analyzer.summarise.summaries import GroupRows


def with_sentences(rows: GroupRows, unit: str, margin: float) -> GroupRows:
    """`unit` of the budgets below full cache. Claims that were taken back have their sentence already."""
    summaries = [
        {"verdict_text": verdict_sentence.verdict(_typed(row), unit, margin)} | row for row in rows.transition_summary
    ]
    return replace(rows, transition_summary=summaries)


def _typed(row: dict[str, Any]) -> Verdict:
    fields: dict[str, Any] = dict.fromkeys(columns(Verdict))
    fields |= row
    for name in ("zone_json", "method"):
        fields[name] = json.dumps(fields[name])
    return Verdict(**fields)

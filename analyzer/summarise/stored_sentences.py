"""Verdict rows -> the same rows with their sentence, which the report prints after the name of the series."""

from collections.abc import Sequence
from dataclasses import replace

from analyzer.results import verdict_sentence
from analyzer.results.length_bins import Bin
from analyzer.store.tables import Verdict
from analyzer.summarise.bin_stats import ALL_BINS
from analyzer.summarise.summaries import GroupRows


def with_sentences(rows: GroupRows, unit: str, margin: float, lengths: Sequence[Bin]) -> GroupRows:
    """The rows with their sentences; `unit` is that of the budgets. Claims that were taken back have theirs already."""
    return replace(rows, verdicts=[_with_sentence(row, rows.verdicts, unit, margin, lengths) for row in rows.verdicts])


def _with_sentence(
    row: Verdict, verdicts: Sequence[Verdict], unit: str, margin: float, lengths: Sequence[Bin]
) -> Verdict:
    if row.verdict_text:
        return row
    reach = verdict_sentence.LengthReach()
    if row.bin_idx == ALL_BINS:
        own = {v.bin_idx: v for v in verdicts if v.series == row.series}
        by_length = [(b, own[b.bin_idx]) for b in lengths if b.bin_idx in own]
        reach = verdict_sentence.at_lengths(row, by_length, unit)
    return replace(row, verdict_text=verdict_sentence.verdict(row, unit, margin, reach))

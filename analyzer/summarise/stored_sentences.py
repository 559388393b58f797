"""Verdict rows -> the same rows with their sentence, which the report prints after the name of the series."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from analyzer.results import verdict_sentence
from analyzer.results.length_bins import Bin
from analyzer.store.tables import Verdict
from analyzer.summarise.bin_stats import ALL_BINS
from analyzer.summarise.summaries import GroupRows
from kvt_async.contract.vocabulary import Unit


def with_sentences(rows: GroupRows, units: Mapping[str, str], margin: float, lengths: Sequence[Bin]) -> GroupRows:
    """The rows with their sentences; `units` are those of the budgets, by series.

    Claims that were taken back have theirs already.
    """
    sentences = [
        _with_sentence(row, rows.verdicts, units.get(row.series, Unit.FRACTION), margin, lengths)
        for row in rows.verdicts
    ]
    return replace(rows, verdicts=sentences)


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

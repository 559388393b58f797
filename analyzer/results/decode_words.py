"""What budgets that apply while answers are generated did, in words and as a table. Pure.

The verdict is over all answers. What is told of those whose cache was compressed explores: how long an answer gets is
an effect of the level, so these answers were not chosen in advance.
"""

from dataclasses import dataclass
from typing import Any

from analyzer.results.number_format import (
    NOTHING,
    budget,
    cache_kept,
    count,
    interval,
    listed,
    number,
    percent,
    plural,
)
from analyzer.results.results import Results
from analyzer.results.series_names import series_name, series_names
from analyzer.results.text_table import Table, table
from kvt_async.contract.vocabulary import When


@dataclass(frozen=True)
class DecodeLevel:
    """A level as zone_json's `while_generating` holds it (summarise/decode_levels.py)."""

    series: str
    budget: float
    unit: str
    when: str
    said: int
    applied: int
    share: float
    shown: bool
    of_applied: dict[str, Any] | None
    of_reached: dict[str, Any] | None
    peak: dict[str, Any] | None

    @property
    def counts(self) -> str:
        """`30 of 60 (50%)`."""
        return f"{self.applied:,} of {self.said:,} ({percent(self.share)})"

    @property
    def compressed_in(self) -> str:
        """`30 of 60 answers (50%)`."""
        return f"{self.applied:,} of {plural(self.said, 'answer')} ({percent(self.share)})"


def decode_levels(results: Results) -> list[DecodeLevel]:
    """Those of every series, from the highest budget down; empty where nothing was evicted while answers were
    generated."""
    verdicts = [v for series in results.series if (v := results.verdict(series)) is not None]
    return [DecodeLevel(v.series, **level) for v in verdicts for level in v.detail.get("while_generating", [])]


def applied_sentence(results: Results) -> str:
    """In how many answers the cache was compressed, level by level; empty where nothing evicts while it answers."""
    by_shares: dict[str, list[str]] = {}
    of_series = _by_series(results)
    for series, levels in of_series.items():
        shares = _shares(levels) if any(level.said for level in levels) else ""
        by_shares.setdefault(shares, []).append(series)
    parts = []
    for shares, alike in by_shares.items():
        names = f" of {series_names(alike)}" if len(of_series) > 1 else ""
        parts.append(
            f"the cache{names} was compressed {shares}"
            if shares
            else f"no reply{names} says how often the cache was compressed"
        )
    return f"While answers were generated, {'; '.join(parts)}." if parts else ""


def partly_applied(results: Results) -> str:
    """Says that the verdict is also about answers which a budget didn't reach; empty where there are none, or where
    nothing is shown anyway."""
    levels = [level for level in decode_levels(results) if level.shown and level.share < 1]
    if not levels:
        return ""
    shares = listed(list(dict.fromkeys(percent(level.share) for level in levels)))
    return (
        f"The verdict is over all answers, and the budget reached {shares} of them: in the others the cache was never "
        "compressed while they were generated."
    )


def compressed_sentences(results: Results) -> list[str]:
    """The loss over the answers that the budget reached, beside the verdict over all; only where some were not."""
    lines = []
    for series, levels in _by_series(results).items():
        partly = [level for level in levels if level.shown and level.share < 1 and level.of_applied]
        if not partly:
            continue
        same = all(level.of_reached == level.of_applied for level in partly)
        parts = [
            f"{_loss(level.of_applied)} with {cache_kept(level.budget, level.unit)}"
            + (
                f" ({_loss(level.of_reached)} over those long enough at full cache)"
                if level.of_reached and not same
                else ""
            )
            for level in partly
        ]
        lines.append(
            f"{series_name(series)}, over the answers whose cache was compressed"
            f"{' (the same that are long enough at full cache)' if same else ''}: a loss of {listed(parts)}. "
            "Exploratory: how long an answer gets is an effect of the level; the verdict is over all answers."
        )
    return lines


def peak_sentence(level: DecodeLevel) -> str:
    """The most that was held, against full cache's own peak."""
    at = cache_kept(level.budget, level.unit)
    if level.peak is None:
        return f"Memory with {at}: not known, because replies don't say the most tokens that were held."
    whole = " The prompt is held whole until the first compression." if level.when == When.DECODE else ""
    return (
        f"Memory with {at}: at most {count(level.peak['here'])} tokens of cache were held (mean over answers) instead "
        f"of {count(level.peak['full'])}, {_ratio(level)} of full cache's own peak.{whole}"
    )


def no_evidence(results: Results) -> str:
    """Names the levels that hardly any answer reached; empty where there is none."""
    by_shares: dict[str, list[str]] = {}
    for series, levels in _by_series(results).items():
        if shares := _shares([level for level in levels if level.said and not level.shown]):
            by_shares.setdefault(shares, []).append(series)
    parts = [f"at {series_names(alike)} the cache was compressed {shares}" for shares, alike in by_shares.items()]
    return f"while answers were generated, {'; '.join(parts)}" if parts else ""


def decode_table(results: Results) -> Table:
    """Level by level: in how many answers the cache was compressed, the loss over all answers and over those, and the
    most that was held."""
    runs = {(run.series, run.kv_budget): run for run in results.runs if not run.repeat_idx}
    rows = []
    for level in decode_levels(results):
        run = runs.get((level.series, level.budget))
        drop = results.drop(run) if run else None
        rows.append(
            {
                "Series": level.series,
                "Budget": budget(level.budget, level.unit),
                "Compressed": level.counts if level.said else NOTHING,
                "Peak against full": _peak(level),
                "Loss, all answers [95% CI]": interval(drop.drop_mean, drop.drop_ci_low, drop.drop_ci_high)
                if drop
                else NOTHING,
                "Loss, compressed answers": _loss(level.of_applied),
                "Loss, long enough at full cache": _loss(level.of_reached),
            }
        )
    note = (
        "Compressed: answers whose cache was compressed at least once while they were generated; below 20% nothing is "
        "shown of it. Peak: the most tokens held, mean over answers. Losses are paired with full cache. Long enough at "
        "full cache: answers that the budget would have reached if they had come out as at full cache, which it can't "
        "have chosen. Both are exploratory."
    )
    return table(rows, note=note if rows else "")


def _shares(levels: list[DecodeLevel]) -> str:
    """`in 30 of 60 answers (50%) with 96 tokens kept and 64 tokens kept`; levels of one count share a part."""
    budgets: dict[str, list[str]] = {}
    for level in levels:
        budgets.setdefault(level.compressed_in, []).append(cache_kept(level.budget, level.unit))
    return listed([f"in {counts} with {listed(at)}" for counts, at in budgets.items()])


def _by_series(results: Results) -> dict[str, list[DecodeLevel]]:
    by_series: dict[str, list[DecodeLevel]] = {}
    for level in decode_levels(results):
        by_series.setdefault(level.series, []).append(level)
    return by_series


def _loss(part: dict[str, Any] | None) -> str:
    return f"{interval(part['drop'], part['low'], part['high'])} (n {part['n']:,})" if part else NOTHING


def _peak(level: DecodeLevel) -> str:
    if level.peak is None:
        return NOTHING
    return f"{count(level.peak['here'])} of {count(level.peak['full'])}, {_ratio(level)}"


def _ratio(level: DecodeLevel) -> str:
    peak = level.peak or {}
    low, high = peak["low"], peak["high"]
    ends = "" if low is None or high is None else f" [{percent(low)}, {percent(high)}]"
    return percent(peak["ratio"]) + ends if peak["ratio"] is not None else number(None)

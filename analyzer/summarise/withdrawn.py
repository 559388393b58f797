"""Claims that the facts contradict are taken back: where the server read prompts shorter than sent, no pair compares
what its name says, so nothing is proven of any length or budget; and where hardly any answer had its cache compressed,
as its level says, nothing is shown of that. The measured means and differences stay."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from types import MappingProxyType

from analyzer.read.compressions import Compressions
from analyzer.read.drift import Answers
from analyzer.results import verdict_sentence
from analyzer.store.tables import Verdict, json_text
from analyzer.summarise.bin_stats import ALL_BINS
from analyzer.summarise.decode_evidence import has_evidence
from analyzer.summarise.summaries import GroupRows
from kvt_async.contract.formulas.prompt_counts import PromptCounts, together
from kvt_async.contract.vocabulary import SeriesVerdict

_DETAILS = ("spread", "needed", "cliff", "length_by_budget")  # of zone_json: they are claims


def withdraw(
    rows: GroupRows,
    counts: Mapping[str, PromptCounts],
    beside_canary: Answers | None,
    compressions: Mapping[str, Compressions] = MappingProxyType({}),
) -> GroupRows:
    """The same rows, without the claims of every series whose pairs were read short, or whose budgets were hardly
    applied, every one of them; `counts` and `compressions` by run.

    Over all lengths each verdict also holds what the counts say of the whole group (`zone_json.prompts`), and what the
    answers say of a canary that doubted the budget (`zone_json.canary`).
    """
    whole = together(counts.values())
    series_of = {row.run_id: row.series for row in rows.drops if not row.repeat_idx}
    of_full = any(count.are_short for run_id, count in counts.items() if run_id not in series_of)
    short = {series for run_id, series in series_of.items() if of_full or counts[run_id].are_short}
    group_details = {"prompts": asdict(whole)} | ({"canary": asdict(beside_canary)} if beside_canary else {})
    words = {series: verdict_sentence.unapplied(*most) for series, most in _unapplied(series_of, compressions).items()}
    words |= dict.fromkeys(short, verdict_sentence.unverified(whole))
    verdicts = [_without_claims(row, words[row.series]) if row.series in words else row for row in rows.verdicts]
    return replace(
        rows,
        verdicts=[
            replace(row, zone_json=json_text(row.detail | group_details)) if row.bin_idx == ALL_BINS else row
            for row in verdicts
        ],
    )


def _unapplied(series_of: Mapping[str, str], compressions: Mapping[str, Compressions]) -> dict[str, tuple[int, int]]:
    """Series of which no level was applied to enough answers, and whose losses can't be those of their prompts:
    (applied, said) of the level with most of them."""
    levels: dict[str, list[Compressions | None]] = {}
    for run_id, series in series_of.items():
        levels.setdefault(series, []).append(compressions.get(run_id))
    return {
        series: max((c.n_applied, c.n_said) for c in of_series if c is not None)
        for series, of_series in levels.items()
        if not any(applied is None or not applied.alone or has_evidence(applied) for applied in of_series)
    }


def _without_claims(row: Verdict, words: str) -> Verdict:
    return replace(
        row,
        safe_budget=None,
        collapse_budget=None,
        collapse_margin_budget=None,
        zone_low=None,
        zone_high=None,
        half_loss_budget=None,
        half_loss_ci_low=None,
        half_loss_ci_high=None,
        zone_low_tokens=None,
        zone_high_tokens=None,
        half_loss_tokens=None,
        n_needed=None,
        verdict=SeriesVerdict.UNVERIFIED,
        verdict_text=words,
        zone_json=json_text({key: value for key, value in row.detail.items() if key not in _DETAILS}),
    )

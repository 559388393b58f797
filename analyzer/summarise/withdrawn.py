"""Claims that the facts contradict are taken back: where the server read prompts shorter than sent, no pair compares
what its name says, so nothing is proven of any length or budget. The measured means and differences stay."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from analyzer.read.drift import Answers
from analyzer.results import verdict_sentence
from analyzer.summarise.bin_stats import ALL_BINS
from analyzer.summarise.summaries import GroupRows
from kvt_async.contract.formulas.prompt_counts import PromptCounts, together
from kvt_async.contract.vocabulary import SeriesVerdict

_CLAIMS = (
    "safe_budget", "collapse_budget", "collapse_margin_budget", "zone_low", "zone_high", "half_loss_budget",
    "half_loss_ci_low", "half_loss_ci_high", "zone_low_tokens", "zone_high_tokens", "half_loss_tokens", "n_needed",
)  # fmt: skip
_DETAILS = ("spread", "needed", "cliff", "length_by_budget")


def withdraw(rows: GroupRows, counts: Mapping[str, PromptCounts], beside_canary: Answers | None) -> GroupRows:
    """The same rows, without the claims of every series whose pairs were read short; `counts` by run.

    Over all lengths each verdict also holds what the counts say of the whole group (`zone_json.prompts`), and what the
    answers say of a canary that doubted the budget (`zone_json.canary`).
    """
    whole = together(counts.values())
    runs = {row["run_id"]: row["series"] for row in rows.budget_stats if not row["repeat_idx"]}
    of_full = any(one.are_short for run_id, one in counts.items() if run_id not in runs)
    short = {series for run_id, series in runs.items() if of_full or counts[run_id].are_short}
    about = {"prompts": asdict(whole)} | ({"canary": asdict(beside_canary)} if beside_canary else {})
    return replace(rows, transition_summary=[_row(row, short, whole, about) for row in rows.transition_summary])


def _row(row: dict[str, Any], short: set[str], whole: PromptCounts, about: dict[str, Any]) -> dict[str, Any]:
    detail = row["zone_json"]
    if row["series"] in short:
        detail = {key: value for key, value in detail.items() if key not in _DETAILS}
        told = {"verdict": SeriesVerdict.UNVERIFIED, "verdict_text": verdict_sentence.unverified(whole)}
        row = row | dict.fromkeys(_CLAIMS) | told
    if row["bin_idx"] == ALL_BINS:
        detail = detail | about
    return row | {"zone_json": detail}

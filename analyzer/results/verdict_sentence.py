"""The verdict of one series in words: the one place that says it, for the stored `verdict_text`, the report, the
terminal, charts and --json.

Pure functions of one row of transition_summary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analyzer.results.confidence import margin_in_score, needed, needs, nothing_safe
from analyzer.results.length_bins import Bin
from analyzer.results.number_format import cache_kept, cache_share, interval, listed, loss_size, number, percent, plural
from analyzer.results.series_names import series_name
from analyzer.store.tables import Verdict
from kvt_async.contract.formulas.prompt_counts import PromptCounts
from kvt_async.contract.vocabulary import FULL, SeriesVerdict

NONE_PROVEN = "none proven"
_NO_EVIDENCE = "No evidence"
ONLY_FULL = "Only full cache was run: there is no smaller budget to judge."
_REASONS: dict[str, str] = {
    SeriesVerdict.NOTHING_TO_LOSE: "nothing to lose at full cache",
    SeriesVerdict.NO_BASELINE: "no full-cache baseline",
    SeriesVerdict.UNVERIFIED: "unverified: prompts were read shorter than sent",
}


@dataclass(frozen=True)
class LengthReach:
    """How far a claim about the mean over lengths holds at the single lengths: what to say after `safe`, and after its
    budget. Both empty: there is nothing to say."""

    reach: str = ""
    but: str = ""


def verdict(v: Verdict, unit: str, margin: float, lengths: LengthReach = LengthReach()) -> str:
    """The verdict of one series in one sentence, and a second one where more pairs would settle it."""
    kind = v.asked.get("margin_kind", "absolute")
    m = loss_size(margin, kind)
    if v.series == FULL:
        return ONLY_FULL
    if v.verdict == SeriesVerdict.NO_BASELINE:
        return "No verdict: there is no full-cache run to compare with (add budget 1.0)."
    if v.verdict == SeriesVerdict.UNVERIFIED:
        return v.verdict_text  # of `unverified`, which the row alone can't tell
    if v.verdict == SeriesVerdict.NOTHING_TO_LOSE and "floor" in v.detail:
        limit = margin_in_score(margin, kind, v.acc_full or 0.0)
        return _nothing(v, v.detail["floor"], m, limit)
    if v.verdict == SeriesVerdict.NOTHING_TO_LOSE:
        return (
            f"No verdict: accuracy at full cache is {number(v.acc_full)}, so there is nothing to lose (a floor): no "
            f"budget can lose more than {m}. Requests fail, the task is too hard, or metric and task don't fit."
        )
    if v.verdict == SeriesVerdict.NO_TRANSITION:
        real = f"; from {cache_share(v.loss, unit)} down a real loss is proven, and it is below {m}" if v.loss else ""
        head = _safe(v, unit, lengths, ", the smallest budget tested")
        return f"{head} ({_safe_means(m)}; {plural(v.n, 'pair')}){real}."
    if v.verdict == SeriesVerdict.CANNOT_TELL:
        return f"{_cannot_tell(v, unit, m, lengths)}{needs(v, unit, m)}"
    return f"{_transition(v, unit, m, lengths)}{needs(v, unit, m) if nothing_safe(v) else ''}"


def unverified(counts: PromptCounts) -> str:
    """What is said where claims were taken back because prompts were read shorter than sent."""
    return f"Unverified: {counts.sentence}."


def unapplied(applied: int, said: int) -> str:
    """What is said where the cache of hardly any answer was compressed at any budget of the series."""
    share = f"at most {applied:,} of {plural(said, 'answer')} ({percent(applied / said)})"
    if not applied:
        share = f"none of {plural(said, 'answer')}"
    return (
        f"{_NO_EVIDENCE}: while answers were generated, the cache was compressed in {share} at any budget, so nothing "
        "is shown of what it does. Longer answers, a smaller budget or a shorter interval would show it."
    )


def all_failed(series: str, n: int) -> str:
    """There are no answers at full cache, so whatever was computed of them is no verdict."""
    return (
        f"{series_name(series)}: no verdict, because every request failed at full cache ({n:,} of {n:,}): "
        "there are no answers to compare. `kvt status` says why they failed."
    )


def in_few_words(v: Verdict, unit: str) -> str:
    """The verdict for a cell of a table or a chart's title."""
    if v.verdict == SeriesVerdict.TRANSITION:
        head = "no budget proven safe" if nothing_safe(v) else f"safe to {cache_share(v.safe_budget, unit)}"
        if v.broken is not None:
            return f"{head}, broken from {cache_share(v.broken, unit)} down"
        if v.loss is not None:
            return f"{head}, some loss from {cache_share(v.loss, unit)} down"
        return f"{head}, zone open below"
    if v.verdict == SeriesVerdict.NO_TRANSITION:
        return f"safe down to {cache_share(v.safe_budget, unit)}, the smallest tested"
    if v.verdict == SeriesVerdict.CANNOT_TELL:
        safe = "" if nothing_safe(v) else f"safe to {cache_share(v.safe_budget, unit)}; below: "
        return f"{safe}can't tell" + (f", needs {text.split(',')[0]}" if (text := needed(v, unit, "")) else "")
    floor = v.detail.get("floor")
    if v.verdict == SeriesVerdict.NOTHING_TO_LOSE and floor and floor["high"] > v.asked.get("margin", 1.0):
        return "nothing to lose shown at full cache"
    if v.verdict == SeriesVerdict.UNVERIFIED and v.verdict_text.startswith(_NO_EVIDENCE):
        return "no evidence: hardly any answer was compressed"
    return _REASONS.get(v.verdict, v.verdict)


def _nothing(v: Verdict, floor: dict[str, Any], m: str, limit: float) -> str:
    """Says that full cache is at its floor: it scores what answers without reading would, as far as these pairs
    tell. `limit`: the margin in score units."""
    base = "by chance" if floor["kind"] == "chance" else "against the answers to other examples"
    room = interval(floor["headroom"], floor["low"], floor["high"])
    if floor["high"] <= limit:
        seen, so = "", f"so no budget can lose more than {m}"
    else:
        seen, so = f" that {plural(v.n, 'pair')} can show", f"not proven to be more than {m}: nothing is called safe"
    return (
        f"Nothing to lose here{seen}: full cache scores {number(v.acc_full)}, and its answers score "
        f"{number(floor['floor'])} {base}. The difference is {room}, {so}. Requests fail, the task is too hard for "
        "this model, or metric and task don't fit."
    )


def _safe_means(m: str) -> str:
    return f"safe: accuracy is proven to fall by less than {m}"


def _safe(v: Verdict, unit: str, lengths: LengthReach, remark: str = "") -> str:
    return f"Safe{lengths.reach} down to {cache_kept(v.safe_budget, unit)}{remark}{lengths.but}"


def _cannot_tell(v: Verdict, unit: str, m: str, lengths: LengthReach) -> str:
    loss = (
        f"a real loss is proven from {cache_share(v.loss, unit)} down, but not one beyond {m}"
        if v.loss is not None
        else f"neither safety nor a loss of accuracy beyond {m} is proven"
    )
    if not nothing_safe(v):
        return f"{_safe(v, unit, lengths)}; below that, {plural(v.n, 'pair')} can't tell: {loss} ({_safe_means(m)})."
    floor = v.detail.get("floor", {"shown": True})
    room = ""
    if not floor["shown"]:
        scores = f"{number(v.acc_full)} against a floor of {number(floor['floor'])}"
        room = f" Full cache is not proven to have more than {m} to lose ({scores}), so no budget is called safe."
    return f"Cannot tell with {plural(v.n, 'pair')}: {loss}.{room}"


def _transition(v: Verdict, unit: str, m: str, lengths: LengthReach) -> str:
    means = f"{_safe_means(m)}; broken: by more"
    if not nothing_safe(v):
        head = _safe(v, unit, lengths)
    elif v.detail.get("floor", {}).get("shown", True):
        head = "No budget below full cache is proven safe"
    else:
        head = f"No budget is called safe, because full cache is not proven to have more than {m} to lose"
        means = f"broken: accuracy is proven to fall by more than {m}"
    if v.broken is not None:
        at = (cache_kept if nothing_safe(v) else cache_share)(v.broken, unit)
        return f"{head}; broken from {at} down ({means})."
    real = (
        f"from {cache_share(v.loss, unit)} down a real loss is proven, but not that it is beyond {m}"
        if v.loss is not None
        else f"no loss beyond {m} is proven down to the smallest budget"
    )
    return f"{head}; {real} ({means.partition('; ')[0]})."


def at_lengths(v: Verdict, rows: Sequence[tuple[Bin, Verdict]], unit: str) -> LengthReach:
    """How far the safe budget of the mean holds in each length bin: at every length, or on average and where it is not
    proven. Nothing is said where nothing is proven, or there is one length.

    Every length: an intersection of the bins' own claims, so it needs no adjustment; no bin's claim reaches further
    than its own order of tests.
    """
    judged = [(b, of_bin) for b, of_bin in rows if of_bin.n]
    if nothing_safe(v) or len(judged) < 2:
        return LengthReach()
    behind: dict[str, list[str]] = {}
    for b, of_bin in judged:
        if nothing_safe(of_bin) or not of_bin.judges:
            behind.setdefault("at no budget", []).append(b.label)
        elif (of_bin.safe_budget or 0.0) > (v.safe_budget or 0.0):
            behind.setdefault(f"only to {cache_share(of_bin.safe_budget, unit)}", []).append(b.label)
    if not behind:
        return LengthReach(" at every length")
    if len(behind.get("at no budget", [])) == len(judged):
        return LengthReach(" on average over lengths", ", but proven at no single length")
    parts = [f"at {listed(labels)} tokens {how}" for how, labels in behind.items()]
    return LengthReach(" on average over lengths", f", but {', '.join(parts)}")


def safe_text(v: Verdict, unit: str) -> str:
    if not v.judges:
        return "no verdict"
    if v.n == 0:
        return "no examples"
    return NONE_PROVEN if nothing_safe(v) else f"safe to {cache_share(v.safe_budget, unit)}"

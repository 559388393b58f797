"""The verdict of one series in words: the one place that says it, for the stored `verdict_text`, the report, the
terminal, charts and --json.

Pure functions of one row of transition_summary.
"""

from collections.abc import Sequence
from typing import Any

from analyzer.results.confidence import margin_in_score, needed, needs, nothing_safe
from analyzer.results.length_bins import Bin
from analyzer.results.number_format import budget, interval, listed, loss_size, number, plural
from analyzer.store.tables import Verdict
from kvt_async.contract.formulas.prompt_counts import PromptCounts
from kvt_async.contract.vocabulary import FULL, SeriesVerdict, Unit

NONE_PROVEN = "none proven"
ONLY_FULL = "Only full cache was run: there is no smaller budget to judge."
_REASONS: dict[str, str] = {
    SeriesVerdict.NOTHING_TO_LOSE: "nothing to lose at full cache",
    SeriesVerdict.NO_BASELINE: "no full-cache baseline",
    SeriesVerdict.UNVERIFIED: "unverified: prompts were read shorter than sent",
}


def verdict(v: Verdict, unit: str, margin: float, lengths: str = "") -> str:
    """The verdict of one series in one sentence (two where the zone is open); `lengths`: of `at_lengths`."""
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
        return (
            f"No transition in the tested range: down to {budget(v.safe_budget, unit)}, every budget is proven to lose "
            f"less than {m}{lengths} ({plural(v.n, 'pair')}).{_below_margin(v, unit, m)}"
        )
    if v.verdict == SeriesVerdict.CANNOT_TELL:
        return f"{_cannot_tell(v, unit, m, lengths)}{needs(v, unit, m)}"
    return f"{_safe(v, unit, m, lengths)}{_zone(v, unit, m)}{needs(v, unit, m) if nothing_safe(v) else ''}"


def unverified(counts: PromptCounts) -> str:
    """What is said where claims were taken back because prompts were read shorter than sent."""
    return f"Unverified: {counts.sentence}."


def all_failed(series: str, n: int) -> str:
    """There are no answers at full cache, so whatever was computed of them is no verdict."""
    return (
        f"{series}: no verdict, because every request failed at full cache ({n:,} of {n:,}): "
        "there are no answers to compare. `kvt status` says why they failed."
    )


def in_few_words(v: Verdict, unit: str) -> str:
    """The verdict for a cell of a table or a chart's title."""
    if v.verdict == SeriesVerdict.TRANSITION:
        head = "no budget proven safe" if nothing_safe(v) else f"safe to {budget(v.safe_budget, unit)}"
        if v.broken is not None:
            return f"{head}, broken from {budget(v.broken, unit)} down"
        if v.loss is not None:
            return f"{head}, some loss from {budget(v.loss, unit)} down"
        return f"{head}, zone open below"
    if v.verdict == SeriesVerdict.NO_TRANSITION:
        return f"safe down to {budget(v.safe_budget, unit)}, the smallest tested"
    if v.verdict == SeriesVerdict.CANNOT_TELL:
        safe = "" if nothing_safe(v) else f"safe to {budget(v.safe_budget, unit)}; below: "
        return f"{safe}can't tell" + (f", needs {text.split(',')[0]}" if (text := needed(v, unit, "")) else "")
    floor = v.detail.get("floor")
    if v.verdict == SeriesVerdict.NOTHING_TO_LOSE and floor and floor["high"] > v.asked.get("margin", 1.0):
        return "nothing to lose shown at full cache"
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


def _below_margin(v: Verdict, unit: str, m: str) -> str:
    """That a loss is real and still smaller than the margin; empty where none is proven."""
    if v.loss is None:
        return ""
    return f" A real loss is proven from {budget(v.loss, unit)} down, and it is below {m}."


def _cannot_tell(v: Verdict, unit: str, m: str, lengths: str) -> str:
    proven = "" if nothing_safe(v) else f"down to {budget(v.safe_budget, unit)} a loss below {m} is proven{lengths}; "
    loss = (
        f"a real loss is proven from {budget(v.loss, unit)} down, but not one beyond {m}"
        if v.loss is not None
        else f"{'below that ' if proven else ''}neither safety nor a loss beyond {m} is proven"
    )
    floor = v.detail.get("floor", {"shown": True})
    room = ""
    if not floor["shown"]:
        scores = f"{number(v.acc_full)} against a floor of {number(floor['floor'])}"
        room = f" Full cache is not proven to have more than {m} to lose ({scores}), so no budget is called safe."
    return f"Cannot tell with {plural(v.n, 'pair')}: {proven}{loss}.{room}"


def _safe(v: Verdict, unit: str, m: str, lengths: str) -> str:
    if nothing_safe(v) and not v.detail.get("floor", {}).get("shown", True):
        return f"No budget is called safe, because full cache is not proven to have more than {m} to lose. "
    if nothing_safe(v):
        return f"No budget below full cache is proven to lose less than {m}. "
    return f"Safe down to {budget(v.safe_budget, unit)}{lengths}: there and above, the loss is proven to be below {m}. "


def _zone(v: Verdict, unit: str, m: str) -> str:
    if v.broken is None:
        real = (
            f"a real loss is proven from {budget(v.loss, unit)} down, but not that it is beyond {m}"
            if v.loss is not None
            else f"no loss beyond {m} is proven down to the smallest budget"
        )
        return f"The transition zone is open below: {real}."
    top = "full cache" if nothing_safe(v) else budget(v.zone_high, unit)
    half = ""
    if v.half_loss_budget is not None:
        digits = 2 if unit == Unit.FRACTION else 0
        at = interval(v.half_loss_budget, v.half_loss_ci_low, v.half_loss_ci_high, digits)
        half = f"; half of what the smallest budget loses is lost at {at}"
    return (
        f"Transition zone: between {top} and {budget(v.broken, unit)}{half}. "
        f"From {budget(v.broken, unit)} down, the loss is proven to be beyond {m}."
    )


def at_lengths(v: Verdict, rows: Sequence[tuple[Bin, Verdict]], unit: str) -> str:
    """How far the safe budget of the mean holds in each length bin: ` at every length`, or on average and where it
    is not proven. Empty where nothing is proven, or there is one length.

    Every length: an intersection of the bins' own claims, so it needs no adjustment; no bin's claim reaches further
    than its own order of tests.
    """
    judged = [(b, of_bin) for b, of_bin in rows if of_bin.n]
    if nothing_safe(v) or len(judged) < 2:
        return ""
    behind: dict[str, list[str]] = {}
    for b, of_bin in judged:
        if nothing_safe(of_bin) or not of_bin.judges:
            behind.setdefault("at no budget", []).append(b.label)
        elif (of_bin.safe_budget or 0.0) > (v.safe_budget or 0.0):
            behind.setdefault(f"only to {budget(of_bin.safe_budget, unit)}", []).append(b.label)
    if not behind:
        return " at every length"
    if len(behind.get("at no budget", [])) == len(judged):
        return " on average over lengths, at no single length"
    return " on average over lengths" + "".join(f", at {listed(labels)} tokens {how}" for how, labels in behind.items())


def safe_text(v: Verdict, unit: str) -> str:
    if not v.judges:
        return "no verdict"
    if v.n == 0:
        return "no examples"
    return NONE_PROVEN if nothing_safe(v) else f"safe to {budget(v.safe_budget, unit)}"

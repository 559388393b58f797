"""Verdicts in words: pure functions of persisted rows. Every number comes with its uncertainty or its count."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from analyzer.results.confidence import needed, needs, nothing_safe
from analyzer.results.number_format import budget, interval, listed, number, percent, plural
from analyzer.results.rows import Bin
from analyzer.store.tables import BinStat, Comparison, Drop, Evidence, Verdict
from kvt_async.contract.vocabulary import EvidenceStatus as Status
from kvt_async.contract.vocabulary import SeriesVerdict, Unit

NONE_PROVEN = "none proven"
UNVERIFIED = "the budget is a label; nothing shows that the server applied it"
_TAKEN_BACK = {  # what a stored reason holds: what it is called
    "read shorter than sent": "prompts were read shorter than sent",
    "the server became another one meanwhile": "the server became another one meanwhile",
    "levels were served by different servers": "levels were served by different servers",
}
_REASONS: dict[str, str] = {
    SeriesVerdict.NOTHING_TO_LOSE: "nothing to lose at full cache",
    SeriesVerdict.NO_BASELINE: "no full-cache baseline",
    SeriesVerdict.UNVERIFIED: "unverified: prompts were read shorter than sent",
}


def verdict(v: Verdict, unit: str, margin: float, lengths: str = "") -> str:
    """The verdict of one series in one sentence (two where the zone is open); `lengths`: of `at_lengths`."""
    m = number(margin)
    if v.verdict == SeriesVerdict.NO_BASELINE:
        return "No verdict: there is no full-cache run to compare with."
    if v.verdict == SeriesVerdict.UNVERIFIED:
        return v.verdict_text
    if v.verdict == SeriesVerdict.NOTHING_TO_LOSE and "floor" in v.detail:
        return _nothing(v, v.detail["floor"], m)
    if v.verdict == SeriesVerdict.NOTHING_TO_LOSE:
        return (
            f"No verdict: accuracy at full cache is {number(v.acc_full)}, so there is nothing to lose (a floor): no "
            f"budget can lose more than {m}. Requests fail, the task is too hard, or metric and task don't fit."
        )
    if v.verdict == SeriesVerdict.NO_TRANSITION:
        return (
            f"No transition in the tested range: down to {budget(v.safe_budget, unit)}, every budget is proven to lose "
            f"less than {m}{lengths} ({plural(v.n, 'pair')})."
        )
    if v.verdict == SeriesVerdict.CANNOT_TELL:
        return f"{_cannot_tell(v, unit, m, lengths)}{needs(v, unit, m)}"
    return f"{_safe(v, unit, m, lengths)}{_zone(v, unit, m)}{needs(v, unit, m) if nothing_safe(v) else ''}"


def short_verdict(v: Verdict, unit: str) -> str:
    """A few words for tables and chart titles."""
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


def _nothing(v: Verdict, floor: dict[str, Any], m: str) -> str:
    """A task at its floor: what full cache scores it would score without reading, as far as these pairs tell."""
    base = "by chance" if floor["kind"] == "chance" else "against the answers to other examples"
    room = interval(floor["headroom"], floor["low"], floor["high"])
    if floor["high"] <= float(m):
        seen, so = "", f"so no budget can lose more than {m}"
    else:
        seen, so = f" that {plural(v.n, 'pair')} can show", f"not proven to be more than {m}: nothing is called safe"
    return (
        f"Nothing to lose here{seen}: full cache scores {number(v.acc_full)}, and its answers score "
        f"{number(floor['floor'])} {base}. The difference is {room}, {so}. Requests fail, the task is too hard for "
        "this model, or metric and task don't fit."
    )


def _cannot_tell(v: Verdict, unit: str, m: str, lengths: str) -> str:
    proven = "" if nothing_safe(v) else f"down to {budget(v.safe_budget, unit)} a loss below {m} is proven{lengths}; "
    loss = (
        f"a real loss is proven from {budget(v.loss, unit)} down, but not one beyond {m}"
        if v.loss is not None
        else f"{'below that ' if proven else ''}neither safety nor a loss beyond {m} is proven"
    )
    return f"Cannot tell with {plural(v.n, 'pair')}: {proven}{loss}."


def _safe(v: Verdict, unit: str, m: str, lengths: str) -> str:
    if nothing_safe(v) and not v.detail.get("floor", {}).get("shown", True):
        return f"No budget is called safe, because full cache is not proven to have more than {m} to lose. "
    if nothing_safe(v):
        return f"No budget below full cache is proven to lose less than {m}. "
    return f"Safe down to {budget(v.safe_budget, unit)}{lengths}: there and above, the loss is proven to be below {m}. "


def _zone(v: Verdict, unit: str, m: str) -> str:
    if v.zone_low is None:
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
        f"Transition zone: between {top} and {budget(v.zone_low, unit)}{half}. "
        f"From {budget(v.zone_low, unit)} down, the loss is proven to be beyond {m}."
    )


def what_changed(
    series: str, full: BinStat | None, levels: Sequence[tuple[float, Drop]], unit: str, v: Verdict | None
) -> str:
    """First and last point of the curve, and the largest step between neighbours."""
    known = [(b, d) for b, d in levels if d.acc_mean is not None]
    if full is None or full.acc_mean is None or not known:
        return f"{series}: nothing to compare, because there are no paired answers at full cache and below it."
    low, last = known[-1]
    start = interval(full.acc_mean, full.acc_ci_low, full.acc_ci_high)
    end = interval(last.acc_mean, last.acc_ci_low, last.acc_ci_high)
    loss = interval(last.drop_mean, last.drop_ci_low, last.drop_ci_high)
    moved = _moved(low, v)
    of_full = f", {percent(ratio(last.acc_mean, full.acc_mean))} of full cache's" if full.acc_mean else ""
    text = (
        f"Accuracy of {series} {moved} from {start} at full cache to {end} at {budget(low, unit)}{of_full}: "
        f"a paired loss of {loss} over {plural(last.n, 'pair')}."
    )
    points = [(1.0, full.acc_mean), *((b, d.acc_mean or 0.0) for b, d in known)]
    steps = [(a - b, x, y) for (x, a), (y, b) in pairwise(points)]
    size, x, y = max(steps)
    if len(steps) > 1 and size > 0 and moved == "falls":
        where = "full cache" if x == points[0][0] else budget(x, unit)
        text += f" The largest step between two means, {number(size)}, lies between {where} and {budget(y, unit)}."
    return text


def ratio(value: float | None, full: float | None) -> float | None:
    """Accuracy relative to full cache; None where that is 0 or unknown."""
    return None if value is None or not full else value / full


def _moved(lowest: float, v: Verdict | None) -> str:
    """What is proven of the smallest budget, at the level that the verdict's own claims spend; where claims were taken
    back, how it looks, and no more."""
    if v is not None and v.verdict == SeriesVerdict.UNVERIFIED:
        return "goes, as measured,"
    if v is not None and v.loss is not None:
        return "falls"
    gains = v.detail.get("gains") if v is not None else None
    if v is not None and gains and gains["p"].get(str(float(lowest)), 1.0) <= v.detail.get("level", 0.0):
        return "rises"
    return "goes, within its uncertainty,"


def safe_by_length(series: str, rows: Sequence[tuple[Bin, Verdict]], unit: str) -> str:
    """Safe budget of each length bin, in one sentence; equal neighbours told together."""
    parts: list[tuple[str, list[Bin]]] = []
    for b, v in rows:
        text = safe_text(v, unit)
        if parts and parts[-1][0] == text:
            parts[-1][1].append(b)
        else:
            parts.append((text, [b]))
    if not parts:
        return f"{series}: no length bin could be judged."
    if len(parts) == 1 and len(parts[0][1]) > 1:
        if parts[0][0] == NONE_PROVEN:
            safe = [v for _, v in rows if v.detail.get("needed", {"claim": "safe"})["claim"] == "safe"]
            pairs = max((v.n_needed or 0 for v in safe), default=0)
            short = pairs > max(v.n for _, v in rows)
            need = f" (to prove one in each, up to about {plural(pairs, 'pair')} per bin are needed)" if short else ""
            return f"{series}: no budget is proven safe in any length bin{need}."
        where = "any" if parts[0][0].startswith("no ") else "every"
        return f"{series}: {parts[0][0]} in {where} length bin."
    told = [f"{text} at {bins[0].lo_tokens:,}–{bins[-1].hi_tokens:,} tokens" for text, bins in parts]
    return f"{series}: {', '.join(told)}."


def at_lengths(v: Verdict, rows: Sequence[tuple[Bin, Verdict]], unit: str) -> str:
    """How far the safe budget of the mean holds in each length bin: ` at every length`, or on average and where it
    is not proven. Empty where nothing is proven, or there is one length.

    Every length: an intersection of the bins' own claims, so it needs no adjustment; no bin's claim reaches further
    than its own order of tests.
    """
    known = [(b, one) for b, one in rows if one.n]
    if nothing_safe(v) or len(known) < 2:
        return ""
    behind: dict[str, list[str]] = {}
    for b, one in known:
        if nothing_safe(one) or not one.judges:
            behind.setdefault("at no budget", []).append(b.label)
        elif (one.safe_budget or 0.0) > (v.safe_budget or 0.0):
            behind.setdefault(f"only to {budget(one.safe_budget, unit)}", []).append(b.label)
    if not behind:
        return " at every length"
    if len(behind.get("at no budget", [])) == len(known):
        return " on average over lengths, at no single length"
    return " on average over lengths" + "".join(f", at {listed(labels)} tokens {how}" for how, labels in behind.items())


def safe_text(v: Verdict, unit: str) -> str:
    if not v.judges:
        return "no verdict"
    if v.n == 0:
        return "no examples"
    return NONE_PROVEN if nothing_safe(v) else f"safe to {budget(v.safe_budget, unit)}"


def failures_or_answers(
    series: str, level: float, d: Drop | None, stat: BinStat | None, unit: str, *, proven: bool
) -> str:
    """Whether the loss at one budget is wrong answers or failed requests; `proven`: that there is one."""
    at = budget(level, unit)
    if d is None or d.drop_mean is None or d.drop_failures is None or d.drop_answers is None or stat is None:
        return f"{series} at {at}: not known, because there is nothing to compare with."
    failed = f"{plural(stat.n_failures, 'failed request')} of {stat.n:,}"
    if not proven:
        return f"{series} at {at}: no loss is proven; {failed}."
    head = f"Of the loss of {number(d.drop_mean)} of {series} at {at},"
    if abs(d.drop_failures) < 0.005:
        return f"{head} all is wrong answers; none comes from failed requests ({failed})."
    if d.drop_failures < 0:
        return (
            f"{head} {number(d.drop_answers)} is wrong answers; failures were fewer than at full cache "
            f"({number(d.drop_failures)}; {failed})."
        )
    if abs(d.drop_answers) < 0.005:
        return f"{head} all comes from failed requests ({failed}), none from wrong answers."
    return f"{head} {number(d.drop_answers)} is wrong answers and {number(d.drop_failures)} failed requests ({failed})."


def evidence(rows: Sequence[Evidence], full: Evidence | None = None) -> str:
    """Was the budget applied? One sentence for one series; `full`: what is known of full cache.

    Levels that are compared with a full cache that isn't what it is called are not said to be verified, nor are those
    beside a level whose evidence is taken back.
    """
    if not rows:
        return "Evidence: none was evaluated."
    groups: dict[str, list[Evidence]] = {}
    for row in rows:
        groups.setdefault(row.status, []).append(row)
    if set(groups) == {Status.FULL}:
        return "Evidence: only full cache was run."
    parts = []
    if Status.CONTRADICTED in groups:
        bad = groups[Status.CONTRADICTED]
        shown = listed([f"{number(e.requested, 3)} asked, {number(e.effective_p50, 3)} applied" for e in bad[:4]])
        parts.append(f"CONTRADICTED on {plural(len(bad), 'level')}: {shown}")
    full_unverified = full is not None and full.status == Status.UNVERIFIED
    if full is not None and full_unverified and Status.VERIFIED in groups:
        parts.append(f"UNVERIFIED at full cache: {why_unverified([full])}")
    if Status.UNVERIFIED in groups:
        bad = groups[Status.UNVERIFIED]
        some = "every level" if set(groups) <= {Status.UNVERIFIED, Status.FULL} else plural(len(bad), "level")
        parts.append(f"UNVERIFIED on {some}: {why_unverified(bad)}")
    if Status.VERIFIED in groups:
        good = groups[Status.VERIFIED]
        n, off = sum(e.n for e in good), sum(e.n_off for e in good)
        sources = listed(sorted({e.source for e in good}))
        some = "every level" if set(groups) <= {Status.VERIFIED, Status.FULL} else plural(len(good), "level")
        unproven = groups.get(Status.UNVERIFIED)
        beside = full_unverified or (unproven is not None and why_unverified(unproven) != UNVERIFIED)
        applied = "the budget was applied as asked" if beside else "verified"
        parts.append(f"{applied} on {some} ({sources}): {off:,} of {n:,} responses off")
    return f"Evidence: {'; '.join(parts)}."


def why_unverified(rows: Sequence[Evidence]) -> str:
    """A label, or what takes the evidence of every row back."""
    by_row = [[words for part, words in _TAKEN_BACK.items() if part in row.reason] for row in rows]
    if not all(by_row):
        return UNVERIFIED
    return listed(list(dict.fromkeys(words for found in by_row for words in found)))


def partial(pending: int, requests: int) -> str:
    return (
        f"PARTIAL: {pending:,} of {plural(requests, 'request')} ({percent(pending / max(1, requests), 1)}) had no "
        "outcome when this was computed; every number below may still move."
    )


def series_compared(rows: Sequence[Comparison], alpha: float, unit: str) -> str:
    """The ranking of the series, neighbour against neighbour, at the budget where most pairs differ for certain.

    Among equals, the budget nearest the middle of those tested.
    """
    whole = [c for c in rows if c.bin_idx == -1 and c.diff_mean is not None]
    sure = [c for c in whole if c.p_holm is not None and c.p_holm < alpha]
    if not whole:
        return ""
    if not sure:
        return "No two series differ for certain at any budget (paired, Holm-adjusted)."
    tested = sorted({c.kv_budget for c in whole})
    middle = (len(tested) - 1) / 2
    at = max(tested, key=lambda b: (sum(c.kv_budget == b for c in sure), -abs(tested.index(b) - middle), b))
    here = {(c.series_a, c.series_b): c for c in whole if c.kv_budget == at}
    lead: dict[str, float] = {}
    for (a, b), c in here.items():
        lead[a] = lead.get(a, 0.0) + (c.diff_mean or 0.0)
        lead[b] = lead.get(b, 0.0) - (c.diff_mean or 0.0)
    ranking = sorted(lead, key=lambda s: (-lead[s], s))
    parts = []
    for upper, lower in pairwise(ranking):
        row = here.get((upper, lower)) or here.get((lower, upper))
        if row is None:
            continue
        up = row.series_a == upper
        ends = (row.diff_ci_low, row.diff_ci_high)
        low, high = ends if up else (_negative(ends[1]), _negative(ends[0]))
        diff = row.diff_mean if up else _negative(row.diff_mean)
        certain = "" if row in sure else ", not certain"
        parts.append(f"{upper} above {lower} by {interval(diff, low, high)}{certain}")
    return f"Series at {budget(at, unit)}: {'; '.join(parts)} (paired, Holm-adjusted)."


def _negative(value: float | None) -> float | None:
    return None if value is None else -value

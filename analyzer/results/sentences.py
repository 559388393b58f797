"""What persisted rows say of change, lengths, failures, evidence and series: a sentence a claim. Pure.

Every number comes with its uncertainty or its count. The verdict's own sentence is in verdict_sentence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from analyzer.results.length_bins import Bin, span_label
from analyzer.results.number_format import cache_kept, cache_share, count, interval, listed, number, percent, plural
from analyzer.results.series_names import series_name, series_names
from analyzer.results.verdict_sentence import NONE_PROVEN, safe_text
from analyzer.results.zones import BinZone, common_tokens
from analyzer.store.tables import BinStat, Drop, Evidence, Verdict
from kvt_async.contract.vocabulary import CanaryVerdict, SeriesVerdict, Unit, When
from kvt_async.contract.vocabulary import EvidenceStatus as Status

UNVERIFIED = "the budget is a label; nothing shows that the server applied it"
CONFIGURED = "the budget was only configured; nothing shows that the server applied it"
_TAKEN_BACK = {  # what a stored reason holds: what it is called
    "no evidence: the cache was compressed": "no evidence, the cache of hardly any answer was compressed",
    "says how often the cache was compressed": "replies don't say how often the cache was compressed",
    "say how often the cache was compressed": "replies don't say how often the cache was compressed",
    "read shorter than sent": "prompts were read shorter than sent",
    "the server became another one meanwhile": "the server became another one meanwhile",
    "levels were served by different servers": "levels were served by different servers",
}


def what_changed(
    series: str, full: BinStat | None, levels: Sequence[tuple[float, Drop]], unit: str, v: Verdict | None
) -> str:
    """First and last point of the curve, and the largest step between neighbours."""
    paired = [(b, d) for b, d in levels if d.acc_mean is not None]
    if full is None or full.acc_mean is None or not paired:
        why = "there are no paired answers at full cache and below it"
        return f"{series_name(series)}: nothing to compare, because {why}."
    low, last = paired[-1]
    start = interval(full.acc_mean, full.acc_ci_low, full.acc_ci_high)
    end = interval(last.acc_mean, last.acc_ci_low, last.acc_ci_high)
    loss = interval(last.drop_mean, last.drop_ci_low, last.drop_ci_high)
    moved = _moved(low, v)
    of_full = f", {percent(ratio(last.acc_mean, full.acc_mean))} of full cache's" if full.acc_mean else ""
    text = (
        f"Accuracy of {series_name(series)} {moved} from {start} at full cache to {end} with {cache_kept(low, unit)}"
        f"{of_full}: "
        f"a paired loss of {loss} over {plural(last.n, 'pair')}."
    )
    if v is not None and (lost := v.detail.get("lost_share", {}).get(str(float(low)))):
        share, least, most = lost
        at_least = percent(least, 1) if least is not None else "no bound"
        text += f" That is {percent(share, 1)} [{at_least}, {percent(most, 1)}] of what full cache scores."
    points = [(1.0, full.acc_mean), *((b, d.acc_mean or 0.0) for b, d in paired)]
    steps = [(a - b, x, y) for (x, a), (y, b) in pairwise(points)]
    size, x, y = max(steps)
    if len(steps) > 1 and size > 0 and moved == "falls":
        where = "full cache" if x == points[0][0] else cache_share(x, unit)
        text += f" The largest step between two means, {number(size)}, lies between {where} and {cache_share(y, unit)}."
    return text


def half_of_loss(v: Verdict | None, unit: str) -> str:
    """Where half of the loss has happened, and that this is no part of the zone; empty where it is not known."""
    if v is None or v.half_loss_budget is None:
        return ""
    in_words = percent if unit == Unit.FRACTION else count
    at, low, high = (in_words(end) for end in (v.half_loss_budget, v.half_loss_ci_low, v.half_loss_ci_high))
    of = {Unit.FRACTION: " of the cache kept", Unit.TOKENS: " tokens kept", Unit.BITS: " bits"}[Unit(unit)]
    return (
        f"Half of what the smallest budget loses is lost at {at} [{low}, {high}]{of}. That tells where the curve is "
        "steep, not where it is safe: it may lie outside of the transition zone."
    )


def ratio(value: float | None, full: float | None) -> float | None:
    """Accuracy relative to full cache; None where that is 0 or unknown."""
    return None if value is None or not full else value / full


def _moved(lowest: float, v: Verdict | None) -> str:
    """The verb for the smallest budget: what is proven of it at the level that the verdict's own claims spend. Where
    claims were taken back, the verb says how it looks, and no more."""
    if v is not None and v.verdict == SeriesVerdict.UNVERIFIED:
        return "goes, as measured,"
    if v is not None and v.loss is not None:
        return "falls"
    gains = v.detail.get("gains") if v is not None else None
    if v is not None and gains and gains["p"].get(str(float(lowest)), 1.0) <= v.detail.get("level", 0.0):
        return "rises"
    return "goes, within its uncertainty,"


def safe_by_length(series: str, rows: Sequence[tuple[Bin, Verdict]], unit: str) -> str:
    """The safe budget of each length bin in one sentence; neighbouring bins with the same one share a part of it."""
    parts: list[tuple[str, list[Bin]]] = []
    for b, v in rows:
        text = safe_text(v, unit)
        if parts and parts[-1][0] == text:
            parts[-1][1].append(b)
        else:
            parts.append((text, [b]))
    start = f"{series_name(series)}: " if series else ": "
    if not parts:
        return f"{series_name(series)}: no length bin could be judged."
    if len(parts) == 1 and len(parts[0][1]) > 1:
        if parts[0][0] == NONE_PROVEN:
            safe = [v for _, v in rows if v.detail.get("needed", {"claim": "safe"})["claim"] == "safe"]
            pairs = max((v.n_needed or 0 for v in safe), default=0)
            short = pairs > max(v.n for _, v in rows)
            need = f" (to prove one in each, up to about {plural(pairs, 'pair')} per bin are needed)" if short else ""
            return f"{start}no budget is proven safe in any length bin{need}."
        where = "any" if parts[0][0].startswith("no ") else "every"
        return f"{start}{parts[0][0]} in {where} length bin."
    ranges = [f"{text} at {span_label(bins)} tokens" for text, bins in parts]
    return f"{start}{', '.join(ranges)}."


@dataclass(frozen=True)
class Loss:
    """The loss of a series at one budget, `level`; `proven`: that there is one."""

    series: str
    level: float
    drop: Drop | None
    stat: BinStat | None
    proven: bool


def failures_or_answers(loss: Loss, unit: str) -> str:
    """Whether the loss at one budget is wrong answers or failed requests."""
    d, stat = loss.drop, loss.stat
    at = f"{series_name(loss.series)} with {cache_kept(loss.level, unit)}"
    if d is None or d.drop_mean is None or d.drop_failures is None or d.drop_answers is None or stat is None:
        return f"{at}: not known, because there is nothing to compare with."
    failed = f"{plural(stat.n_failures, 'failed request')} of {stat.n:,}"
    if not loss.proven:
        return f"{at}: no loss is proven; {failed}."
    head = f"Of the loss of {number(d.drop_mean)} of {at},"
    if (cut_off := d.drop_cut_off or 0.0) and abs(cut_off) >= 0.005:
        return f"{head} {_with_cut_off(d, cut_off, failed)}."
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


def _with_cut_off(d: Drop, cut_off: float, failed: str) -> str:
    """The parts of a loss where answers that were cut off have one."""
    wrong, failures = d.drop_wrong or 0.0, d.drop_failures or 0.0
    parts = [(wrong, "wrong answers")] if abs(wrong) >= 0.005 else []
    parts.append((cut_off, "answers cut off at their length"))
    if failures >= 0.005:
        parts.append((failures, f"failed requests ({failed})"))
    texts = [f"{number(part)} {'is ' if at == 0 else ''}{cause}" for at, (part, cause) in enumerate(parts)]
    text = listed(texts) if len(parts) > 1 else f"all is {parts[0][1]}"
    if failures <= -0.005:
        return f"{text}; failures were fewer than at full cache ({number(failures)}; {failed})"
    return text if failures >= 0.005 else f"{text}; none comes from failed requests ({failed})"


def failed_requests(stats: Sequence[BinStat]) -> str:
    """How many requests of all levels failed; empty where none has finished."""
    failed, n = sum(s.n_failures for s in stats), sum(s.n for s in stats)
    return f"Over all levels, {failed:,} of {plural(n, 'request')} failed ({percent(failed / n, 1)})." if n else ""


def canary(rows: Sequence[Mapping[str, Any]], *, overruled: bool) -> str:
    """What the canaries before the sweep showed, {verdict, judged_when} each; `overruled`: the sweep's own answers say
    otherwise."""
    meaning: dict[tuple[str, bool], str] = {
        (CanaryVerdict.ALIVE, False): "alive (a destructive budget changed the answers)",
        (CanaryVerdict.DEAD, False): "dead (a destructive budget changed nothing)",
        (CanaryVerdict.INCONCLUSIVE, False): "inconclusive (full cache did not repeat itself)",
        (CanaryVerdict.ALIVE, True): "alive while answers are generated (their budget changed them)",
        (CanaryVerdict.DEAD, True): "dead while answers are generated (nothing was evicted then)",
        (CanaryVerdict.INCONCLUSIVE, True): (
            "inconclusive while answers are generated (they were too short, or full cache did not repeat itself)"
        ),
    }
    seen = sorted({(row["verdict"], row.get("judged_when", When.PREFILL) != When.PREFILL) for row in rows})
    but = "; overruled by the sweep's own answers" if overruled else ""
    return f"Canary before the sweep: {', '.join(meaning.get(key, key[0]) for key in seen)}{but}."


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
        which = "every level" if set(groups) <= {Status.UNVERIFIED, Status.FULL} else plural(len(bad), "level")
        parts.append(f"UNVERIFIED on {which}: {why_unverified(bad)}")
    if Status.VERIFIED in groups:
        good = groups[Status.VERIFIED]
        n, off = sum(e.n for e in good), sum(e.n_off for e in good)
        sources = listed(sorted({e.source for e in good}))
        which = "every level" if set(groups) <= {Status.VERIFIED, Status.FULL} else plural(len(good), "level")
        unproven = groups.get(Status.UNVERIFIED)
        beside = full_unverified or (unproven is not None and why_unverified(unproven) != UNVERIFIED)
        applied = "the budget was applied as asked" if beside else "verified"
        parts.append(f"{applied} on {which} ({sources}): {off:,} of {n:,} responses off")
    if Status.CHANGED in groups:
        changed = groups[Status.CHANGED]
        shown = listed(list(dict.fromkeys(row.reason for row in changed[:4])))
        parts.append(f"verified as changed on {plural(len(changed), 'level')}: {shown}")
    return f"Evidence: {'; '.join(parts)}."


def why_unverified(rows: Sequence[Evidence]) -> str:
    """Why no row is verified: its budget is a label or was only configured, or something takes its evidence back."""
    by_row = [[words for part, words in _TAKEN_BACK.items() if part in row.reason] for row in rows]
    if not all(by_row):
        return CONFIGURED if all(row.source == "configured" for row in rows) else UNVERIFIED
    return listed(list(dict.fromkeys(text for row in by_row for text in row)))


def partial(pending: int, requests: int) -> str:
    return (
        f"PARTIAL: {pending:,} of {plural(requests, 'request')} ({percent(pending / max(1, requests), 1)}) had no "
        "outcome when this was computed; every number below may still move."
    )


def breaks_at_tokens(series: str, zones: Sequence[BinZone], constant: str | None) -> str:
    """One sentence where resampling found that the number of kept tokens decides, else none.

    constant: tokens | fraction | unclear; None: not asked. Safe budgets alone show nothing: of two bins that break at
    one ratio, the one with fewer examples is proven safe less far down.
    """
    if constant != Unit.TOKENS:
        return ""
    inside = common_tokens(zones)
    where = f"between about {count(inside[0])} and {count(inside[1])}" if inside else "at about the same number of"
    return (
        f"{series_name(series)}: every length bin breaks {where} kept tokens, so at a fixed ratio the short bins break "
        f"first{'' if inside else _safe_at_ends(zones)}: an absolute number decides and not a ratio (exploratory)."
    )


def _safe_at_ends(zones: Sequence[BinZone]) -> str:
    """Safe budgets at both ends, where the bins' zones have no count in common."""
    if not zones:
        return ""
    ends = (f"to {cache_share(z.safe_budget)} at {z.label} tokens" for z in (zones[0], zones[-1]))
    return f" (safe {', '.join(ends)})"


def breaks_at_ratio(series: Sequence[str]) -> str:
    """One sentence for the series whose length bins agree as ratios; empty for none."""
    if not series:
        return ""
    verb = "breaks" if len(series) == 1 else "break"
    return (
        f"{series_names(series)} {verb} at about the same ratio in every length bin: the ratio decides, not a number "
        "of tokens (exploratory)."
    )

"""Sentences on how sure a claim is: pairs that would settle it, chance of error, noise, floors, looks. Pure.

The figures are persisted ones: nothing is tested again here.
"""

from collections.abc import Sequence

from analyzer.results.number_format import cache_kept, cache_share, interval, listed, number, percent, plural
from analyzer.results.series_names import series_name, series_names
from analyzer.store.tables import Drop, Verdict
from kvt_async.contract.vocabulary import Role

ROLES: dict[str, str] = {Role.CONFIRMATORY: "confirmatory", Role.HOLM: "Holm-adjusted", Role.EXPLORATORY: "exploratory"}


def margin_in_score(size: float, kind: str, acc_full: float) -> float:
    """A margin in score units: a relative one is a share of what full cache scores."""
    return size * acc_full if kind == "relative" else size


def nothing_safe(v: Verdict) -> bool:
    """Whether no budget below full cache is proven safe; a safe budget of 1.0 means the same as none."""
    return v.safe_budget is None or v.safe_budget == 1.0


def needed(v: Verdict, unit: str, m: str) -> str:
    """`about 72 pairs, to prove that 0.5 loses less than 0.05`; empty where more pairs are not known to help."""
    pairs = v.n_needed or 0
    if pairs <= v.n:
        return ""
    what = v.detail.get("needed")
    if what is None:
        return f"about {plural(pairs, 'pair')}"
    verb = "loses less than" if what["claim"] == "safe" else "loses more than"
    return f"about {plural(pairs, 'pair')}, to prove that {cache_kept(what['budget'], unit)} {verb} {m}"


def needs(v: Verdict, unit: str, m: str) -> str:
    """The sentence that follows a verdict which more pairs would settle; empty where none would."""
    text = needed(v, unit, m)
    if not text:
        return ""
    pairs, _, aim = text.partition(", ")
    head = f" {aim[0].upper()}{aim[1:]}" if aim else " To tell"
    seen = v.detail.get("needed", {}).get("drop")
    if seen is None:
        return f"{head}, {pairs} are needed ({v.n:,} here)."
    over = "" if v.partial else f" over {plural(v.n, 'pair')}"  # a level may have more pairs than the least one has
    return f"{head}, {pairs} are needed if it loses what it lost here ({number(seen, 3)}{over})."


def chance(v: Verdict, alpha: float) -> float:
    """The chance that one claim of this row is wrong: its one-sided level, smaller where looks or series share it."""
    return float(v.detail.get("level", alpha / 2))


def promise(v: Verdict, alpha: float, n_bins: int, holm: list[str]) -> str:
    """Over how many pairs the headline verdict is made, how often it may be wrong, and which verdicts share that
    promise; `holm`: series that are adjusted among themselves."""
    level = level_text(chance(v, alpha))
    if v.role == Role.EXPLORATORY:  # one of several tasks
        return (
            f"{plural(v.n, 'pair')} per budget over {plural(n_bins, 'length bin')}; a wrong “safe” or a wrong “broken” "
            f"has a chance of at most {level} each. What this task says is exploratory beside the verdict over all "
            "tasks (unadjusted: one in many may be wrong)."
        )
    parts = [f"The overall verdict of {series_name(v.series)} is confirmatory"]
    if holm:
        parts.append(
            f"those of {series_names(holm)} are Holm-adjusted among themselves"
            if len(holm) > 1
            else f"that of {series_name(holm[0])} is Holm-adjusted"
        )
    if n_bins > 1:
        parts.append("single length bins are exploratory (unadjusted: one in many may be wrong)")
    return (
        f"{plural(v.n, 'pair')} per budget over {plural(n_bins, 'length bin')}; a wrong “safe” or a wrong “broken” has "
        f"a chance of at most {level} each. {'; '.join(parts)}."
    )


def notes(rows: Sequence[Verdict]) -> list[str]:
    """What limits a verdict (floors, ceilings, noise, looks, budgets that the server applied as one): each note once,
    with the series that it is about."""
    names: dict[str, list[str]] = {}
    for v in rows:
        for note in v.notes:
            names.setdefault(note, []).append(v.series)
    everyone = len({v.series for v in rows})
    lines = []
    for note, who in names.items():
        about = "" if len(who) == everyone else f" ({series_names(who)})"
        lines.append(f"{note[0].upper()}{note[1:]}{about}.")
    return lines


def spread(v: Verdict, unit: str, m: str) -> str:
    """How the zone would move with other examples, from the bootstrap's distribution; empty without one."""
    resampled = v.detail.get("spread")
    if not resampled:
        return ""
    shares = zip(resampled["budgets"], resampled["first_beyond"], strict=True)
    parts = [f"{cache_share(b, unit)} ({percent(share)})" for b, share in shares if share >= 0.005]
    start = (
        f"With other examples (bootstrap of {series_name(v.series)}; share of resamples in brackets), the loss would"
    )
    if resampled["never"] >= 0.005:
        never = f"nowhere ({percent(resampled['never'])})"
        if not parts:
            return f"{start} exceed {m} {never}."
        parts.append(never)
    return f"{start} first exceed {m} at {', '.join(parts)}." if parts else ""


def control(rows: Sequence[Drop]) -> str:
    """The server's own noise, as full cache against full cache shows it."""
    repeats = [d for d in rows if d.n]
    if not repeats:
        return "A/A control: not run, so the server's own noise is not known (kv.control_repeats)."
    parts = []
    for d in repeats:
        flips = (d.n_worse or 0) + (d.n_better or 0)
        drop = interval(d.drop_mean, d.drop_ci_low, d.drop_ci_high)
        parts.append(f"{flips:,} of {plural(d.n, 'answer')} changed score, mean difference {drop}")
    return f"A/A control (full cache run again): {'; again: '.join(parts)}."


def noise(levels: Sequence[tuple[float, Drop]], unit: str) -> str:
    """Names the budgets whose loss may be the server's own noise, by the A/A control; empty where there are none."""
    inside = [cache_share(b, unit) for b, d in levels if d.within_noise]
    if not inside:
        return ""
    verb, s = ("is", "") if len(inside) == 1 else ("are", "s")
    return f"The effect{s} at {listed(inside)} {verb} no larger than the noise of the A/A control."


def ceiling_or_floor(v: Verdict | None) -> str:
    """`ceiling`, `floor` or both, for a table; empty where neither limits the row."""
    limits = [n.split(":")[0] for n in v.notes if n.startswith(("ceiling", "floor"))] if v else []
    return ", ".join(limits)


def level_text(value: float) -> str:
    """A level as a percentage with as many digits as it needs: 2.5%, 0.625%."""
    return f"{number(100 * value, 3).rstrip('0').rstrip('.')}%"

"""Does quality break at a ratio or at an absolute number of kept tokens? A cautious sentence from persisted zones."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from analyzer.report.wording import budget, count, listed


@dataclass(frozen=True, slots=True)
class BinZone:
    """The zone of one length bin in kept tokens. None: open on that side."""

    label: str
    safe_budget: float | None
    safe_tokens: float | None
    broken_tokens: float | None


def cliff_range(zones: Sequence[BinZone]) -> tuple[float, float] | None:
    """Kept tokens that lie inside the zone of every bin whose zone is closed; None where no such count exists.

    Bins run from short to long. Needs two bins with a zone closed on both sides and a safe ratio that falls with
    length: otherwise nothing shows that the absolute number decides.
    """
    closed = _closed(zones)
    if len(closed) < 2 or not _ratio_falls(zones):
        return None
    low = max(z.broken_tokens or 0.0 for z in closed)
    high = min(z.safe_tokens or 0.0 for z in closed)
    contrary = [z for z in zones if z not in closed and z.safe_tokens is not None and z.safe_tokens < low]
    return None if low > high or contrary else (low, high)


def cliff(series: str, zones: Sequence[BinZone], constant: str | None = None) -> str:
    """One sentence, or none: only what the rows show.

    `constant` is what resampling found to stay the same over lengths: tokens | fraction | unclear; None: not asked.
    """
    if constant == "fraction":
        return ""  # told by same_ratio, for all such series together
    if len(_closed(zones)) < 2 or not _ratio_falls(zones):
        return ""
    first, last = zones[0], zones[-1]
    head = f"{series}: at a fixed ratio the short bins break first"
    inside = cliff_range(zones)
    if inside is None:
        return (
            f"{head} (safe to {budget(first.safe_budget)} at {first.label} tokens, to {budget(last.safe_budget)} at "
            f"{last.label})."
        )
    closed = _closed(zones)
    where = (
        "every bin" if len(closed) == len(zones) else f"every bin where it was reached ({len(closed)} of {len(zones)})"
    )
    decides = (
        "though resampling leaves open whether the number or the ratio decides"
        if constant == "unclear"
        else "so an absolute number decides and not a ratio (exploratory)"
    )
    return (
        f"{head}: the cliff lies between about {count(inside[0])} and {count(inside[1])} kept tokens in {where}, "
        f"{decides}."
    )


def same_ratio(series: Sequence[str]) -> str:
    """One sentence for the series whose half-loss points agree as ratios; empty for none."""
    if not series:
        return ""
    verb = "loses" if len(series) == 1 else "lose"
    return (
        f"{listed(list(series))} {verb} half at about the same ratio in every length bin where the loss is proven: the "
        "ratio decides, not a number of tokens (exploratory)."
    )


def _closed(zones: Sequence[BinZone]) -> list[BinZone]:
    return [z for z in zones if z.safe_tokens is not None and z.broken_tokens is not None]


def _ratio_falls(zones: Sequence[BinZone]) -> bool:
    ratios = [z.safe_budget for z in zones if z.safe_budget is not None]
    return all(a >= b for a, b in pairwise(ratios)) and ratios[0] > ratios[-1]

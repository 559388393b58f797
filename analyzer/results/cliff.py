"""Does quality break at a ratio or at an absolute number of kept tokens? A cautious sentence from persisted zones."""

from collections.abc import Sequence
from dataclasses import dataclass

from analyzer.results.number_format import budget, count, listed
from kvt_async.contract.vocabulary import Unit


@dataclass(frozen=True, slots=True)
class BinZone:
    """The zone of one length bin in kept tokens. None: open on that side."""

    label: str
    safe_budget: float | None
    safe_tokens: float | None
    broken_tokens: float | None


def cliff_range(zones: Sequence[BinZone]) -> tuple[float, float] | None:
    """Kept tokens that lie inside the zone of every bin whose zone is closed; None where no such count exists.

    Bins run from short to long. Needs two bins with a zone closed on both sides.
    """
    closed = _closed(zones)
    if len(closed) < 2:
        return None
    low = max(z.broken_tokens or 0.0 for z in closed)
    high = min(z.safe_tokens or 0.0 for z in closed)
    contrary = [z for z in zones if z not in closed and z.safe_tokens is not None and z.safe_tokens < low]
    return None if low > high or contrary else (low, high)


def cliff(series: str, zones: Sequence[BinZone], constant: str | None) -> str:
    """One sentence where resampling found that the number of kept tokens decides, else none.

    constant: tokens | fraction | unclear; None: not asked. Safe budgets alone show nothing: of two bins that break at
    one ratio, the one with fewer examples is proven safe less far down.
    """
    if constant != Unit.TOKENS:
        return ""
    inside = cliff_range(zones)
    where = f"between about {count(inside[0])} and {count(inside[1])}" if inside else "at about the same number of"
    return (
        f"{series}: every length bin breaks {where} kept tokens, so at a fixed ratio the short bins break first"
        f"{'' if inside else _safe(zones)}: an absolute number decides and not a ratio (exploratory)."
    )


def _safe(zones: Sequence[BinZone]) -> str:
    """Safe budgets at both ends, where the bins' zones have no count in common."""
    if not zones:
        return ""
    ends = (f"to {budget(z.safe_budget)} at {z.label} tokens" for z in (zones[0], zones[-1]))
    return f" (safe {', '.join(ends)})"


def same_ratio(series: Sequence[str]) -> str:
    """One sentence for the series whose length bins agree as ratios; empty for none."""
    if not series:
        return ""
    verb = "breaks" if len(series) == 1 else "break"
    return (
        f"{listed(list(series))} {verb} at about the same ratio in every length bin: the ratio decides, not a number "
        "of tokens (exploratory)."
    )


def _closed(zones: Sequence[BinZone]) -> list[BinZone]:
    return [z for z in zones if z.safe_tokens is not None and z.broken_tokens is not None]

"""Zones of the length bins in kept tokens, and what they have in common: read from persisted rows. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from analyzer.results.confidence import nothing_safe
from analyzer.results.results import Results
from analyzer.store.tables import BinStat
from kvt_async.contract.vocabulary import Unit


@dataclass(frozen=True, slots=True)
class BinZone:
    """The zone of one length bin in kept tokens. None: open on that side."""

    label: str
    safe_budget: float | None
    safe_tokens: float | None
    broken_tokens: float | None

    @property
    def closed(self) -> bool:
        return self.safe_tokens is not None and self.broken_tokens is not None


def bin_zones(results: Results, series: str) -> list[BinZone]:
    """Zones of the length bins in kept tokens, short to long; empty where budgets are no ratios."""
    levels = {run.kv_budget: run for run in results.levels(series)}
    zones = []
    for b in results.bins if results.unit == Unit.FRACTION else []:
        v = results.verdict(series, b.bin_idx)
        if v is None or v.n == 0 or not v.judges:
            continue
        safe = results.full if nothing_safe(v) else levels.get(v.safe_budget or 0.0)
        broken = levels.get(v.broken) if v.broken is not None else None
        zones.append(
            BinZone(
                b.label,
                1.0 if nothing_safe(v) else v.safe_budget,
                _kept(results.stat(safe, b.bin_idx)),
                _kept(results.stat(broken, b.bin_idx)),
            )
        )
    return zones


def _kept(stat: BinStat | None) -> float | None:
    return stat.kept_tokens_p50 if stat else None


def constant(results: Results, series: str) -> str | None:
    """What resampling says stays the same over lengths: tokens | fraction | unclear; None where it was not asked."""
    v = results.verdict(series)
    cliff = v.detail.get("cliff") if v else None
    return cliff["constant"] if cliff else None


def common_tokens(zones: Sequence[BinZone]) -> tuple[float, float] | None:
    """Kept tokens that lie inside the zone of every bin whose zone is closed; None where no such count exists.

    Bins run from short to long. Needs two bins with a zone closed on both sides.
    """
    closed = [z for z in zones if z.closed]
    if len(closed) < 2:
        return None
    low = max(z.broken_tokens or 0.0 for z in closed)
    high = min(z.safe_tokens or 0.0 for z in closed)
    contrary = [z for z in zones if not z.closed and z.safe_tokens is not None and z.safe_tokens < low]
    return None if low > high or contrary else (low, high)

"""How many more examples each bin gets once an analysis is finished (sampling.strategy: focus_transition).

Read with plain SQL from the derived tables: budgets that are neither proven safe nor proven beyond the margin over all
bins leave the zone open; examples go where they narrow the drop at those budgets most. Overall accuracy weighs bins
equally, so its error is the sum of s_b^2 / n_b (Neyman 1934), and the tests imagine one more context in the smallest
bin (docs/STATISTICS.md), so that bin is kept from lagging behind.
"""

import heapq
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.schema import connect_for_reading, missing_tables
from kvt_async.contract.vocabulary import SeriesVerdict

ALL_BINS = -1
_Z = 1.96
_FLOORS = 16  # how many minimum sizes are tried


@dataclass(frozen=True, slots=True)
class BinState:
    """One bin before it grows. `spread`: standard deviation of one example's drop; `available`: in the source."""

    n: int
    available: int
    spread: float


@dataclass(frozen=True, slots=True)
class OpenZone:
    """What the analysis of one manifest version left open; `spread` by bin_idx, at the open budgets."""

    open_budgets: tuple[float, ...]
    spread: Mapping[int, float]


def read_open_zone(
    db: Path, exp_group_id: str, version: int, sha256: str, n_in_bin: Mapping[int, int]
) -> OpenZone | None:
    """The newest generation's analysis, if it covers every entry of this manifest version; else None."""
    if not db.is_file():
        return None
    try:
        conn = connect_for_reading(db)
    except MissingPrerequisiteError:  # no schema yet: nothing was run
        return None
    try:
        if missing_tables(conn):
            return None
        conn.execute("BEGIN")
        if not _covers(conn, exp_group_id, version, sha256, n_in_bin):
            return None
        return _open_zone(conn, exp_group_id)
    finally:
        conn.close()


def spread_of(low: float, high: float, n: int) -> float:
    """Standard deviation of one example's drop that a 95% interval of the mean of n stands for."""
    return (high - low) / (2 * _Z) * math.sqrt(n)


def together(spreads: Sequence[float]) -> float:
    """One bin's spread over several open budgets: the root of the mean square."""
    return math.sqrt(sum(spread**2 for spread in spreads) / len(spreads))


def allot(bins: Mapping[int, BinState], total: int) -> dict[int, int]:
    """Share `total` new examples among bins so that the overall drop's interval gets narrowest; bins that get none
    are left out. At most what each bin still has; deterministic."""
    left = {b: max(0, state.available - state.n) for b, state in bins.items() if state.n or state.available}
    smallest = min((bins[b].n for b in left), default=0)
    highest = smallest + -(-total // max(1, len(left)))
    floors = sorted({smallest + (highest - smallest) * i // _FLOORS for i in range(_FLOORS + 1)})
    tried = [sizes for floor in floors if (sizes := _filled(bins, left, total, floor)) is not None]
    best = min(tried, key=lambda sizes: _half_width(bins, sizes), default={})
    return {b: best[b] - bins[b].n for b in sorted(best) if best[b] > bins[b].n}


def _covers(
    conn: sqlite3.Connection, exp_group_id: str, version: int, sha256: str, n_in_bin: Mapping[int, int]
) -> bool:
    """Whether full cache was analysed with every entry of this version: no other look is due before that."""
    rows = conn.execute(
        "SELECT b.bin_idx, b.n FROM runs u JOIN bin_stats b ON b.run_id = u.run_id "
        "JOIN manifests m ON m.dataset_id = u.dataset_id AND m.version = ? AND m.sha256 = ? "
        "WHERE u.exp_group_id = ? AND u.is_full AND u.repeat_idx = 0 AND b.bin_idx >= 0 "
        "AND u.generation = (SELECT max(generation) FROM runs WHERE exp_group_id = ?)",
        (version, sha256, exp_group_id, exp_group_id),
    ).fetchall()
    partial = conn.execute(
        "SELECT max(partial) FROM transition_summary WHERE exp_group_id = ? AND bin_idx = ? "
        "AND generation = (SELECT max(generation) FROM runs WHERE exp_group_id = ?)",
        (exp_group_id, ALL_BINS, exp_group_id),
    ).fetchone()[0]
    return partial == 0 and {b: n for b, n in rows if n} == {b: n for b, n in n_in_bin.items() if n}


def _open_zone(conn: sqlite3.Connection, exp_group_id: str) -> OpenZone:
    """Budgets below every one proven safe and above every one lost beyond the margin, over all bins, are open."""
    rows = conn.execute(
        "SELECT s.kv_budget, s.bin_idx, s.n, s.drop_ci_low, s.drop_ci_high FROM budget_stats s "
        "JOIN transition_summary t USING (exp_group_id, generation, series) "
        "WHERE s.exp_group_id = ? AND t.bin_idx = ? AND s.repeat_idx = 0 AND s.bin_idx >= 0 "
        "AND t.verdict IN (?, ?, ?) "
        "AND s.generation = (SELECT max(generation) FROM runs WHERE exp_group_id = s.exp_group_id) "
        "AND (t.safe_budget IS NULL OR s.kv_budget < t.safe_budget) "
        "AND (t.collapse_margin_budget IS NULL OR s.kv_budget > t.collapse_margin_budget)",
        (exp_group_id, ALL_BINS, *(verdict for verdict in SeriesVerdict if verdict.judges)),
    ).fetchall()
    seen: dict[int, list[float]] = {}
    for _, b, n, low, high in rows:
        has_interval = n > 0 and low is not None and high is not None
        seen.setdefault(b, []).append(spread_of(low, high, n) if has_interval else 1.0)
    budgets = tuple(sorted({row[0] for row in rows}, reverse=True))
    return OpenZone(budgets, {b: together(spreads) for b, spreads in seen.items()})


def _filled(bins: Mapping[int, BinState], left: Mapping[int, int], total: int, floor: int) -> dict[int, int] | None:
    """Sizes after raising every bin to `floor` (or to all it has), the rest by Neyman; None: costs more than total."""
    sizes = {b: bins[b].n + min(left[b], max(0, floor - bins[b].n)) for b in left}
    rest = total - sum(sizes[b] - bins[b].n for b in sizes)
    if rest < 0:
        return None
    heap = [(-_gain(bins[b].spread, sizes[b]), b) for b in sizes]
    heapq.heapify(heap)
    while rest and heap:
        _, b = heapq.heappop(heap)
        if sizes[b] - bins[b].n < left[b]:
            sizes[b], rest = sizes[b] + 1, rest - 1
            heapq.heappush(heap, (-_gain(bins[b].spread, sizes[b]), b))
    return sizes


def _gain(spread: float, n: int) -> float:
    """How much one more example takes off spread^2 / n."""
    return math.inf if n == 0 else spread**2 / (n * (n + 1))


def _half_width(bins: Mapping[int, BinState], sizes: Mapping[int, int]) -> float:
    """Half the width of the overall drop's interval, times the number of bins. The imagined context adds the end."""
    filled: Sequence[int] = [b for b, n in sizes.items() if n]
    if not filled:
        return math.inf
    noise = math.sqrt(sum(bins[b].spread ** 2 / sizes[b] for b in filled))
    return _Z * noise + 1 / min(sizes[b] for b in filled)

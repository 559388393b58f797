"""Series against series at the same budget, on the same examples."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from analyzer.stats.transition import Grid, pair


def comparisons(
    grid: Grid, levels: Mapping[str, Mapping[float, str]], bins: Sequence[int], *, alpha: float, looks: float = 1.0
) -> list[dict[str, Any]]:
    """`comparisons` rows (without keys of the group): every pair of series at every budget both ran, per bin and all.

    levels: series -> budget -> run_id. diff is accuracy of a minus accuracy of b. p is two-sided (twice the smaller
    one-sided p); p_holm is adjusted over all comparisons of the same bin, and `looks`-fold.
    """
    rows: list[dict[str, Any]] = []
    for bin_idx in bins:
        family: list[dict[str, Any]] = []
        for a, b in combinations(levels, 2):
            for budget in sorted(set(levels[a]) & set(levels[b]), reverse=True):
                units, difference = pair(grid, levels[a][budget], levels[b][budget], bin_idx)
                low, high = units.interval(alpha)
                p = min(1.0, 2 * min(units.p_drop_at_most(0.0), units.p_drop_at_least(0.0)))
                family.append(
                    {
                        "series_a": a,
                        "series_b": b,
                        "kv_budget": budget,
                        "bin_idx": bin_idx,
                        "n": len(difference),
                        "diff_mean": units.mean,
                        "diff_ci_low": low,
                        "diff_ci_high": high,
                        "p": p if len(difference) else None,
                    }
                )
        adjusted = holm([row["p"] if row["p"] is not None else 1.0 for row in family])
        for row, p_holm in zip(family, adjusted, strict=True):
            rows.append(row | {"p_holm": min(1.0, looks * p_holm) if row["p"] is not None else None})
    return rows


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted

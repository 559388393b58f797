"""Series against series at the same budget, and levels against constrained full -> the rows of comparisons."""

from dataclasses import replace
from itertools import combinations

from analyzer.stats.holm import holm_by_family
from analyzer.stats.transition import pair
from analyzer.store.tables import Comparison
from analyzer.summarise.group import Group
from kvt_async.contract.vocabulary import CONSTRAINED


def comparison_rows(group: Group) -> list[Comparison]:
    """Every pair of series at every budget that both ran, over all bins and in each.

    diff is accuracy of a minus accuracy of b. p is two-sided (twice the smaller one-sided p); p_holm is adjusted for
    the share of alpha that this look may spend, and in each bin over a family: the comparisons with the first series at
    all budgets, which is what was asked in advance; those with constrained full; or all others.
    """
    rows: list[Comparison] = []
    first = next(iter(group.series), None)
    for bin_idx in group.everywhere:
        pairs = [*_pairs(group, bin_idx), *_with_constrained(group, bin_idx)]
        p_values = [row.p if row.p is not None else 1.0 for row in pairs]
        families = [row.series_a if row.series_a in (first, CONSTRAINED) else None for row in pairs]
        for row, p_holm in zip(pairs, holm_by_family(p_values, families), strict=True):
            rows.append(row if row.p is None else replace(row, p_holm=min(1.0, 1 / group.look.share * p_holm)))
    return rows


def _pairs(group: Group, bin_idx: int) -> list[Comparison]:
    """All comparisons in one bin, not adjusted yet."""
    rows = []
    run_of = {name: {run.kv_budget: run.run_id for run in levels} for name, levels in group.series.items()}
    for a, b in combinations(run_of, 2):
        for budget in sorted(set(run_of[a]) & set(run_of[b]), reverse=True):
            rows.append(_row(group, bin_idx, (a, run_of[a][budget]), (b, run_of[b][budget]), budget))
    return rows


def _with_constrained(group: Group, bin_idx: int) -> list[Comparison]:
    """What each level loses against full cache under its other restrictions: the budget's part of a loss."""
    if group.constrained is None:
        return []
    one = (CONSTRAINED, group.constrained.run_id)
    return [
        _row(group, bin_idx, one, (name, run.run_id), run.kv_budget)
        for name, levels in group.series.items()
        for run in levels
    ]


def _row(group: Group, bin_idx: int, a: tuple[str, str], b: tuple[str, str], budget: float) -> Comparison:
    """Two (series, run_id), paired; not adjusted yet."""
    units, difference = pair(group.grid, a[1], b[1], bin_idx)
    low, high = units.interval(group.analysis.alpha)
    p = min(1.0, 2 * min(units.p_drop_at_most(0.0), units.p_drop_at_least(0.0)))
    return Comparison(
        series_a=a[0],
        series_b=b[0],
        kv_budget=budget,
        bin_idx=bin_idx,
        n=len(difference),
        diff_mean=units.mean,
        diff_ci_low=low,
        diff_ci_high=high,
        p=p if len(difference) else None,
        p_holm=None,
    )

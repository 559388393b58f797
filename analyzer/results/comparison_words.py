"""Series against series in words: at each budget, which difference is proven and which is not. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from analyzer.results.number_format import cache_kept, listed, number, signed
from analyzer.results.series_names import briefest_names
from analyzer.store.tables import Comparison

MOST_TOLD = 3  # comparisons among the series after the first that a sentence lists; more are counted
HOW = "Differences of accuracy are paired, and proven after Holm's adjustment."


def comparison_sentences(rows: Sequence[Comparison], first: str, alpha: float, unit: str) -> list[str]:
    """A line for each budget: which series differ for certain from the `first` one and which not, then the others among
    themselves. One line where nothing is proven anywhere; none without comparisons."""
    whole = [c for c in rows if c.bin_idx == -1 and c.diff_mean is not None]
    if not whole:
        return []
    if not any(_is_proven(c, alpha) for c in whole):
        return ["No two series differ for certain at any budget (paired, Holm-adjusted)."]
    names = briefest_names(list(dict.fromkeys(label for c in whole for label in (c.series_a, c.series_b))))
    lines = []
    for budget in sorted({c.kv_budget for c in whole}, reverse=True):
        here = [c for c in whole if c.kv_budget == budget]
        clauses = []
        if with_first := [c for c in here if c.series_a == first]:
            clauses.append(f"against {names[first]}, {_by_proof(with_first, partial(_against, names), alpha)}")
        if among := [c for c in here if c.series_a != first]:
            counted = f"{sum(_is_proven(c, alpha) for c in among)} of {len(among)} differences are proven (table below)"
            told = _by_proof(among, partial(_in_order, names), alpha) if len(among) <= MOST_TOLD else counted
            clauses.append(f"among the others, {told}")
        lines.append(f"With {cache_kept(budget, unit)}: {'; '.join(clauses)}.")
    return [*lines[:-1], f"{lines[-1]} {HOW}"]


def _is_proven(c: Comparison, alpha: float) -> bool:
    return c.p_holm is not None and c.p_holm < alpha


def _by_proof(rows: Sequence[Comparison], words: Callable[[Comparison], str], alpha: float) -> str:
    """What is proven, then what is not."""
    proven = [c for c in rows if _is_proven(c, alpha)]
    parts = (("proven", proven), ("not proven", [c for c in rows if c not in proven]))
    return ", ".join(f"{word}: {listed([words(c) for c in some])}" for word, some in parts if some)


def _against(names: Mapping[str, str], c: Comparison) -> str:
    """`TOVA −0.10 [−0.27, 0.07]`: accuracy of the other series minus the first one's."""
    turned = _turned(c)
    return f"{names[c.series_b]} {signed(turned.diff_mean)} {_ends(turned)}"


def _in_order(names: Mapping[str, str], c: Comparison) -> str:
    """`TOVA above StreamingLLM by 0.43 [0.23, 0.59]`: the better series first."""
    best_first = c if (c.diff_mean or 0.0) >= 0 else _turned(c)
    size = f"{number(best_first.diff_mean)} {_ends(best_first)}"
    return f"{names[best_first.series_a]} above {names[best_first.series_b]} by {size}"


def _turned(c: Comparison) -> Comparison:
    """The same with its sides changed."""
    mean, low, high = (None if value is None else -value for value in (c.diff_mean, c.diff_ci_high, c.diff_ci_low))
    return replace(c, series_a=c.series_b, series_b=c.series_a, diff_mean=mean, diff_ci_low=low, diff_ci_high=high)


def _ends(c: Comparison) -> str:
    return f"[{number(c.diff_ci_low)}, {number(c.diff_ci_high)}]"

"""What full cache loses under the levels' other restrictions, and which part of a loss is then the budget's. Pure."""

import json

from analyzer.results.number_format import cache_share, interval, listed, plural
from analyzer.results.results import Results
from kvt_async.contract.vocabulary import CONSTRAINED


def constrained_sentence(results: Results) -> str:
    """What the restrictions alone cost, and what each level of the first series loses beyond that; empty without
    constrained full, or without a pair."""
    run = results.constrained
    drop = results.drop(run) if run else None
    if run is None or drop is None or not drop.n:
        return ""
    alone = interval(drop.drop_mean, drop.drop_ci_low, drop.drop_ci_high)
    head = f"The other restrictions alone{_named(run.kv_params_json, results)} cost {alone} ({plural(drop.n, 'pair')})"
    levels = results.judged_levels(results.series[0]) if results.series else []
    beyond = [
        f"{interval(c.diff_mean, c.diff_ci_low, c.diff_ci_high)} at {cache_share(level.kv_budget, level.kv_unit)}"
        for level in levels
        if (c := results.against_constrained(level)) is not None and c.n
    ]
    if not beyond:
        return f"{head}."
    return (
        f"{head}; against {CONSTRAINED} the budget costs {listed(beyond)} (exploratory: the verdict is against full "
        "cache itself)."
    )


def _named(params: str, results: Results) -> str:
    """Parameters that full cache has otherwise, as ` (enable_prefix_caching=false)`; empty where none is named."""
    of_full = json.loads(results.full.kv_params_json) if results.full else {}
    other = {name: value for name, value in json.loads(params).items() if of_full.get(name) != value}
    return f" ({listed([f'{name}={_plain(value)}' for name, value in other.items()])})" if other else ""


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)

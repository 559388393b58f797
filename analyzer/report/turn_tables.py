"""Conversations in the report: accuracy turn by turn, and what was reused. Pure."""

from analyzer.report.report_tables import level_name
from analyzer.results.number_format import count, number, percent, plural
from analyzer.results.results import Results
from analyzer.results.text_table import Table, table
from analyzer.results.turns import later_cache_state
from kvt_async.contract.cache_state import cache_state
from kvt_async.contract.vocabulary import CacheState

HISTORIES = {
    "golden": "golden: the data's own earlier answers",
    "own": "own: what the same level answered, without reasoning; behind a failed turn the later ones fail unsent",
}
REUSES = {
    "none": "none: turns were sent like any other request",
    "turns": "turns: one conversation's turns in order, to one endpoint",
}


def by_turn(results: Results) -> Table:
    """A row for each level and turn."""
    names = {run.run_id: level_name(run) for run in results.runs}
    rows = [
        {
            "Level": names[row.run_id],
            "Turn": str(row.turn_idx),
            "Finished": count(row.n),
            "Failed": count(row.n_failed),
            "Accuracy": number(row.acc_mean),
            "Cache": str(cache_state(row.cached_share)),
            "Cached share": percent(row.cached_share),
        }
        for row in results.turns
    ]
    note = (
        "Turn 0 is the first. Accuracy: mean over the turn's answers, not weighted by length; exploratory. Cached "
        "share: prompt tokens that came out of the server's prefix cache, as it reports them."
    )
    return table(rows, text_columns=1, note=note, folded=f"All {len(rows)} rows, turn by turn" if rows else "")


def workload(results: Results) -> list[tuple[str, str]]:
    """How the turns of conversations were sent; nothing where the data have none."""
    if not results.turns:
        return []
    contract = results.contract
    return [
        ("history of later turns", HISTORIES[contract.get("workload.history", "golden")]),
        ("reuse between turns", REUSES[contract.get("workload.reuse", "none")]),
    ]


def reuse_caveats(results: Results) -> list[str]:
    """What limits figures of `workload.reuse: turns`: levels are comparable within one state of the cache alone."""
    if not results.turns or results.contract.get("workload.reuse") != "turns":
        return []
    states = {level_name(run): later_cache_state(results.turns, run.run_id) for run in results.runs}
    lines = []
    if set(states.values()) == {CacheState.UNKNOWN}:
        lines.append(
            "Reuse between turns: the server reports no cached tokens, so it can't be told whether any took place."
        )
    elif len(set(states.values())) > 1:
        named = "; ".join(f"{name}: {state}" for name, state in states.items())
        lines.append(
            f"Reuse between turns differs ({named}): a loss between levels whose later turns met different cache "
            "states is not the budget's alone."
        )
    elif set(states.values()) == {CacheState.COLD}:
        lines.append(
            "Reuse between turns: none took place (all later turns were prefilled), so nothing is shown of it."
        )
    if results.n_moved:
        lines.append(
            f"{plural(results.n_moved, 'conversation')} went on at another endpoint after the first could not be "
            "reached: what that one kept of them was of no use."
        )
    return lines

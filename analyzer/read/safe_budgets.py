"""The safe budget of each series of a group, as the last analysis stored it."""

import sqlite3

from kvt_async.contract.vocabulary import Role

_OF_GROUP = "WHERE exp_group_id = ? AND generation = ?"
_OF_SUITE = f"SELECT series, suite_safe FROM suite_summary {_OF_GROUP}"
# 1.0: full cache alone, which means the same as none
_OF_TASK = f"SELECT series, nullif(safe_budget, 1.0) FROM transition_summary {_OF_GROUP} AND bin_idx = -1 AND role != ?"


def safe_budgets(conn: sqlite3.Connection, key: tuple[str, int], *, several: bool) -> dict[str, float | None]:
    """By series; None: no budget below full cache is proven safe. A series that is not analysed is left out.

    `key`: group and generation. `several`: it has several tasks, and the budget is the one that is safe over them all;
    else it is the only task's, all lengths together.
    """
    rows = conn.execute(_OF_SUITE, key) if several else conn.execute(_OF_TASK, (*key, Role.EXPLORATORY))
    return dict(rows.fetchall())

"""Facts of requests that lie in databases beside a group's: which tables, and how to read them together."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kvt_async.contract.schema import views_of_today
from kvt_async.contract.shards.attached import attach

KEYS: Final = {
    "requests": ("request_id",),
    "bench_arrivals": ("request_id",),
    "bench_requests": ("request_id",),
    "attempts": ("request_id", "attempt_idx"),
    "responses": ("request_id",),
    "telemetry": ("request_id", "attempt_idx"),
    "give_ups": ("request_id", "series_idx"),
}
"""Tables of what a request brings, parents before children, with the key of each."""
MOST: Final = 10  # databases that SQLite attaches to one connection


def read_together(conn: sqlite3.Connection, beside: Sequence[Path]) -> None:
    """Let a connection read these databases' facts as the group's own, by TEMP views of the tables' names. One whose
    tables are still being made has none."""
    names = []
    for name, db in ((f"beside_{n}", db) for n, db in enumerate(beside)):
        attach(conn, name, db)
        if conn.execute(f"SELECT count(*) FROM {name}.sqlite_master WHERE name = 'telemetry'").fetchone()[0]:
            names.append(name)
    for table, key in KEYS.items():
        same = " AND ".join(f"mine.{column} = theirs.{column}" for column in key)
        others = [
            f"SELECT * FROM {name}.{table} theirs WHERE NOT EXISTS (SELECT 1 FROM main.{table} mine WHERE {same})"
            for name in names
        ]
        conn.execute(f"CREATE TEMP VIEW {table} AS {' UNION ALL '.join([f'SELECT * FROM main.{table}', *others])}")
    views_of_today(conn, anew=True)

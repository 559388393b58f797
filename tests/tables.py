"""Rows written by the names of their columns: a column that comes or moves breaks no test that does not need it."""

import sqlite3
from collections.abc import Iterable
from typing import Any


def insert(conn: sqlite3.Connection, table: str, **row: Any) -> None:
    """One row; columns that are not named keep their defaults."""
    insert_many(conn, table, [row])


def insert_many(conn: sqlite3.Connection, table: str, rows: Iterable[dict[str, Any]]) -> None:
    """Rows that all name the same columns, in the same order; none is fine."""
    written = list(rows)
    if not written:
        return
    columns = ", ".join(f'"{name}"' for name in written[0])
    marks = ", ".join("?" * len(written[0]))
    conn.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", [tuple(row.values()) for row in written])

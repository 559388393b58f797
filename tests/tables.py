"""Rows written by the names of their columns: a column that comes or moves breaks no test that does not need it."""

import sqlite3
from collections.abc import Iterable
from typing import Any

_SESSION = {
    "generation": 1,
    "command": "kvt sweep",
    "config_yaml": "a: 1\n",
    "config_sha256": "e" * 64,
    "kvt_version": "0.1.0",
    "python": "3.11",
    "platform": "Linux",
    "engine_loop": "truth",
}
_RUN = {
    "generation": 1,
    "model_name": "m",
    "base_url": "http://h/v1",
    "engine_name": "kvt-reference",
    "kv_policy": "full",
    "kv_budget": 1.0,
    "kv_unit": "fraction",
    "kv_mode": "question_aware",
    "kv_when": "prefill",
    "is_full": 1,
    "kv_apply": "none",
    "kv_params_json": "{}",
    "apply_json": "{}",
    "repeat_idx": 0,
    "prompt_template_version": "p" * 64,
    "decoding_json": "{}",
}

_OF_EVERY_ROW: dict[str, dict[str, Any]] = {"requests": {"sample_idx": 0, "turn_idx": 0}}
_NUMBERED = ("server_snapshots", "probes", "server_samples")


def insert_session(conn: sqlite3.Connection, **row: Any) -> None:
    """A session; what is not named is that of any sweep."""
    insert(conn, "sessions", **(_SESSION | row))


def insert_run(conn: sqlite3.Connection, **row: Any) -> None:
    """A run; what is not named is that of full cache."""
    insert(conn, "runs", **(_RUN | row))


def insert(conn: sqlite3.Connection, table: str, **row: Any) -> None:
    """One row; columns that are not named keep their defaults. Rows that a session numbers get the next number."""
    if table in _NUMBERED:
        row = {"n": conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0], **row}
    insert_many(conn, table, [row])


def insert_many(conn: sqlite3.Connection, table: str, rows: Iterable[dict[str, Any]]) -> None:
    """Rows that all name the same columns, in the same order; none is fine."""
    written = [_OF_EVERY_ROW.get(table, {}) | row for row in rows]
    if not written:
        return
    columns = ", ".join(f'"{name}"' for name in written[0])
    marks = ", ".join("?" * len(written[0]))
    conn.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", [tuple(row.values()) for row in written])

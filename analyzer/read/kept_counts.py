"""Counts and sums over facts that were kept in analysis_state: while the facts are the same, nobody counts again.

Facts are append-only, so the last rowid of each table tells whether any was added since. What is kept is believed only
where the guards of these tables stand; `kvt verify` does not read it.
"""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from analyzer.read.group_connection import GroupConnection

COUNTS, VOLUMES = "counts", "volumes"  # stages of analysis_state
_VERSION = 1  # raise it when what is counted changes
_TABLES = {
    COUNTS: (
        "runs",
        "task_contracts",
        "sample_plans",
        "manifest_entries",
        "requests",
        "try_series",
        "attempts",
        "responses",
        "give_ups",
    ),
    VOLUMES: ("sessions", "attempts", "telemetry"),
}
_SCORE_GUARDS = ("scores_changed", "scores_removed")


def facts_mark(conn: sqlite3.Connection, stage: str) -> str | None:
    """What the counts of a stage were made from; None where that can't be told: no table of today, or no guard."""
    if isinstance(conn, GroupConnection):
        marks = [facts_mark(part, stage) for part in conn.parts]
        left_out = [len(member.without) for member in conn.members]
        return None if None in marks else hashlib.sha256(json.dumps([marks, left_out]).encode()).hexdigest()
    tables = _TABLES[stage]
    if not _has_triggers(conn, [f"{table}_no_{verb}" for table in tables for verb in ("update", "delete", "replace")]):
        return None
    last = [conn.execute(f"SELECT max(rowid) FROM main.{table}").fetchone()[0] for table in tables]
    return hashlib.sha256(json.dumps([_VERSION, last]).encode()).hexdigest()


def read_kept(conn: sqlite3.Connection, exp_group_id: str, generation: int, stage: str) -> dict[str, Any] | None:
    """What was kept of these facts; None: nothing, or of others."""
    mark = facts_mark(conn, stage)
    row = conn.execute(
        "SELECT detail_json FROM analysis_state WHERE exp_group_id = ? AND generation = ? AND stage = ? "
        "AND scope = '*' AND fingerprint = ?",
        (exp_group_id, generation, stage, mark),
    ).fetchone()
    if row is None:
        return None
    kept: dict[str, Any] = json.loads(row[0])
    return kept


def scores_written(conn: sqlite3.Connection, exp_group_id: str, generation: int) -> dict[str, int]:
    """How many scores each run has, by the records that vouch for them; a run without one is missing."""
    if not _has_triggers(conn, _SCORE_GUARDS):
        return {}
    rows = conn.execute(
        "SELECT scope, json_extract(detail_json, '$.rows') FROM analysis_state "
        "WHERE exp_group_id = ? AND generation = ? AND stage = 'score'",
        (exp_group_id, generation),
    )
    return {run_id: int(n) for run_id, n in rows if n is not None}


def _has_triggers(conn: sqlite3.Connection, names: Sequence[str]) -> bool:
    marks = ", ".join("?" * len(names))
    sql = f"SELECT count(*) FROM main.sqlite_master WHERE type = 'trigger' AND name IN ({marks})"
    return bool(conn.execute(sql, names).fetchone()[0] == len(names))

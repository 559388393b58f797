"""Databases as earlier versions of kvt left them: their own schema, and the facts of a database of today."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import orjson

from kvt_async.contract.ownership import APPLICATION_ID
from kvt_async.contract.schema_tables import DERIVED_TABLES, FACT_TABLES, SINCE

SCHEMA_2 = Path(__file__).parent / "contract/golden/schema_2.sql"  # of the last kvt that wrote it, without its comments


def made_older(db: Path, older: Path, version: int = 2) -> Path:
    """Write the facts of `db` to `older` as a kvt of schema `version` had them, and return it. Groups of several tasks
    or several answers have no such form."""
    older.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(older, isolation_level=None)) as conn:
        conn.executescript(SCHEMA_2.read_text(encoding="utf-8"))
        for table in [*FACT_TABLES, *DERIVED_TABLES]:
            if version < SINCE.get(table, 0) <= 2:
                conn.execute(f"DROP TABLE {table}")
        conn.execute("ATTACH ? AS today", (str(db),))
        for table in FACT_TABLES:
            names = ", ".join(
                f'"{name}"' for name in _columns(conn, "main", table) if name in _columns(conn, "today", table)
            )
            if names:
                conn.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM today.{table} ORDER BY rowid")
        _join_contracts(conn)
        conn.executescript(f"PRAGMA user_version={version}; PRAGMA application_id={APPLICATION_ID};")
        conn.execute("PRAGMA journal_mode=WAL")
    return older


def rows_of(db: Path, table: str) -> list[str]:
    """Every row of a table, in an order that does not depend on who wrote it."""
    with closing(sqlite3.connect(db)) as conn:
        names = ", ".join(f'"{name}"' for name in sorted(_columns(conn, "main", table)))
        return sorted(map(repr, conn.execute(f"SELECT {names} FROM {table}")))


def _columns(conn: sqlite3.Connection, schema: str, table: str) -> list[str]:
    return [row[1] for row in conn.execute(f"PRAGMA {schema}.table_info({table})")]


def _join_contracts(conn: sqlite3.Connection) -> None:
    """A group's contract held its task's, too."""
    rows = conn.execute(
        "SELECT x.rowid, x.contract_json, t.contract_json FROM today.experiments x JOIN today.task_contracts t "
        "ON t.exp_group_id = x.exp_group_id AND t.generation = x.generation"
    ).fetchall()
    for rowid, shared, own in rows:
        text = orjson.dumps(orjson.loads(shared) | orjson.loads(own), option=orjson.OPT_SORT_KEYS).decode()
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        conn.execute(
            "UPDATE experiments SET contract_json = ?, contract_sha256 = ? WHERE rowid = ?", (text, sha256, rowid)
        )

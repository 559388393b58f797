"""The facts of an older database, copied into one of today's schema and compared with what they came from.

Both are open in one connection: `main` is the new one, `older` the old one. Rows go from table to table within SQLite,
so memory does not grow with them.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson

from kvt_async.contract.local_faults import damaged
from kvt_async.contract.older_schemas import lacks_columns, rows_of_today
from kvt_async.contract.schema import create
from kvt_async.contract.schema_tables import FACT_TABLES, columns_of
from kvt_async.records import Json

SHARED = ("model.name", "tokenizer.name", "tokenizer.sha256")
"""Keys of a group's contract that hold for all its tasks; the others are those of the one task that it had."""

_CONTRACTS = ("experiments", "task_contracts")  # not copied: a contract is split into both


def copied_facts(older: Path, new: Path) -> dict[str, int]:
    """Make the database `new`, which must not exist, of the facts in `older`. Returns the number of rows by table.

    Every row of `new` was compared with `older`. Raises StoreError where they differ, since then the old one is
    damaged; sqlite3.Error.
    """
    with closing(sqlite3.connect(new.absolute().as_uri(), uri=True, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode=OFF")  # nobody knows this file yet: a half one is thrown away
        conn.execute("PRAGMA synchronous=OFF")
        conn.execute("PRAGMA foreign_keys=OFF")  # looked at below, once for all rows
        create(conn)
        conn.execute("ATTACH ? AS older", (f"{older.absolute().as_uri()}?mode=ro",))
        conn.execute("BEGIN")
        copied = [table for table in FACT_TABLES if table not in _CONTRACTS and _is_older(conn, table)]
        for table in copied:
            conn.execute(f"INSERT INTO main.{table} {_rows(conn, table)}")
        _split_contracts(conn)
        conn.execute("COMMIT")
        if different := [*_broken(conn), *(table for table in copied if _differ(conn, table)), *_other_contracts(conn)]:
            raise damaged(older, different, "its rows can't be copied as they are")
        conn.execute("PRAGMA main.journal_mode=WAL")  # kept in the file: every database of kvt has a log
        return {table: _count(conn, f"main.{table}") for table in FACT_TABLES}


def _is_older(conn: sqlite3.Connection, table: str) -> bool:
    """Whether the older database has this table."""
    query = "SELECT 1 FROM older.sqlite_master WHERE type = 'table' AND name = ?"
    return conn.execute(query, (table,)).fetchone() is not None


def _rows(conn: sqlite3.Connection, table: str) -> str:
    """A SELECT of the older rows as they are to stand in the new table, in the order in which they were written."""
    rows = rows_of_today(conn, table, "older")
    if not (lacks_columns(conn, table, "older") and "n" in columns_of(table)):
        return f"{rows} ORDER BY rowid"
    numbered = "row_number() OVER (PARTITION BY session_id ORDER BY n) - 1 AS n"
    names = ", ".join(numbered if name == "n" else name for name in columns_of(table))
    return f"SELECT {names} FROM ({rows}) AS r ORDER BY r.n"


def _split_contracts(conn: sqlite3.Connection) -> None:
    """Give the task of each generation its part of the contract. A bench has no task, and keeps its contract whole."""
    experiments = "SELECT exp_group_id, generation, created_at, contract_json, contract_sha256 FROM older.experiments"
    tasks = {row[:2]: row for row in conn.execute(rows_of_today(conn, "task_contracts", "older")).fetchall()}
    for group, generation, created_at, text, sha256 in conn.execute(f"{experiments} ORDER BY rowid").fetchall():
        shared, own = _parts(orjson.loads(text))
        is_split = (group, generation) in tasks
        contract = _contract(shared) if is_split else (text, sha256)
        conn.execute("INSERT INTO main.experiments VALUES (?,?,?,?,?)", (group, generation, created_at, *contract))
        if is_split:
            _, _, task, dataset_id, *_ = tasks[group, generation]
            row = (group, generation, task, dataset_id, *_contract(own), 1, created_at)
            conn.execute("INSERT INTO main.task_contracts VALUES (?,?,?,?,?,?,?,?)", row)


def _parts(contract: Json) -> tuple[Json, Json]:
    """What all tasks share, and what is the task's own."""
    shared = {key: value for key, value in contract.items() if key in SHARED}
    return shared, {key: value for key, value in contract.items() if key not in SHARED}


def _contract(part: Json) -> tuple[str, str]:
    """Its text as it is stored, and the text's hash."""
    text = orjson.dumps(part, option=orjson.OPT_SORT_KEYS).decode()
    return text, hashlib.sha256(text.encode()).hexdigest()


def _broken(conn: sqlite3.Connection) -> Iterator[str]:
    """Tables with rows that refer to nothing, and what SQLite finds wrong."""
    yield from sorted({row[0] for row in conn.execute("PRAGMA main.foreign_key_check")})
    (verdict,) = conn.execute("PRAGMA main.integrity_check(1)").fetchone()
    if verdict != "ok":
        yield verdict


def _differ(conn: sqlite3.Connection, table: str) -> bool:
    """Whether an older row is not in the new table with equal values, or the new one has more rows."""
    info = conn.execute(f"PRAGMA main.table_info({table})").fetchall()
    keys = " AND ".join(f'n."{row[1]}" = o."{row[1]}"' for row in info if row[5])
    unequal = " OR ".join(f'n."{row[1]}" IS NOT o."{row[1]}"' for row in info)
    rows = f"({_rows(conn, table)}) AS o LEFT JOIN main.{table} AS n ON {keys}"
    has_as_many = _count(conn, f"main.{table}") == _count(conn, f"older.{table}")
    return not has_as_many or conn.execute(f"SELECT 1 FROM {rows} WHERE {unequal} LIMIT 1").fetchone() is not None


def _other_contracts(conn: sqlite3.Connection) -> Iterator[str]:
    """'experiments' where the two parts of a contract are not what it was."""
    joined = """SELECT o.contract_json, n.contract_json, ifnull(t.contract_json, '{}') FROM older.experiments o
        LEFT JOIN main.experiments n ON n.exp_group_id = o.exp_group_id AND n.generation = o.generation
        LEFT JOIN main.task_contracts t ON t.exp_group_id = o.exp_group_id AND t.generation = o.generation"""
    rows = conn.execute(joined).fetchall()
    if any(new is None or orjson.loads(old) != orjson.loads(new) | orjson.loads(own) for old, new, own in rows):
        yield "experiments"


def _count(conn: sqlite3.Connection, table: str) -> int:
    return int(conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

"""Databases of earlier schema versions, read as if they were of today's: what has come since then has a value there."""

import sqlite3
from pathlib import Path

from kvt_async.contract.schema_tables import DERIVED_TABLES, FACT_TABLES, columns_of, table_sql
from kvt_async.contract.waiting import transaction

_NUMBERED = ("server_snapshots", "probes", "server_samples")  # had one sequence over all sessions
_OF_BEFORE = {  # what a column that came later is in every row of before; of all others nothing is known
    ("runs", "kv_when"): "'prefill'",
    ("requests", "sample_idx"): "0",
    ("requests", "turn_idx"): "0",
    **{(table, "n"): "rowid" for table in _NUMBERED},
}
_ITS_DATASET = """(SELECT min(u.dataset_id) FROM {schema}.runs u WHERE u.exp_group_id = {table}.exp_group_id
    AND u.generation = {table}.generation)"""  # of a derived row: a generation had one
# A generation of a sweep had one task, and its contract was the group's; a bench has no task. Where no run was made
# yet, the contract names the data set, which a later generation may hold under a name of its own.
_ONE_TASK = """SELECT x.exp_group_id, x.generation, d.task, d.dataset_id, x.contract_json, x.contract_sha256, 1 AS look,
    x.created_at FROM {schema}.experiments x JOIN {schema}.datasets d ON d.dataset_id = coalesce(
        (SELECT min(u.dataset_id) FROM {schema}.runs u WHERE u.exp_group_id = x.exp_group_id
         AND u.generation = x.generation),
        (SELECT max(v.dataset_id) FROM {schema}.datasets v WHERE v.dataset_id IN (
            json_extract(x.contract_json, '$."dataset.id"'),
            json_extract(x.contract_json, '$."dataset.id"') || '__g' || x.generation)))
    WHERE json_type(x.contract_json, '$."bench.workload"') IS NULL"""


def as_today(conn: sqlite3.Connection, *, write_derived: bool) -> None:
    """Let this connection read an older schema as today's: a TEMP view stands before each table that lacks columns.

    Derived tables of an older shape hold nothing that this kvt could use: with `write_derived` they are made anew, and
    what was recorded about them goes.
    """
    older = [table for table in (*FACT_TABLES, *DERIVED_TABLES) if lacks_columns(conn, table)]
    if write_derived and any(table in DERIVED_TABLES for table in older):
        with transaction(conn, Path(conn.execute("PRAGMA database_list").fetchone()[2])):
            for table in DERIVED_TABLES:
                if lacks_columns(conn, table):  # still: another process may have been here first
                    conn.execute(f"DROP TABLE IF EXISTS main.{table}")
                    conn.execute(f"CREATE TABLE main.{table_sql(table)}")
                    conn.execute("DELETE FROM main.analysis_state WHERE stage <> 'score'")
    for table in older:
        if table in FACT_TABLES or not write_derived:
            conn.execute(f"CREATE TEMP VIEW {table} AS {rows_of_today(conn, table)}")


def lacks_columns(conn: sqlite3.Connection, table: str, schema: str = "main") -> bool:
    """Whether a table has fewer columns than today, or isn't there at all."""
    return not set(columns_of(table)) <= _stored(conn, table, schema)


def rows_of_today(conn: sqlite3.Connection, table: str, schema: str = "main") -> str:
    """A SELECT of a table's rows with today's columns, in their order.

    Where sessions did not number their rows, `n` grows over all of them: each query would count numbers of their own.
    """
    stored = _stored(conn, table, schema)
    if table == "task_contracts" and not stored:
        return _ONE_TASK.format(schema=schema)
    values = [
        f'"{name}"' if name in stored else f'{_value(table, name, schema, stored)} AS "{name}"'
        for name in columns_of(table)
    ]
    return f"SELECT {', '.join(values)} " + (f"FROM {schema}.{table}" if stored else "WHERE 0")


def _value(table: str, column: str, schema: str, stored: set[str]) -> str:
    """What a column holds that the stored table has not."""
    if table in DERIVED_TABLES and stored and column == "dataset_id":
        return _ITS_DATASET.format(schema=schema, table=table)
    return _OF_BEFORE.get((table, column), "NULL")


def _stored(conn: sqlite3.Connection, table: str, schema: str) -> set[str]:
    return {row[1] for row in conn.execute(f"PRAGMA {schema}.table_info({table})")}

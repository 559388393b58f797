"""The triggers that make fact tables append-only."""

import sqlite3
from contextlib import closing
from functools import cache

from kvt_async.contract.schema_tables import FACT_TABLES, schema_sql


@cache
def guards_sql() -> str:
    """The guards of all fact tables."""
    return "\n".join(f"{sql};" for table in FACT_TABLES for sql in guards_of(table).values())


@cache
def guards_of(table: str) -> dict[str, str]:
    """Triggers, by name, that make a fact table append-only, also against REPLACE on any unique key."""
    says = f"'{table} holds facts: rows are never changed or removed'"
    guards = {}
    for verb in ("UPDATE", "DELETE"):
        name = f"{table}_no_{verb.lower()}"
        guards[name] = (
            f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, {says}); END"
        )
    same = " OR ".join(
        f"EXISTS (SELECT 1 FROM {table} WHERE {' AND '.join(f'{c} = NEW.{c}' for c in key)})"
        for key in _unique_keys()[table]
    )
    guards[f"{table}_no_replace"] = (
        f"CREATE TRIGGER IF NOT EXISTS {table}_no_replace BEFORE INSERT ON {table} WHEN {same} "
        f"BEGIN SELECT RAISE(ABORT, {says}); END"
    )
    return guards


@cache
def _unique_keys() -> dict[str, list[tuple[str, ...]]]:
    """The columns of every key of every fact table, the primary one and others."""
    with closing(sqlite3.connect(":memory:")) as probe:
        probe.executescript(schema_sql())
        found = {}
        for table in FACT_TABLES:
            primary = [(row[5], row[1]) for row in probe.execute(f"PRAGMA table_info({table})") if row[5]]
            keys = {tuple(name for _, name in sorted(primary))}
            for index in probe.execute(f"PRAGMA index_list({table})").fetchall():
                if index[2]:
                    keys.add(tuple(row[2] for row in probe.execute(f"PRAGMA index_info({index[1]})")))
            found[table] = sorted(keys)
    return found

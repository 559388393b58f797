"""Finds in a database what kvt never wrote there. SQLite's own check looks at pages, not at what stands in them. It is
done when something failed over what was read, to tell damage from a bug of kvt."""

import hashlib
import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from kvt_async.contract.damage import opened_to_look
from kvt_async.contract.schema import SCHEMA_VERSION, missing_tables
from kvt_async.contract.schema_tables import MADE_WHEN_WANTED, schema_sql

_AT_ONCE = 1000
_HASHED = {
    "experiments": ("contract_json", "contract_sha256"),
    "task_contracts": ("contract_json", "contract_sha256"),
    "sessions": ("config_yaml", "config_sha256"),
}


def strange_contents(db: Path) -> list[str]:
    """Tables with texts that are none, JSON that is none, hashes or keys of something else, or 'its schema'; empty:
    nothing is strange, or the file can't be read."""
    with (
        suppress(sqlite3.OperationalError),
        closing(opened_to_look(db)) as conn,
    ):
        if missing_tables(conn) or _lacks_columns(conn):
            return ["its schema"]
        broken = {row[0] for row in conn.execute("PRAGMA foreign_key_check")}
        tables = [row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")]
        conn.text_factory = bytes  # what is no UTF-8 is to be seen here, not to be an error
        return [table for table in tables if table in broken or _is_strange(conn, table)]
    return []


def _lacks_columns(conn: sqlite3.Connection) -> bool:
    if conn.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
        return False
    with closing(sqlite3.connect(":memory:")) as blank:
        blank.executescript(schema_sql())
        tables = [row[0] for row in blank.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = [table for table in tables if table not in MADE_WHEN_WANTED]
        return any(not _columns(blank, table).keys() <= _columns(conn, table).keys() for table in tables)


def _columns(conn: sqlite3.Connection, table: str) -> dict[str, str]:
    """Name -> type."""
    return {row[1]: row[2] for row in conn.execute(f'PRAGMA table_info("{table}")')}


def _is_strange(conn: sqlite3.Connection, table: str) -> bool:
    conn.text_factory = str
    names = [name for name, kind in _columns(conn, table).items() if kind == "TEXT"]
    conn.text_factory = bytes
    if not names:
        return False
    hashed = _HASHED.get(table)
    cursor = conn.execute(f'SELECT {", ".join(names)} FROM "{table}"')
    while rows := cursor.fetchmany(_AT_ONCE):
        for row in rows:
            texts = dict(zip(names, row, strict=True))
            try:
                for value in filter(None, row):
                    value.decode()
                for name in names:
                    if name.endswith("_json") and texts[name] is not None:
                        json.loads(texts[name])
            except RecursionError:  # a server's usage may be as deep as that
                pass
            except ValueError:
                return True
            if hashed is not None and hashlib.sha256(texts[hashed[0]]).hexdigest().encode() != texts[hashed[1]]:
                return True
    return False

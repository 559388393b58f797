"""Databases side by side in one connection, so that SQLite compares and copies their rows itself."""

import os
import sqlite3
from pathlib import Path

from kvt_async.contract.damage import has_wal


def attach(conn: sqlite3.Connection, name: str, db: Path) -> None:
    """Attach a database read-only under `name`; `conn` was opened with uri=True."""
    frozen = "&immutable=1" if not os.access(db.parent, os.W_OK) and not has_wal(db) else ""
    conn.execute(f"ATTACH ? AS {name}", (f"{db.resolve().as_uri()}?mode=ro{frozen}",))

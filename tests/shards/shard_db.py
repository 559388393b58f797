"""Databases of one group with the histories that a test asks for, written with plain SQL."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from kvt_async.contract.schema import connect_for_writing
from tests.group_db import GROUP, RUN, add_session, make_group
from tests.tables import insert

Try = tuple[str, str]  # started_at, session_id; the last one of a history with a response gave it


def group_of(db: Path, *histories: tuple[int, list[Try], str], n: int = 8) -> Path:
    """A group of `n` entries at one level. A history: the entry's seq, its tries, and response | give_up | pending."""
    make_group(db, n)
    with closing(connect_for_writing(db)) as conn:
        for seq, tries, end in histories:
            add_history(conn, seq, tries, end)
    return db


def add_history(conn: sqlite3.Connection, seq: int, tries: Iterable[Try], end: str) -> None:
    request_id, tries = f"{RUN}:{seq}", list(tries)
    insert(conn, "requests", request_id=request_id, run_id=RUN, example_id=f"e{seq}", prompt_sha256=f"p{seq}",
           created_at="t")  # fmt: skip
    for idx, (started_at, session_id) in enumerate(tries):
        if not conn.execute("SELECT 1 FROM sessions WHERE session_id = ?", (session_id,)).fetchone():
            add_session(conn, session_id, at=started_at)
        answered = end == "response" and idx == len(tries) - 1
        insert(conn, "attempts", request_id=request_id, attempt_idx=idx, series_idx=0, session_id=session_id,
               started_at=started_at, endpoint="http://h/v1", end_state="done" if answered else "timeout",
               error_type=None if answered else "IdleTimeout", latency_s=0.5)  # fmt: skip
        insert(conn, "telemetry", request_id=request_id, attempt_idx=idx, start_ns=1, stamp_source="user")
    if end == "response":
        insert(conn, "responses", request_id=request_id, attempt_idx=len(tries) - 1, text=f"by {tries[-1][1]}",
               created_at="t")  # fmt: skip
    elif end == "give_up":
        insert(conn, "give_ups", request_id=request_id, series_idx=0, reason="attempts_exhausted", created_at="t")


def with_server(db: Path, version: str, endpoint: str = "http://h/v1") -> Path:
    """The same database, whose session met a server of this version."""
    with closing(connect_for_writing(db)) as conn:
        insert(conn, "server_snapshots", session_id="s1", taken_at="t", phase="start", endpoint=endpoint,
               identity_json=f'{{"version": "{version}"}}')  # fmt: skip
    return db


__all__ = ["GROUP", "RUN", "add_history", "group_of", "with_server"]

"""Databases of one group with the histories that a test asks for, written with plain SQL."""

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from kvt_async.contract.schema import connect_for_writing
from tests.group_db import GROUP, RUN, add_session, make_group
from tests.tables import insert

__all__ = [
    "GROUP",
    "RUN",
    "Step",
    "add_history",
    "answer",
    "copy_of",
    "give_up",
    "group_of",
    "retry",
    "tried",
    "with_server",
]


class Step(NamedTuple):
    """One step of a request's life: a try, a try that was answered, a give-up, or a new series of tries."""

    kind: str
    at: str = ""
    session: str = "s1"


def tried(at: str, session: str) -> Step:
    return Step("try", at, session)


def answer(at: str, session: str) -> Step:
    return Step("answer", at, session)


def retry(session: str) -> Step:
    return Step("retry", "t", session)


give_up = Step("give_up")


def group_of(db: Path, *histories: tuple[int, Sequence[Step]], n: int = 8) -> Path:
    """A group of `n` entries at one level. A history: the entry's seq and its steps; none: it is only queued."""
    make_group(db, n)
    return _filled(db, histories)


def copy_of(empty: Path, db: Path, *histories: tuple[int, Sequence[Step]]) -> Path:
    """The same from a group that was made already and has no requests."""
    db.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(empty, db)
    return _filled(db, histories)


def _filled(db: Path, histories: Sequence[tuple[int, Sequence[Step]]]) -> Path:
    with closing(connect_for_writing(db)) as conn:
        conn.execute("BEGIN")
        for seq, steps in histories:
            add_history(conn, seq, steps)
        conn.execute("COMMIT")
    return db


def add_history(conn: sqlite3.Connection, seq: int, steps: Sequence[Step]) -> None:
    request_id, idx, series = f"{RUN}:{seq}", 0, 0
    insert(conn, "requests", request_id=request_id, run_id=RUN, example_id=f"e{seq}", prompt_sha256=f"p{seq}",
           created_at="t")  # fmt: skip
    for step in steps:
        if not conn.execute("SELECT 1 FROM sessions WHERE session_id = ?", (step.session,)).fetchone():
            add_session(conn, step.session, at=step.at)
        if step.kind == "retry":
            series += 1
            insert(conn, "try_series", request_id=request_id, series_idx=series, session_id=step.session,
                   created_at="t")  # fmt: skip
        elif step.kind == "give_up":
            insert(conn, "give_ups", request_id=request_id, series_idx=series, reason="attempts_exhausted",
                   created_at="t")  # fmt: skip
        else:
            good = step.kind == "answer"
            insert(conn, "attempts", request_id=request_id, attempt_idx=idx, series_idx=series,
                   session_id=step.session, started_at=step.at, endpoint="http://h/v1",
                   end_state="done" if good else "timeout", error_type=None if good else "IdleTimeout",
                   latency_s=0.5)  # fmt: skip
            insert(conn, "telemetry", request_id=request_id, attempt_idx=idx, start_ns=1, stamp_source="user")
            if good:
                insert(conn, "responses", request_id=request_id, attempt_idx=idx, text=f"by {step.session}",
                       usage_json="{}", created_at="t")  # fmt: skip
            idx += 1


def with_server(db: Path, version: str, endpoint: str = "http://h/v1") -> Path:
    """The same database, whose session met a server of this version."""
    with closing(connect_for_writing(db)) as conn:
        insert(conn, "server_snapshots", session_id="s1", taken_at="t", phase="start", endpoint=endpoint,
               identity_json=f'{{"version": "{version}"}}')  # fmt: skip
    return db

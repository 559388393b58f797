"""What each session moved: requests, tokens, and the seconds it took."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from analyzer import parallel
from analyzer.read import kept_counts
from analyzer.read.group_connection import members_of, parts
from analyzer.read.snapshot import opened
from analyzer.results.rows import Volume

_VOLUMES = """SELECT a.session_id, count(*), (max(t.end_ns) - min(t.start_ns)) / 1e9,
    CAST(sum(t.prompt_tokens * 1.0) AS INTEGER), CAST(sum(t.completion_tokens * 1.0) AS INTEGER),
    sum(a.end_state = 'done' AND t.finish_ns IS NULL)
    FROM attempts a JOIN telemetry t ON t.request_id = a.request_id AND t.attempt_idx = a.attempt_idx
    WHERE a.error_type IS NULL
    AND +a.session_id IN (SELECT session_id FROM sessions WHERE exp_group_id=? AND generation=?)
    GROUP BY a.session_id ORDER BY min(a.started_at), a.session_id"""
"""An attempt without an error gave the response. A session has one monotonic clock, so spans are taken within one."""


@dataclass(frozen=True, slots=True)
class _Database:
    """One whole database of a group, to be summed in a process of its own."""

    db: Path
    key: tuple[str, int]

    def volumes(self) -> list[Volume]:
        with opened(self.db) as facts:
            return _volumes(facts, self.key)


def read_volumes(conn: sqlite3.Connection, key: tuple[str, int], n_responses: int) -> list[Volume]:
    """Of every session of a generation (group, number) that has `n_responses`; as they were kept, where these facts
    were summed before."""
    kept = kept_counts.read_kept(conn, *key, kept_counts.VOLUMES)
    if kept is not None:
        return [Volume(*row) for row in kept["sessions"]]
    databases = [_Database(member.db, key) for member in members_of(conn) if not member.without]
    if len(databases) < len(parts(conn)):  # one database, or one whose requests don't all count
        return [volume for part in parts(conn) for volume in _volumes(part, key)]
    elsewhere = parallel.results(_Database.volumes, databases, rows=n_responses)
    of_parts = (
        database.volumes() if done is None else done for done, database in zip(elsewhere, databases, strict=True)
    )
    return [volume for volumes in of_parts for volume in volumes]


def _volumes(facts: sqlite3.Connection, key: tuple[str, int]) -> list[Volume]:
    return [Volume(*row) for row in facts.execute(_VOLUMES, key)]

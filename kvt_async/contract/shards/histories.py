"""Two databases with one request: which of its two histories holds.

A history is all that is stored of a request: its row, its tries and series of tries, its response and its give-ups. It
is taken whole. Of two histories of a request

    the one that goes on where the other ended,
    else the one with a response,
    else the one with a give-up,
    else the one whose tries began earlier: the smaller (started_at, session_id), try by try.

`standing` is that rule as a key, so it orders any number of histories, and it doesn't matter in which order they meet.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

TABLES = ("requests", "try_series", "attempts", "telemetry", "responses", "give_ups")
"""What a history consists of; all have a request_id. Parents before children."""

Standing = tuple[Any, ...]
_END = ("\U0010ffff", "")  # after the last try: of two histories that begin alike the longer one is smaller
_MARK = """(SELECT count(*) || ' ' || ifnull(max(a.attempt_idx), '') FROM {schema}.attempts a
    WHERE a.request_id = {request_id}) || ' ' || ifnull((SELECT a.started_at || ' ' || a.session_id
    FROM {schema}.attempts a WHERE a.request_id = {request_id} ORDER BY a.attempt_idx DESC LIMIT 1), '') || ' ' ||
    (SELECT count(*) FROM {schema}.try_series t WHERE t.request_id = {request_id}) || ' ' ||
    (SELECT count(*) FROM {schema}.give_ups g WHERE g.request_id = {request_id}) || ' ' ||
    EXISTS (SELECT 1 FROM {schema}.responses p WHERE p.request_id = {request_id})"""


def conflicts(
    conn: sqlite3.Connection, one: str, other: str, *, within: str = "1", values: Sequence[object] = ()
) -> Iterator[str]:
    """request_ids that two attached databases both have, with histories that are not equal; `within`: a condition on
    `o`, the other one's rows of requests, with its `values`."""
    marks = [_MARK.format(schema=schema, request_id="o.request_id") for schema in (one, other)]
    sql = f"""SELECT o.request_id FROM {other}.requests o CROSS JOIN {one}.requests r ON r.request_id = o.request_id
              WHERE {within} AND {marks[0]} <> {marks[1]}"""
    for (request_id,) in conn.execute(sql, [*values]):
        yield request_id


def continues(standing: Standing, other: Standing) -> bool:
    """Whether the history with the first key goes on where that with the other one ended."""
    tries, others = standing[2][:-1], other[2][:-1]
    more = all(mine <= theirs for mine, theirs in zip(standing, other, strict=True) if isinstance(mine, int))
    return more and tries[: len(others)] == others


def standing(conn: sqlite3.Connection, schema: str, request_id: str) -> Standing:
    """The key of a request's history in an attached database: of several histories the smallest key holds."""

    def rows(sql: str) -> list[tuple[Any, ...]]:
        return conn.execute(sql.format(schema=schema), (request_id,)).fetchall()

    tries = rows("SELECT started_at, session_id FROM {schema}.attempts WHERE request_id = ? ORDER BY attempt_idx")
    n_responses = rows("SELECT count(*) FROM {schema}.responses WHERE request_id = ?")[0][0]
    n_give_ups = rows("SELECT count(*) FROM {schema}.give_ups WHERE request_id = ?")[0][0]
    n_series = rows("SELECT count(*) FROM {schema}.try_series WHERE request_id = ?")[0][0]
    return (-n_responses, -min(n_give_ups, 1), (*tries, _END), -n_series, -n_give_ups)

"""Derived rows <-> SQLite: short transactions, each with the fingerprint of what its rows came from.

Written beside a running sweep: a busy database is waited for and tried again. Rows of a scope are replaced whole, so
that rebuilding them can't leave old ones behind.
"""

import hashlib
import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from analyzer.read.group_connection import GroupConnection, members_of, parts
from analyzer.read.run_counts import refused
from analyzer.read.snapshot import path_of
from analyzer.store.suite_tables import SuiteStat, SuiteVerdict
from analyzer.store.tables import BinStat, Comparison, Drop, Evidence, OutcomeChange, Verdict
from kvt_async.contract.formulas.prompt_counts import PromptCounts, together
from kvt_async.contract.local_faults import store_error
from kvt_async.contract.schema import connect_for_reading, watch_derived
from kvt_async.contract.waiting import transaction

Row = Mapping[str, Any]

ANALYZER_VERSION = "13"  # raise it whenever a figure or a sentence of the derived tables could change

RUN_TABLES = {row.TABLE: row.KEY for row in (BinStat, Evidence)}
GROUP_TABLES = {row.TABLE: row.KEY for row in (Drop, Verdict, Comparison, OutcomeChange, SuiteStat, SuiteVerdict)}
"""What the analysis writes, with the columns that tell rows apart (within a generation, for tables of groups)."""

_SCORES = (
    "INSERT OR REPLACE INTO scores (metric, scorer_version, request_id, em, f1, score, pred_norm, gold_norm, "
    "failure_label, flags, first_divergence) VALUES {}"
)
_SCORE = "({},{},?,?,?,?,?,?,?,?,?)"
_AT_ONCE = 50  # rows to a statement: half the time of one by one


def fingerprint(*parts: Any) -> str:
    """SHA-256 of JSON-serialisable parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def in_transaction(conn: sqlite3.Connection, work: Callable[[sqlite3.Connection], None]) -> None:
    """Run `work` in one immediate transaction; a busy database is waited for. Raises StoreError: it stays busy, or the
    disk is full or fails."""
    try:
        with transaction(conn, path_of(conn)):
            work(conn)
    except sqlite3.OperationalError as error:
        raise store_error(path_of(conn), error) from error


def settle(db: Path) -> None:
    """Bring what was written into the database itself: who wrote closed it while others read, and whoever opens it next
    would have to go through all of its log first."""
    with closing(connect_for_reading(db, write_derived=True)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def insert(conn: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    """INSERT OR REPLACE rows given by column name; NaN becomes NULL."""
    if not rows:
        return
    names = list(rows[0])
    marks = ",".join("?" * len(names))
    quoted = ",".join(f'"{name}"' for name in names)
    conn.executemany(
        f"INSERT OR REPLACE INTO {table} ({quoted}) VALUES ({marks})",
        ([_plain(row[name]) for name in names] for row in rows),
    )


def plain(row: Row) -> Row:
    """The row as SQLite gives it back: NaN is NULL, structures are JSON, numbers have 12 decimals."""
    return {name: _plain(value) for name, value in row.items()}


def begin_scores(conn: sqlite3.Connection, exp_group_id: str, generation: int, run_ids: Sequence[str]) -> None:
    """Take away the records of runs whose scores are about to be written: nothing vouches for them until the end."""

    def work(c: sqlite3.Connection) -> None:
        watch_derived(c)
        c.executemany(
            "DELETE FROM analysis_state WHERE exp_group_id = ? AND generation = ? AND stage = 'score' AND scope = ?",
            [(exp_group_id, generation, run_id) for run_id in run_ids],
        )

    in_transaction(conn, work)


def write_scores(
    conn: sqlite3.Connection,
    rows: Sequence[tuple[Any, ...]],
    finish: Callable[[sqlite3.Connection], None] = lambda _: None,
    *,
    metric: str,
    scorer_version: str,
) -> None:
    """One short transaction of scores rows and of what `finish` writes.

    A row holds the values of request_id, em, f1, score, pred_norm, gold_norm, failure_label, flags and
    first_divergence. What all rows share stands in the statement: to bind a text a million times takes longer than to
    compute most scores.
    """
    row = _SCORE.format(_quoted(metric), _quoted(scorer_version))
    whole = len(rows) - len(rows) % _AT_ONCE
    together = (list(chain.from_iterable(rows[at : at + _AT_ONCE])) for at in range(0, whole, _AT_ONCE))

    def work(c: sqlite3.Connection) -> None:
        c.executemany(_SCORES.format(",".join([row] * _AT_ONCE)), together)
        c.executemany(_SCORES.format(row), rows[whole:])
        finish(c)

    in_transaction(conn, work)


def drop_scores(conn: sqlite3.Connection, run_ids: Sequence[str]) -> None:
    """Remove every score of these runs, and scores of requests that there aren't; their records go along."""

    def work(c: sqlite3.Connection) -> None:
        c.execute("DELETE FROM scores WHERE request_id NOT IN (SELECT request_id FROM requests)")
        for run_id in run_ids:
            c.execute(
                "DELETE FROM scores WHERE request_id IN (SELECT request_id FROM requests WHERE run_id = ?)", (run_id,)
            )
            c.execute("DELETE FROM analysis_state WHERE stage = 'score' AND scope = ?", (run_id,))

    in_transaction(conn, work)


def drop_unfinished_scores(conn: sqlite3.Connection, run_ids: Sequence[str]) -> None:
    """Remove scores of requests that are pending: a new try series was opened, or a refusal said nothing of them."""
    unknown = [(request,) for run_id in run_ids for request in refused(conn, run_id)]

    def work(c: sqlite3.Connection) -> None:
        c.executemany(
            "DELETE FROM scores WHERE request_id IN (SELECT r.request_id FROM requests r "
            "JOIN try_series t ON t.request_id = r.request_id "
            "LEFT JOIN responses p ON p.request_id = r.request_id "
            "LEFT JOIN failures f ON f.request_id = r.request_id "
            "WHERE r.run_id = ? AND p.request_id IS NULL AND f.request_id IS NULL)",
            [(run_id,) for run_id in run_ids],
        )
        c.executemany("DELETE FROM scores WHERE request_id = ?", unknown)

    in_transaction(conn, work)


def state(conn: sqlite3.Connection, exp_group_id: str, generation: int, stage: str, scope: str) -> str | None:
    """Fingerprint that a stage last stored for this scope."""
    row = conn.execute(
        "SELECT fingerprint FROM analysis_state WHERE exp_group_id = ? AND generation = ? AND stage = ? AND scope = ?",
        (exp_group_id, generation, stage, scope),
    ).fetchone()
    return row[0] if row else None


def stands(conn: sqlite3.Connection, exp_group_id: str, generation: int, stage: str, scope: str, mark: str) -> bool:
    """Whether a stage's rows were made from what `mark` tells of, and are still the rows that it wrote."""
    row = conn.execute(
        "SELECT fingerprint, json_extract(detail_json, '$.content') FROM analysis_state "
        "WHERE exp_group_id = ? AND generation = ? AND stage = ? AND scope = ?",
        (exp_group_id, generation, stage, scope),
    ).fetchone()
    return row is not None and row[0] == mark and row[1] == content(conn, exp_group_id, generation, scope)["content"]


def content(conn: sqlite3.Connection, exp_group_id: str, generation: int, scope: str) -> dict[str, str]:
    """{"content": SHA-256 of what the analysis' tables hold of a generation, or of the one run that `scope` names}."""
    key = (exp_group_id, generation)
    digest = hashlib.sha256()
    for table in RUN_TABLES:
        own = "u.run_id = ?" if scope != "*" else "u.exp_group_id = ? AND u.generation = ?"
        rows = conn.execute(
            f"SELECT d.* FROM {table} d JOIN runs u ON u.run_id = d.run_id WHERE {own} ORDER BY {_key(table, 'd.')}",
            (scope,) if scope != "*" else key,
        )
        for row in rows:
            digest.update(repr(tuple(row)).encode())
    for table in GROUP_TABLES if scope == "*" else ():
        query = f"SELECT * FROM {table} WHERE exp_group_id = ? AND generation = ? ORDER BY {_key(table)}"
        for row in conn.execute(query, key):
            digest.update(repr(tuple(row)).encode())
    return {"content": digest.hexdigest()}


def analysed_before(conn: sqlite3.Connection, exp_group_id: str, generation: int) -> list[tuple[int, dict[str, Any]]]:
    """(generation, record) of the whole analyses of a group's earlier generations, oldest first."""
    rows = conn.execute(
        "SELECT generation, detail_json FROM analysis_state WHERE exp_group_id = ? AND generation < ? "
        "AND stage = 'analyze' AND scope = '*' ORDER BY generation",
        (exp_group_id, generation),
    )
    return [(earlier, json.loads(text)) for earlier, text in rows.fetchall()]


def drop_unexplained(conn: sqlite3.Connection) -> None:
    """Remove rows of groups and generations that were never run."""

    def work(c: sqlite3.Connection) -> None:
        for table in GROUP_TABLES:
            c.execute(
                f"DELETE FROM {table} WHERE (exp_group_id, generation) NOT IN "
                "(SELECT exp_group_id, generation FROM experiments)"
            )

    in_transaction(conn, work)


_SCORED_BY = ("$.scorer_version", "$.metric", "$.plugin.path", "$.plugin.sha256", "$.plugin.package")


class ScoredBy(NamedTuple):
    """The record of how a run was scored: version of the scorer, name of the metric, and of a plugin's metric the file
    with its SHA-256 and package. None: nothing tells it, or it is no plugin's."""

    version: str | None
    metric: str | None
    path: str | None
    sha256: str | None
    package: str | None

    @property
    def file(self) -> str:
        """The plugin's file, for messages; empty: none."""
        of = f" of {self.package}" if self.package else ""
        return f"{self.path}{of} (SHA-256 {self.sha256})" if self.path else ""


NOBODY = ScoredBy(None, None, None, None, None)


def scored_by(conn: sqlite3.Connection, exp_group_id: str, generation: int, run_id: str) -> ScoredBy:
    """What made a run's scores; nobody, where the databases of a group don't agree."""
    if isinstance(conn, GroupConnection):
        has = "SELECT 1 FROM requests WHERE run_id = ? LIMIT 1"
        own = [part for part in conn.parts if part.execute(has, (run_id,)).fetchone()]
        records = {scored_by(part, exp_group_id, generation, run_id) for part in own}
        return records.pop() if len(records) == 1 else NOBODY
    row = conn.execute(
        f"SELECT {', '.join(f'json_extract(detail_json, {path!r})' for path in _SCORED_BY)} "
        "FROM analysis_state WHERE exp_group_id = ? AND generation = ? AND stage = 'score' AND scope = ?",
        (exp_group_id, generation, run_id),
    ).fetchone()
    return ScoredBy(*(None if value is None else str(value) for value in row or NOBODY))


def set_state(
    conn: sqlite3.Connection, exp_group_id: str, generation: int, stage: str, scope: str, mark: str, detail: Any
) -> None:
    conn.execute(
        "INSERT OR REPLACE INTO analysis_state VALUES (?,?,?,?,?,?)",
        (exp_group_id, generation, stage, scope, mark, json.dumps(detail, sort_keys=True)),
    )


def keep(
    conn: sqlite3.Connection, exp_group_id: str, generation: int, stage: str, mark: str | None, detail: Any
) -> None:
    """Keep what was counted of the facts that `mark` tells of (read/kept_counts.py); nothing where it stands already,
    or nothing tells of them."""

    def work(c: sqlite3.Connection) -> None:
        if not members_of(c):  # scores lie in a group's shards, whose own guards stand
            watch_derived(c)  # what is kept hangs on guards that a database of an older kvt lacks
        set_state(c, exp_group_id, generation, stage, "*", mark or "", detail)

    if mark is not None and state(conn, exp_group_id, generation, stage, "*") != mark:
        in_transaction(conn, work)


def replace_group(
    conn: sqlite3.Connection, table: str, exp_group_id: str, generation: int, rows: Sequence[Row]
) -> None:
    """Replace all rows that a group-level table holds of this generation."""
    conn.execute(f"DELETE FROM {table} WHERE exp_group_id = ? AND generation = ?", (exp_group_id, generation))
    insert(conn, table, rows)


def replace_runs(conn: sqlite3.Connection, table: str, run_ids: Iterable[str], rows: Sequence[Row]) -> None:
    """Replace all rows that a run-level table holds of these runs."""
    conn.executemany(f"DELETE FROM {table} WHERE run_id = ?", [(run_id,) for run_id in run_ids])
    insert(conn, table, rows)


def prompt_counts(conn: sqlite3.Connection, exp_group_id: str, generation: int) -> PromptCounts:
    """What the server's counts say of a generation's prompts, as its analysis left it; nothing before that."""
    of_tasks = conn.execute(  # each row of a task over all lengths holds the counts of that task
        "SELECT max(json_extract(zone_json, '$.prompts')) FROM transition_summary WHERE exp_group_id = ? AND "
        "generation = ? AND bin_idx = -1 GROUP BY dataset_id",
        (exp_group_id, generation),
    )
    counts = [PromptCounts(**json.loads(text)) for (text,) in of_tasks if text]
    return together(counts) if len(counts) > 1 else next(iter(counts), PromptCounts())


def control_flips(conn: sqlite3.Connection, exp_group_id: str, dataset_id: str | None = None) -> tuple[int, int]:
    """(pairs whose score changed, pairs) between full cache and its repeats, in the newest generation analysed; of one
    task, or of all."""
    row = conn.execute(
        "SELECT sum(b.n_worse + b.n_better), sum(b.n) FROM budget_stats b JOIN runs r ON r.run_id = b.run_id "
        "WHERE b.exp_group_id = ? AND b.repeat_idx > 0 AND b.bin_idx = -1 AND r.dataset_id = coalesce(?, r.dataset_id) "
        "AND b.generation = (SELECT max(generation) FROM budget_stats WHERE exp_group_id = ?)",
        (exp_group_id, dataset_id, exp_group_id),
    ).fetchone()
    return row[0] or 0, row[1] or 0


def control_samples(conn: sqlite3.Connection, exp_group_id: str) -> int:
    """Answers an example of the repeats of full cache."""
    sql = """SELECT max(q.sample_idx) FROM requests q JOIN runs r ON r.run_id = q.run_id
        WHERE r.exp_group_id = ? AND r.is_full AND r.repeat_idx > 0"""
    return 1 + max(part.execute(sql, (exp_group_id,)).fetchone()[0] or 0 for part in parts(conn))


def _key(table: str, prefix: str = "") -> str:
    return ", ".join(prefix + name for name in (RUN_TABLES | GROUP_TABLES)[table])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 12)
    if isinstance(value, bool):
        return int(value)
    if value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, sort_keys=True)
    return _plain(value.item())  # numpy scalars

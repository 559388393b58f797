"""A group whose facts lie in several databases, as one connection.

What is small (runs, sessions, data sets, snapshots, probes) is copied into TEMP tables that stand before those of the
group's own database: an identity that several databases have is there once, as its earliest row has it. The manifest is
read from a database that has its newest version. Requests and all that hangs on them are too many to copy: they are
read part by part (`parts`), and a query that asks this connection for them fails.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kvt_async.contract.schema import connect_for_reading, connect_for_writing, views_of_today
from kvt_async.contract.shards.attached import attach
from kvt_async.contract.shards.group_databases import GroupDatabase, group_databases
from kvt_async.contract.shards.histories import TABLES

CACHE_KIB = 65_536  # rows are looked up by key in four tables at once
LEAST_CACHE_KIB = 4_096  # of one of many databases, which are read one after the other
_COPIED = (
    "experiments",
    "task_contracts",
    "sample_plans",
    "sessions",
    "session_ends",
    "datasets",
    "manifests",
    "bins",
    "runs",
    "server_snapshots",
    "probes",
    "client_health",
)
_OF_REQUESTS = (*TABLES, "scores")
_VIEWS = ("failures", "outcomes", "run_progress", "attempt_metrics", "first_text", "paired_scores")
_OF_MANIFEST = ("examples", "manifest_entries")
_WHEN = ("created_at", "started_at", "taken_at")


class GroupConnection(sqlite3.Connection):
    """The group's own database, before it the TEMP tables of all `members`; `parts`: a connection to each of them."""

    members: tuple[GroupDatabase, ...] = ()
    parts: tuple[sqlite3.Connection, ...] = ()

    def close(self) -> None:
        for part in self.parts:
            part.close()
        super().close()


class PartConnection(sqlite3.Connection):
    """One member. baselines: (requests, responses) as this connection names the tables that may hold full cache's
    answers to its examples."""

    baselines: tuple[tuple[str, str], ...] = (("requests", "responses"),)
    is_whole = True  # every request that it has is to be read from it


def members_of(conn: sqlite3.Connection) -> tuple[GroupDatabase, ...]:
    """The databases of a group; none where the connection is to an only one."""
    return conn.members if isinstance(conn, GroupConnection) else ()


def parts(conn: sqlite3.Connection) -> Sequence[sqlite3.Connection]:
    """The connections to read requests from: those of a group's databases, or the only one."""
    return conn.parts if isinstance(conn, GroupConnection) else (conn,)


def baselines(part: sqlite3.Connection) -> Sequence[tuple[str, str]]:
    """Names of (requests, responses) that may hold full cache's answers to a part's examples."""
    return part.baselines if isinstance(part, PartConnection) else PartConnection.baselines


def is_whole(part: sqlite3.Connection) -> bool:
    """Whether every request that a part has is to be read from it."""
    return not isinstance(part, PartConnection) or part.is_whole


def open_group(db: Path, *, write_derived: bool = False) -> sqlite3.Connection:
    """The group with this database of its own and the shards beside it; without shards the database as it is.

    What is derived lies in the group's own database, which is made where only shards are there. Raises as
    `group_databases` and `connect_for_reading`.
    """
    members = group_databases(db)
    if members == (GroupDatabase(db),):
        return connect_for_reading(db, write_derived=write_derived)
    if not db.is_file():
        connect_for_writing(db).close()
    return open_members(db, members, write_derived=write_derived)


def open_members(
    db: Path, members: tuple[GroupDatabase, ...], *, write_derived: bool = False, held: bool = False
) -> sqlite3.Connection:
    """The group of which these are the databases, or its only one. `held`: each is held at one state."""
    if not members:
        return connect_for_reading(db, write_derived=write_derived)
    conn = connect_for_reading(db, write_derived=write_derived, factory=GroupConnection)
    assert isinstance(conn, GroupConnection)
    try:
        conn.members = members
        conn.parts = tuple(open_part(member, held=held, n_open=len(members)) for member in members)
        conn.execute("PRAGMA foreign_keys=OFF")  # derived rows name runs of the shards
        _unite(conn, db)
    except BaseException:
        conn.close()
        raise
    return conn


def open_part(
    member: GroupDatabase, others: Sequence[GroupDatabase] = (), *, held: bool = False, n_open: int = 1
) -> sqlite3.Connection:
    """One database of a group, without the requests that are to be read from another one. others: where full cache's
    answers to its examples may lie beside it. n_open: databases that are open side by side and share the memory of a
    cache."""
    part = connect_for_reading(member.db, factory=PartConnection)
    assert isinstance(part, PartConnection)
    try:
        part.execute("PRAGMA temp_store=MEMORY")
        part.execute(f"PRAGMA cache_size=-{max(LEAST_CACHE_KIB, CACHE_KIB // n_open)}")
        for i, other in enumerate(others):
            attach(part, f"other{i}", other.db)
            for table in ("requests", "responses"):
                _leave_out(part, table, other, schema=f"other{i}", name=f"other{i}_{table}")
        part.baselines = (*part.baselines, *((f"other{i}_requests", f"other{i}_responses") for i in range(len(others))))
        part.is_whole = not member.without
        if member.without:
            for table in _OF_REQUESTS:
                _leave_out(part, table, member, schema="main", name=table)
            views_of_today(part, anew=True)
        if held:
            part.execute("BEGIN")
            part.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the state is that of the first read
    except BaseException:
        part.close()
        raise
    return part


def _leave_out(part: sqlite3.Connection, table: str, member: GroupDatabase, *, schema: str, name: str) -> None:
    """A TEMP view of a table without the requests that a member has and that hold in another one."""
    where = ""
    if member.without:
        made = part.execute("SELECT 1 FROM sqlite_temp_master WHERE name = ?", (f"without_{schema}",)).fetchone()
        if not made:
            part.execute(f"CREATE TEMP TABLE without_{schema} (request_id TEXT PRIMARY KEY) WITHOUT ROWID")
            part.executemany(f"INSERT INTO without_{schema} VALUES (?)", ((each,) for each in member.without))
        where = f" WHERE request_id NOT IN (SELECT request_id FROM temp.without_{schema})"
    part.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM {schema}.{table}{where}")


def _unite(conn: GroupConnection, db: Path) -> None:
    conn.execute("PRAGMA temp_store=MEMORY")
    for table in _COPIED:
        rows = _earliest(conn, table)
        conn.execute(f"CREATE TEMP TABLE {table} AS SELECT * FROM main.{table} WHERE 0")
        if rows:
            conn.executemany(f"INSERT INTO temp.{table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    conn.execute("CREATE INDEX temp.server_snapshots_of_session ON server_snapshots (session_id)")
    _show_manifests(conn, db)
    for name in (*_OF_REQUESTS, *_VIEWS):
        conn.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM temp.is_read_part_by_part")


def _earliest(conn: GroupConnection, table: str) -> list[tuple[Any, ...]]:
    """The rows of all parts, each identity once, as its earliest row has it."""
    names = [row[1] for row in conn.execute(f"PRAGMA main.table_info({table})")]
    key = [row[1] for row in conn.execute(f"PRAGMA main.table_info({table})") if row[5]]
    columns = ", ".join(f'"{name}"' for name in names)
    rows: Iterable[tuple[Any, ...]] = (
        row for part in conn.parts for row in part.execute(f"SELECT {columns} FROM {table}").fetchall()
    )
    if (when := next((names.index(name) for name in _WHEN if name in names), None)) is not None:
        rows = sorted(rows, key=lambda row: str(row[when]))
    identity = [names.index(name) for name in key]
    once: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        once.setdefault(tuple(row[i] for i in identity), row)
    return list(once.values())


def _show_manifests(conn: GroupConnection, db: Path) -> None:
    """Examples and entries of each data set, from a database that has the newest version of its manifest."""
    newest: dict[str, tuple[int, Path]] = {}
    for member, part in zip(conn.members, conn.parts, strict=True):
        for dataset_id, version in part.execute("SELECT dataset_id, max(version) FROM manifests GROUP BY 1"):
            if version > newest.get(dataset_id, (0, db))[0]:
                newest[dataset_id] = version, member.db
    sources: dict[Path, list[str]] = {}
    for dataset_id, (_, source) in newest.items():
        sources.setdefault(source, []).append(dataset_id)
    if list(sources) == [db]:
        return
    for i, source in enumerate(sources):
        if source != db:
            attach(conn, f"manifest{i}", source)
    schemas = {source: "main" if source == db else f"manifest{i}" for i, source in enumerate(sources)}
    for table in _OF_MANIFEST:
        shown = [
            f"SELECT * FROM {schemas[source]}.{table}"
            + (f" WHERE dataset_id IN ({', '.join(map(_quoted, names))})" if len(sources) > 1 else "")
            for source, names in sources.items()
        ]
        conn.execute(f"CREATE TEMP VIEW {table} AS {' UNION ALL '.join(shown)}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

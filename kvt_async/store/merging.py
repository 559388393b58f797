"""Taking the facts of one database into another: what `kvt merge` does, and a sweep that finds shards beside it.

Rows go from table to table within SQLite, some thousands of requests in one transaction: a request's history is there
whole or not at all, memory does not grow with them, and after a kill the same merge goes on where it was. Facts are
only added, with two exceptions, each within the transaction that makes it: a history that another one of the same
request supersedes (contract/shards/histories.py says which) is replaced by it, and rows that every database of a group
has of its own (a level's, a contract's) get the words of the earliest.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from kvt_async.clock import utc_now
from kvt_async.contract.errors import ContractMismatchError, StoreError
from kvt_async.contract.fact_guards import guards_of
from kvt_async.contract.local_faults import store_error
from kvt_async.contract.schema import SCHEMA_VERSION, connect_for_reading, connect_for_writing, create
from kvt_async.contract.schema_tables import FACT_TABLES, columns_of
from kvt_async.contract.shards.attached import attach
from kvt_async.contract.shards.group_databases import facts_state, merged_states, was_run
from kvt_async.contract.shards.histories import TABLES, conflicts, continues, standing
from kvt_async.contract.shards.likeness import refuse_unlike
from kvt_async.contract.shards.shard import shard_databases
from kvt_async.contract.waiting import SLICE_MS, transaction

REQUESTS_AT_ONCE = 10_000  # of one transaction
CACHE_KIB = 65_536
WAL_PAGES = 16_384  # 64 MiB between two checkpoints, each of which waits for the disk
_EARLIEST = {  # columns that the earliest row decides, the time first
    "experiments": ("created_at",),
    "manifests": ("created_at",),
    "task_contracts": ("created_at", "look"),
    "sample_plans": ("created_at", "session_id"),
    "runs": ("created_at", "base_url", "engine_name", "level_idx"),
}
_OTHERS = tuple(table for table in FACT_TABLES if table not in TABLES)  # parents before children


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of one source: requests that it has, and what became of each (columns of `merges`)."""

    source: str
    n_requests: int = 0
    n_new: int = 0
    n_equal: int = 0
    n_continued: int = 0
    n_replaced: int = 0
    n_left: int = 0

    def __add__(self, other: "Taken") -> "Taken":
        mine, theirs = asdict(self), asdict(other)
        return Taken(self.source, **{name: mine[name] + theirs[name] for name in mine if name != "source"})


def merge(target: Path, sources: Sequence[Path], say: Callable[[str], None] = lambda _: None) -> list[Taken]:
    """Take the facts of `sources` into `target`, which is made where there is none. The caller holds its lock.

    A source that was taken in as it is now is left alone. Raises ContractMismatchError or DriftError, naming both
    sides, where the databases and the group's own shards are not parts of one group, and StoreError where one can't be
    read; then nothing was changed, nor `target` made.
    """
    if target.exists():
        connect_for_writing(target).close()
    present = [*([target] if target.exists() else []), *filter(was_run, shard_databases(target))]
    parts = list(dict.fromkeys([*present, *sources]))
    _refuse_strangers(parts)
    refuse_unlike(parts)
    connect_for_writing(target).close()
    known, done = set(merged_states(target)), []
    try:
        with closing(_connection(target)) as conn:
            if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'merges'").fetchone():
                create(conn)  # a database of before
            for source in sources:
                attach(conn, "source", source)
                try:
                    state = facts_state(conn, "source")
                    if (source.name, state) in known:
                        n = _number(conn, "SELECT count(*) FROM source.requests")
                        done.append(Taken(source.name, n_requests=n, n_equal=n))
                    else:
                        done.append(_taken(conn, target, source, state, say))
                        known.add((source.name, state))
                finally:
                    conn.execute("DETACH source")
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except (sqlite3.Error, OSError) as error:
        raise store_error(target, error) from error
    return done


def take(target: Path, source: Path, request_ids: Iterable[str]) -> None:
    """Take the histories of some requests, and what they refer to, from a database of the same group."""
    try:
        with closing(_connection(target)) as conn:
            attach(conn, "source", source)
            conn.execute("CREATE TEMP TABLE wanted (request_id TEXT PRIMARY KEY) WITHOUT ROWID")
            conn.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", ((each,) for each in request_ids))
            with transaction(conn, target):
                _add_others(conn)
                _chunk(conn, source.name, "{}.request_id IN (SELECT request_id FROM temp.wanted)", ())
    except (sqlite3.Error, OSError) as error:
        raise store_error(target, error) from error


def _connection(target: Path) -> sqlite3.Connection:
    uri = f"{target.resolve().as_uri()}?mode=rw"
    conn = sqlite3.connect(uri, uri=True, timeout=SLICE_MS / 1000, isolation_level=None)
    conn.execute("PRAGMA foreign_keys=OFF")  # a history comes with its rows of every table, parents before children
    conn.execute("PRAGMA recursive_triggers=ON")
    conn.execute("PRAGMA synchronous=NORMAL")  # what a power cut takes is merged again
    conn.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    conn.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
    conn.execute("CREATE TEMP TABLE taken (request_id TEXT PRIMARY KEY) WITHOUT ROWID")
    return conn


def _refuse_strangers(databases: Sequence[Path]) -> None:
    """Raises StoreError where a database is of an older schema, ContractMismatchError where two hold groups and none in
    common."""
    first: tuple[Path, set[str]] | None = None
    for db in databases:
        with closing(connect_for_reading(db)) as conn:
            version = _number(conn, "PRAGMA user_version")
            groups = {str(row[0]) for row in conn.execute("SELECT DISTINCT exp_group_id FROM experiments")}
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"the database has schema version {version}, and only version {SCHEMA_VERSION} can be merged",
                where=str(db),
                do="Run `kvt upgrade` on it first.",
            )
        first = first or ((db, groups) if groups else None)
        if groups and first is not None and groups.isdisjoint(first[1]):
            raise ContractMismatchError(
                f"this is group {', '.join(sorted(groups))}, and {first[0]} holds {', '.join(sorted(first[1]))}; "
                "nothing was merged",
                where=str(db),
                do="Merge databases of one group; `kvt compare` puts several groups beside each other.",
            )


def _taken(conn: sqlite3.Connection, target: Path, source: Path, state: str, say: Callable[[str], None]) -> Taken:
    """Take in an attached source: what its requests refer to, then request by request."""
    with transaction(conn, target):
        _add_others(conn)
    last = _number(conn, "SELECT ifnull(max(rowid), 0) FROM source.requests")
    taken = Taken(source.name)
    for first in range(1, last + 1, REQUESTS_AT_ONCE):
        rows = (first, first + REQUESTS_AT_ONCE - 1)
        with transaction(conn, target):
            if first > 1:
                _add_referred(conn)  # a shard that is being sent may have begun more of them
            taken += _chunk(conn, source.name, "{}.rowid BETWEEN ? AND ?", rows)
        if last > REQUESTS_AT_ONCE:
            say(f"merge: {source.name}: {min(rows[1], last):,} of {last:,} requests")
    with transaction(conn, target):
        row = {**asdict(taken), "source_state": state, "merged_at": utc_now()}
        names = columns_of("merges")
        marks = ", ".join(f":{name}" for name in names)
        conn.execute(f"INSERT INTO main.merges ({', '.join(names)}) VALUES ({marks})", row)
    return taken


def _add_referred(conn: sqlite3.Connection) -> None:
    """What histories refer to, where that may have come since the merge began."""
    _add_missing(conn, "sessions")
    _add_missing(conn, "runs")


def _add_others(conn: sqlite3.Connection) -> None:
    """Rows of all tables but those of histories."""
    for table in _OTHERS:
        if table in ("examples", "manifest_entries", "bins") and not _has_newer_manifest(conn):
            continue
        if _exists(conn, table):
            _add_missing(conn, table)
    for table, columns in _EARLIEST.items():
        _set_earliest(conn, table, columns)


def _has_newer_manifest(conn: sqlite3.Connection) -> bool:
    newer = "SELECT 1 FROM source.manifests s WHERE NOT EXISTS (SELECT 1 FROM main.manifest_entries e WHERE "
    return conn.execute(f"{newer} e.dataset_id = s.dataset_id AND e.version = s.version)").fetchone() is not None


def _exists(conn: sqlite3.Connection, table: str) -> bool:
    return conn.execute("SELECT 1 FROM source.sqlite_master WHERE name = ?", (table,)).fetchone() is not None


def _add_missing(conn: sqlite3.Connection, table: str) -> None:
    """Rows whose key is not there yet, in the order in which they were written."""
    names = ", ".join(f's."{name}"' for name in columns_of(table))
    known = f"SELECT 1 FROM main.{table} m WHERE {_same_key(conn, table, 'm', 's')}"
    conn.execute(
        f"INSERT INTO main.{table} ({names.replace('s.', '')}) SELECT {names} FROM source.{table} s "
        f"WHERE NOT EXISTS ({known}) ORDER BY s.rowid"
    )


def _same_key(conn: sqlite3.Connection, table: str, one: str, other: str) -> str:
    keys = [row[1] for row in conn.execute(f"PRAGMA main.table_info({table})") if row[5]]
    return " AND ".join(f'{one}."{key}" = {other}."{key}"' for key in keys)


def _set_earliest(conn: sqlite3.Connection, table: str, columns: Sequence[str]) -> None:
    """Give rows that both have the words of the earlier one."""
    names, same = ", ".join(columns), _same_key(conn, table, "t", "s")
    theirs = ", ".join(f"s.{name}" for name in columns)
    earlier = f"FROM source.{table} s WHERE {same} AND ({theirs}) < ({', '.join(f't.{name}' for name in columns)})"
    if conn.execute(f"SELECT 1 FROM main.{table} t WHERE EXISTS (SELECT 1 {earlier}) LIMIT 1").fetchone():
        with _unguarded(conn, table):
            conn.execute(
                f"UPDATE main.{table} AS t SET ({names}) = (SELECT {theirs} {earlier}) "
                f"WHERE EXISTS (SELECT 1 {earlier})"
            )


@contextmanager
def _unguarded(conn: sqlite3.Connection, *tables: str) -> Iterator[None]:
    """The guards of these tables are off while the block runs. It is part of a transaction: a kill leaves them on."""
    guards = {name: sql for table in tables for name, sql in guards_of(table).items()}
    for name in guards:
        conn.execute(f"DROP TRIGGER IF EXISTS main.{name}")
    yield
    for sql in guards.values():
        conn.execute(sql)


def _chunk(conn: sqlite3.Connection, source: str, which: str, values: Sequence[object]) -> Taken:
    """Some requests of the source: `which` is a condition on its table of requests, {} for the table, with `values`."""
    conn.execute("DELETE FROM temp.taken")
    known = "SELECT 1 FROM main.requests m WHERE m.request_id = r.request_id"
    sql = f"SELECT r.request_id FROM source.requests r WHERE {which.format('r')}"
    n_new = conn.execute(f"INSERT INTO temp.taken {sql} AND NOT EXISTS ({known})", values).rowcount
    n = _number(conn, f"SELECT count(*) FROM ({sql})", values)
    continued, replaced, n_left = [], [], 0
    if n > n_new:
        for request_id in list(conflicts(conn, "main", "source", within=which.format("o"), values=values)):
            ours, theirs = (standing(conn, schema, request_id) for schema in ("main", "source"))
            if theirs >= ours:
                n_left += 1
            elif continues(theirs, ours):
                continued.append(request_id)
            else:
                replaced.append(request_id)
    if replaced:
        _remove(conn, replaced)
        conn.executemany("INSERT INTO temp.taken VALUES (?)", [(each,) for each in replaced])
    with _unguarded(conn, *TABLES):  # what they look for at every row, that its key is new, is known here
        for table in TABLES:
            names = ", ".join(f's."{name}"' for name in columns_of(table))
            into = f"INSERT INTO main.{table} ({names.replace('s.', '')}) SELECT {names}"
            conn.execute(f"{into} FROM temp.taken t CROSS JOIN source.{table} s ON s.request_id = t.request_id")
            for request_id in continued:
                known = f"SELECT 1 FROM main.{table} m WHERE {_same_key(conn, table, 'm', 's')}"
                sql = f"{into} FROM source.{table} s WHERE s.request_id = ? AND NOT EXISTS ({known})"
                conn.execute(sql, (request_id,))
    n_equal = n - n_new - len(continued) - len(replaced) - n_left
    return Taken(source, n, n_new, n_equal, len(continued), len(replaced), n_left)


def _remove(conn: sqlite3.Connection, request_ids: Sequence[str]) -> None:
    """Make room for the histories that supersede those of these requests. What was derived from them goes as well."""
    ids = [(each,) for each in request_ids]
    runs = conn.execute(
        f"SELECT DISTINCT run_id FROM main.requests WHERE request_id IN ({','.join('?' * len(ids))})", [*request_ids]
    ).fetchall()
    conn.executemany("DELETE FROM main.scores WHERE request_id = ?", ids)
    conn.executemany("DELETE FROM main.analysis_state WHERE scope = ?", runs)
    conn.execute("DELETE FROM main.analysis_state WHERE scope = '*'")
    with _unguarded(conn, *TABLES):
        for table in reversed(TABLES):
            conn.executemany(f"DELETE FROM main.{table} WHERE request_id = ?", ids)


def _number(conn: sqlite3.Connection, sql: str, values: Sequence[object] = ()) -> int:
    return int(conn.execute(sql, [*values]).fetchone()[0])

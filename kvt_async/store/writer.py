"""The only INSERTs of run facts: one connection, group commit, a future that resolves when its rows are on disk.

Rows wait at most `flush_interval_s`, and GATHER_S when somebody waits for their commit: what ends meanwhile goes along,
for a commit costs as much as the rows of ten requests. A commit that fails ends the writer: what was not committed was
not done. A row that can't be inserted fails no commit: it is left out with the other rows of its request, the rest of
the group is committed, and `refused` says why.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType

import aiosqlite

from kvt_async.bug_reports import BugReports
from kvt_async.contract.errors import StoreError
from kvt_async.contract.local_faults import store_error
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.schema_tables import FACT_TABLES, columns_of
from kvt_async.contract.secrets import NONE, Secrets
from kvt_async.contract.storable import storable_text
from kvt_async.contract.waiting import transaction
from kvt_async.store.columns import COLUMNS, Row

MAX_WAITING_ROWS = 4096  # then `submit` waits for the disk: that is the back-pressure
WAL_LIMIT_BYTES = 64 * 1024 * 1024
GATHER_S = 0.003
OnCommit = Callable[[bool], None]  # is called with whether the rows are on disk
# Python's sqlite3 asks every value but numbers and text how it wants to be stored: for NULL that takes longer than to
# store it. With an adapter it need not ask. Both return the value itself: nobody else in the process sees a difference.
sqlite3.register_adapter(type(None), lambda nothing: None)
sqlite3.register_adapter(bytes, bytes)
OF_REPLIES = frozenset({"attempts", "telemetry", "responses", "give_ups"})  # what a server's bytes end up in
BAD_ROW = (  # what a value, and no disk, is to blame for
    *(sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError),
    *(UnicodeError, OverflowError, TypeError, ValueError),
)
AT_ONCE = (32, 8, 1)  # rows of one statement: it runs without Python's lock, which each statement takes back


class _FoundBadRowsError(Exception):
    """Raised to roll back a group, which is then written without its bad rows."""


class Writer:
    """`async with Writer(db) as store:`; leaving it commits what waits and truncates the WAL.

        offer(rows)         take them at once or not at all: False while too many rows wait
        submit(rows)        the same, but wait until there is room; returns the future of their commit
        save(rows)          submit, and return when they are on disk
        insert(table, row)  save one row of any fact table, its columns by name, without secrets
        flush()             return when everything so far is on disk

    `offer` and `submit` take an `on_commit` that is called when the rows are on disk or can't be: a call costs less
    than waking a task that awaits the future. Rows are tuples in the order of store/columns.py, whose makers bring
    replies without secrets. `save` and `flush` begin a commit at once; `save(gather=True)` and `hurry()` give other
    rows GATHER_S to go along.

    Raises StoreError on entering (see contract.schema.connect_for_writing) and from every call after a failed commit.
    """

    def __init__(
        self,
        db: Path,
        flush_interval_s: float = 0.05,
        *,
        max_waiting_rows: int = MAX_WAITING_ROWS,
        urgent: Callable[[], bool] = lambda: False,
        batch: int = MAX_WAITING_ROWS,
        secrets: Secrets = NONE,
        is_scratch: bool = False,
    ) -> None:
        """`urgent`: whether anybody waits for a commit right now; `batch`: when so many have given an `on_commit`, the
        commit begins without waiting for others. `secrets` are kept out of what `insert` writes. `is_scratch`: what its
        rows refer to lies in another database, which will look that up when it takes them over."""
        self.db, self._secrets, self._bugs = db, secrets, BugReports(db.parent, secrets)
        self.commits = 0
        self._interval_s, self._max_rows = flush_interval_s, max_waiting_rows
        self._urgent, self._batch, self._is_scratch = urgent, batch, is_scratch
        self._columns: dict[str, tuple[str, ...]] = dict(COLUMNS)
        self._inserts: dict[tuple[str, int], str] = {}
        self._waiting: dict[str, list[tuple[object, ...]]] = defaultdict(list)
        self._n_waiting = 0
        self._numbered: Counter[tuple[str, object]] = Counter()  # rows of a table that a session numbers
        self._saved: asyncio.Future[None]  # of the rows that wait now; one future for a whole group
        self._committing: asyncio.Future[None] | None = None  # of the group that is on its way to the disk
        self._on_commit: list[OnCommit] = []  # of the rows that wait now
        self._wake, self._hurry, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None  # sets _hurry
        self.broken: Exception | None = None  # why nothing can be written any more
        self.refused: dict[str, Exception] = {}  # by request: why its rows can't be inserted; its sender looks here
        self._closing = False

    async def __aenter__(self) -> "Writer":
        # First without aiosqlite, whose thread outlives the loop when opening fails.
        await asyncio.to_thread(lambda: connect_for_writing(self.db).close())
        self._conn = aiosqlite.Connection(lambda: connect_for_writing(self.db), 64)
        await self._conn
        await self._conn.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
        if self._is_scratch:
            await self._conn.execute("PRAGMA foreign_keys=OFF")
        for table in FACT_TABLES:
            if table not in self._columns:
                self._columns[table] = columns_of(table)
        self._inode = os.stat(self.db).st_ino
        self._loop = asyncio.get_running_loop()
        self._saved = self._loop.create_future()
        self._task = asyncio.create_task(self._commit_forever(), name="writer")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._wake.set()
        self._hurry.set()
        try:
            await self._task
            if self.broken is None:
                with contextlib.suppress(sqlite3.Error):  # a reader may hold the WAL; the next writer truncates it
                    await self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            await self._conn.close()
        if self.broken is not None and kind is None:
            raise self.broken

    async def submit(self, rows: Sequence[Row], on_commit: OnCommit | None = None) -> "asyncio.Future[None]":
        """Take rows of hot tables, committed together, once there is room; the future resolves at their commit."""
        while not self.offer(rows, on_commit):
            if self.broken is not None:
                raise self.broken
            self._room.clear()
            self._hurry.set()
            await self._room.wait()
        return self._saved

    def offer(self, rows: Sequence[Row], on_commit: OnCommit | None = None, *, at_once: bool = False) -> bool:
        """Take rows if there is room, however many wait where `at_once`. False: they were not taken."""
        if (self._n_waiting >= self._max_rows and not at_once) or self.broken is not None:
            return False
        waiting = self._waiting
        for table, values in rows:
            waiting[table].append(values)
        self._n_waiting += len(rows)
        if on_commit is not None:
            self._on_commit.append(on_commit)
            if len(self._on_commit) == self._batch:
                self._hurry.set()
        if not self._wake.is_set():
            self._wake.set()
        return True

    async def save(self, rows: Sequence[Row], *, gather: bool = False) -> None:
        """`submit`, and return when they are on disk. `gather`: let others go along."""
        future = await self.submit(rows)
        if gather:
            self.hurry()
        else:
            self._hurry.set()
        await asyncio.shield(future)

    async def insert(self, table: str, row: Mapping[str, object]) -> None:
        """One row of any fact table, columns by name, NULL where none is given; return when it is on disk. Tables whose
        rows a session numbers get the next `n`."""
        if unknown := row.keys() - set(self._columns[table]):
            raise KeyError(f"{table} has no columns {sorted(unknown)}")
        if "n" in self._columns[table]:
            key = (table, row["session_id"])
            row = {**row, "n": self._numbered[key]}
            self._numbered[key] += 1
        mask = self._secrets.text
        values = (row.get(name) for name in self._columns[table])
        texts = (storable_text(mask(value)) if isinstance(value, str) else value for value in values)
        await self.save([(table, tuple(texts))])

    def hurry(self) -> None:
        """Let the commit of what waits begin within GATHER_S: somebody waits for it."""
        if self._soon is None:
            self._soon = self._loop.call_later(min(GATHER_S, self._interval_s), self._hurry.set)

    async def flush(self) -> None:
        """Return when everything submitted so far is committed."""
        if self.broken is not None:
            raise self.broken
        futures = [self._committing] if self._committing is not None else []
        if self._n_waiting:
            self._hurry.set()
            futures.append(self._saved)
        for future in futures:
            await asyncio.shield(future)

    async def _commit_forever(self) -> None:
        while True:
            await self._wake.wait()
            if self._n_waiting and len(self._on_commit) < self._batch and not self._closing:
                await self._gather()
            self._hurry.clear()
            self._wake.clear()
            if self._soon is not None:
                self._soon.cancel()
                self._soon = None
            group, saved, on_commit = self._waiting, self._saved, self._on_commit
            self._waiting, self._on_commit, self._n_waiting = defaultdict(list), [], 0
            self._committing, self._saved = saved, self._loop.create_future()
            try:
                if group:
                    await self._commit(group)
            except Exception as error:
                self._fail(error, saved, on_commit)
                return
            self._committing = None
            for call in on_commit:
                call(True)
            if not saved.done():
                saved.set_result(None)
            self._room.set()
            if self._closing and not self._n_waiting:
                return

    async def _gather(self) -> None:
        """Wait for rows that may go along with those that are here."""
        if self._urgent():
            self.hurry()
        timer = self._loop.call_later(self._interval_s, self._hurry.set)
        await self._hurry.wait()
        timer.cancel()

    async def _commit(self, group: dict[str, list[tuple[object, ...]]]) -> None:
        # one trip to its thread, where its public calls would be five
        await self._conn._execute(self._write, group)  # type: ignore[no-untyped-call]
        self.commits += 1
        if os.stat(self.db).st_ino != self._inode:  # SQLite goes on writing into a deleted file
            raise FileNotFoundError("another file took its place")

    def _write(self, group: dict[str, list[tuple[object, ...]]]) -> None:
        """Write a group in one transaction, on the connection's own thread."""
        conn = self._conn._conn
        try:
            with transaction(conn, self.db):
                for table in FACT_TABLES:  # parents before children
                    rows, at = group.get(table, ()), 0
                    for size in AT_ONCE:
                        while len(rows) - at >= size:
                            conn.execute(self._insert_sql(table, size), [*chain.from_iterable(rows[at : at + size])])
                            at += size
        except BAD_ROW:
            self._write_without_bad_rows(conn, group)

    def _write_without_bad_rows(self, conn: sqlite3.Connection, group: dict[str, list[tuple[object, ...]]]) -> None:
        """Write a group row by row, all but the requests one of whose rows can't be inserted.

        Raises what SQLite says of a row that is no reply's: that is a bug of ours, and nothing is committed.
        """
        bad: dict[object, Exception] = {}
        n_bad = -1
        while len(bad) > n_bad:  # the last round inserts the rest and commits
            n_bad = len(bad)
            with contextlib.suppress(_FoundBadRowsError), transaction(conn, self.db):
                for table in FACT_TABLES:
                    for values in group.get(table, ()):
                        if table in OF_REPLIES and values[0] in bad:
                            continue
                        try:
                            conn.execute(self._insert_sql(table, 1), values)
                        except BAD_ROW as error:
                            if table not in OF_REPLIES:
                                raise
                            bad[values[0]] = error
                if len(bad) > n_bad:
                    raise _FoundBadRowsError  # rows of a bad request went in before its bad one
        for request_id, reason in bad.items():
            self._bugs(reason, f"a row that could not be inserted, of {request_id}")
        self.refused |= {str(request_id): reason for request_id, reason in bad.items()}

    def _fail(self, error: Exception, saved: "asyncio.Future[None]", on_commit: Sequence[OnCommit]) -> None:
        if isinstance(error, StoreError):
            self.broken = error
        elif isinstance(error, FileNotFoundError):
            self.broken = StoreError(
                "the database was moved or deleted while it was in use",
                where=str(self.db),
                do="Put it back, or run the same command again to start a new one.",
            )
        elif isinstance(error, sqlite3.IntegrityError) or not isinstance(error, sqlite3.Error | OSError):
            self.broken = error  # a bug of ours: let it be seen
        else:
            self.broken = store_error(self.db, error)
        for future in (saved, self._saved):
            if not future.done():
                future.set_exception(self.broken)
                future.exception()  # somebody may have gone already
        for call in (*on_commit, *self._on_commit):
            call(False)
        self._room.set()

    def _insert_sql(self, table: str, n_rows: int) -> str:
        sql = self._inserts.get((table, n_rows))
        if sql is None:
            columns = self._columns[table]
            row = f"({', '.join('?' * len(columns))})"
            sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * n_rows)}"
            self._inserts[table, n_rows] = sql
        return sql

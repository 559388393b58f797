"""Facts that were committed to a database since they were last looked at, taken to a copy of it on another machine.

Facts only grow, and SQLite numbers the rows of a table in the order in which they come: so what is new is what has a
higher number than the last one that the copy has. A `Pull` is what one transaction of the source shows, in portions of
some megabytes; a `Copy` commits all portions of a pull together, so that it always stands where the source once stood.
"""

import sqlite3
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from kvt_async.contract.schema import connect_for_reading, connect_for_writing
from kvt_async.contract.schema_tables import FACT_TABLES, columns_of

PORTION_BYTES = 8 << 20
PIECE_BYTES = 32 << 20
_ROWS = 500  # read at once; a portion is looked at after each

Marks = Mapping[str, int]
"""By table: the number of the newest row that the copy has. A table that isn't named is empty."""


def marks_of(conn: sqlite3.Connection) -> dict[str, int]:
    """The number of each table's newest row, 0 where it has none."""
    union = " UNION ALL ".join(f"SELECT '{table}', coalesce(max(rowid), 0) FROM {table}" for table in FACT_TABLES)
    return dict(conn.execute(union).fetchall())


class Pull:
    """What is new in a database: `portions` yields it as compressed SQLite databases, parents before children."""

    def __init__(self, db: Path, since: Marks) -> None:
        """Raises StoreError where the database can't be read."""
        self._conn = connect_for_reading(db, check_same_thread=False)
        self._from = {table: since.get(table, 0) for table in FACT_TABLES}
        self._to = marks_of(self._conn)  # one statement, one snapshot: rows up to here stay as they are

    def portions(self) -> Iterator[bytes]:
        """Each is for `Copy.add`. Closes the database at the end."""
        with closing(self._conn):
            portion = _Portion()
            for table in FACT_TABLES:
                at, columns = self._from[table], _listed(table)
                query = f"SELECT rowid, {columns} FROM {table} WHERE rowid > ? AND rowid <= ? ORDER BY rowid LIMIT ?"
                while rows := self._conn.execute(query, (at, self._to[table], _ROWS)).fetchall():
                    portion.add(table, rows)
                    at = rows[-1][0]
                    if portion.is_full:
                        yield portion.packed()
                        portion = _Portion()
            if portion.n_rows:
                yield portion.packed()


class _Portion:
    """Rows on their way, in a database in memory."""

    def __init__(self) -> None:
        self.n_rows = 0
        self._conn = sqlite3.connect(":memory:", isolation_level=None)
        for table in FACT_TABLES:
            self._conn.execute(f"CREATE TABLE {table} (row_number INTEGER PRIMARY KEY, {_listed(table)})")

    @property
    def is_full(self) -> bool:
        pages, page_bytes = (self._conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        return bool(pages * page_bytes > PORTION_BYTES)

    def add(self, table: str, rows: list[tuple[object, ...]]) -> None:
        self.n_rows += len(rows)
        self._conn.execute("BEGIN")
        self._conn.executemany(f"INSERT INTO {table} VALUES ({_marks_for(table)})", rows)
        self._conn.execute("COMMIT")

    def packed(self) -> bytes:
        with closing(self._conn):
            return zlib.compress(self._conn.serialize(), 1)


def database_pieces(db: Path) -> Iterator[bytes]:
    """A database as it stands, as pieces of a file. Its own file is not opened here: closing it would drop the locks
    that SQLite has on it in this process."""
    with tempfile.TemporaryDirectory(dir=db.parent) as folder:
        path = Path(folder) / db.name
        with closing(connect_for_reading(db)) as conn, closing(sqlite3.connect(path)) as copied:
            conn.backup(copied)  # page by page: unlike VACUUM, it leaves rows their numbers
            copied.execute("PRAGMA journal_mode=DELETE")
        yield from file_pieces(path)


def file_pieces(path: Path) -> Iterator[bytes]:
    """A file in pieces that fit into a message."""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


class Copy:
    """A database that follows another one. A context manager: at its end what was not committed is gone."""

    def __init__(self, db: Path) -> None:
        """Raises StoreError where it can't be written."""
        self._conn = connect_for_writing(db)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._conn.close()

    def marks(self) -> dict[str, int]:
        """How far it has come; only what is committed counts."""
        self.forget()
        return marks_of(self._conn)

    def add(self, portion: bytes) -> None:
        """Take a portion of a pull; `commit` after its last. Raises sqlite3.IntegrityError where it does not fit."""
        if not self._conn.in_transaction:
            self._conn.execute("BEGIN IMMEDIATE")
        with closing(sqlite3.connect(":memory:")) as source:
            source.deserialize(zlib.decompress(portion))
            for table in FACT_TABLES:
                rows = source.execute(f"SELECT * FROM {table} ORDER BY row_number")
                self._conn.executemany(
                    f"INSERT INTO {table} (rowid, {_listed(table)}) VALUES ({_marks_for(table)})", rows
                )

    def commit(self) -> None:
        """All portions since the last commit, together."""
        if self._conn.in_transaction:
            self._conn.execute("COMMIT")

    def forget(self) -> None:
        """Leave out the portions since the last commit: the pull that they are of has no end."""
        if self._conn.in_transaction:
            self._conn.execute("ROLLBACK")


def _listed(table: str) -> str:
    return ", ".join(f'"{name}"' for name in columns_of(table))


def _marks_for(table: str) -> str:
    return ", ".join("?" * (1 + len(columns_of(table))))

"""Facts that a sender process has stored and its group's database does not have yet.

Each process writes a database of its own, so that none waits for another's commit; the parent takes its facts over once
nobody writes to it, and removes it. One that a killed parent left behind is taken over by the next command.
"""

import contextlib
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from kvt_async.contract.errors import StoreError
from kvt_async.contract.local_faults import store_error
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.schema_tables import columns_of
from kvt_async.contract.waiting import transaction
from kvt_async.store.facts_beside import KEYS
from kvt_async.store.lock import holder, lock_path

ORPHANS_END_S = 10.0  # so long may the processes of a killed parent take to see that it is gone


def scratch_db(db: Path, i: int, n: int) -> Path:
    """The database of sender `i` (0, 1, ...) of `n` beside its group's."""
    return _folder(db) / f"{i + 1}-of-{n}.sqlite"


def scratch_dbs(db: Path) -> list[Path]:
    """Those that are there, of senders at work or of a killed command."""
    return sorted(_folder(db).glob("*-of-*.sqlite")) if _folder(db).is_dir() else []


def take_over_left(db: Path) -> int:
    """Take over what a killed command left; return how many outcomes came. Raises StoreError where one of its
    processes is still at work."""
    left = scratch_dbs(db)
    until = time.monotonic() + ORPHANS_END_S
    for scratch in left:
        while (who := holder(scratch)) is not None:
            if time.monotonic() > until:
                raise StoreError(
                    "a sender process of an earlier command is still at work; nothing was sent",
                    where=str(scratch),
                    details=(str(who),),
                    do="Wait for it, or end it.",
                )
            time.sleep(0.05)
    return take_over(db, left)


def take_over(db: Path, scratches: Sequence[Path]) -> int:
    """Move the facts of these databases into the group's, whole or not at all; return how many responses and give-ups
    came. What is there already stays. Raises StoreError."""
    n = 0
    for scratch in scratches:
        if scratch.is_file() and scratch.stat().st_size:
            n += _copied(db, scratch)
        for path in (scratch, *(scratch.with_name(scratch.name + end) for end in ("-wal", "-shm")), lock_path(scratch)):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not there, or another's files are in it
        _folder(db).rmdir()
    return n


def _copied(db: Path, scratch: Path) -> int:
    n = 0
    connect_for_writing(scratch).close()  # its WAL is in it now, and its schema is ours
    with closing(connect_for_writing(db)) as conn:
        try:
            conn.execute("ATTACH ? AS scratch", (str(scratch),))
            with transaction(conn, db):
                for table, key in KEYS.items():
                    names = ", ".join(columns_of(table))
                    same = " AND ".join(f"mine.{name} = theirs.{name}" for name in key)
                    taken = conn.execute(
                        f"INSERT INTO main.{table} ({names}) SELECT {names} FROM scratch.{table} theirs "
                        f"WHERE NOT EXISTS (SELECT 1 FROM main.{table} mine WHERE {same})"
                    )
                    n += taken.rowcount if table in ("responses", "give_ups") else 0
        except sqlite3.Error as error:
            raise store_error(scratch, error) from error
    return n


def _folder(db: Path) -> Path:
    return db.with_name(f"{db.stem}.senders")

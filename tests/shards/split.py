"""One database dealt to the shards of a group, as they would have been written by several processes."""

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from kvt_async.contract.schema import create
from kvt_async.contract.shards.histories import TABLES
from kvt_async.contract.shards.shard import Shard, shards_folder

_OF_SESSIONS = ("sessions", "session_ends", "attempts", "try_series", "server_snapshots", "probes", "client_health")
_REQUESTS = """SELECT r.request_id, x.context_sha256, u.level_idx + 100 * u.repeat_idx FROM requests r
    JOIN runs u USING (run_id) JOIN examples x ON x.dataset_id = u.dataset_id AND x.example_id = r.example_id"""
Part = Callable[[str, int], int]  # (context, number of the level) -> 0 .. n - 1


def by_context(n: int) -> Part:
    return lambda context, _: int(hashlib.sha256(context.encode()).hexdigest(), 16) % n


def by_level(n: int) -> Part:
    return lambda _, level: level % n


def split(whole: Path, own: Path, n: int, part: Part) -> list[Path]:
    """Shards of a group whose own database would be `own`, each with its part of the requests of `whole`."""
    shards = [shards_folder(own) / f"{Shard(i + 1, n).name}.sqlite" for i in range(n)]
    for i, db in enumerate(shards):

        def is_own(context: str, level: int, i: int = i) -> bool:
            return part(context, level) == i

        db.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(whole, db)
        keep(db, is_own, session=f"-{i}")
        with closing(sqlite3.connect(db)) as conn:
            conn.execute("DROP TRIGGER sessions_no_update")
            conn.execute("UPDATE sessions SET shard_i = ?, shard_n = ?", (i + 1, n))
            conn.commit()
            conn.isolation_level = None
            create(conn)
    return shards


def keep(db: Path, chosen: Callable[[str, int], bool], *, session: str = "") -> None:
    """Leave the requests that are chosen; `session` is added to the name of every session."""
    with closing(sqlite3.connect(db)) as conn:
        for (trigger,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            conn.execute(f"DROP TRIGGER {trigger}")
        others = [(request,) for request, *place in conn.execute(_REQUESTS) if not chosen(*place)]
        for table in reversed(TABLES):
            conn.executemany(f"DELETE FROM {table} WHERE request_id = ?", others)
        for table in _OF_SESSIONS:
            conn.execute(f"UPDATE {table} SET session_id = session_id || ?", (session,))
        conn.commit()
        conn.isolation_level = None
        create(conn)

"""Which databases the facts of a group are read from, and which requests from which of them.

A group has one database of its own (runs/GROUP/kv_transition.sqlite) and may have shards beside it (runs/GROUP/shards/
i-of-n.sqlite). They are read together, merged or not: a request counts once. Shards of one n share no request, for
each sends another part; where the group's own database or shards of another n have the same request, the history that
`kvt merge` would keep is the one that is read.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import orjson

from kvt_async.contract.errors import MissingPrerequisiteError
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.shards.attached import attach
from kvt_async.contract.shards.histories import TABLES, conflicts, standing
from kvt_async.contract.shards.likeness import refuse_unlike
from kvt_async.contract.shards.shard import part_of, shard_databases

_COUNTED = (*TABLES, "sessions", "session_ends", "manifests", "runs", "server_snapshots", "probes", "client_health")


_SIDES = ("one", "other")


@dataclass(frozen=True, slots=True)
class GroupDatabase:
    """One database of a group. `part`: (i, n) of a shard, None of the group's own. `without`: request_ids that it has
    and that are to be read from another one of the group."""

    db: Path
    part: tuple[int, int] | None = None
    without: frozenset[str] = frozenset()


def group_databases(db: Path) -> tuple[GroupDatabase, ...]:
    """The databases to read of the group whose own database is (or would be) `db`: its own first, then its shards.

    Left out are shards that the group's own database has taken in whole, shards in which nothing was run yet, and the
    group's own database where only shards were run. Without shards it is `(GroupDatabase(db),)`, whether `db` is there
    or not, and nothing is opened.

    Raises ContractMismatchError or DriftError where they were not made under one contract, from one manifest, by one
    server.
    """
    members = members_of(db) if shard_databases(db) else []
    return _each_request_once(members) if members else (GroupDatabase(db),)


def members_of(db: Path) -> list[GroupDatabase]:
    """The databases that `group_databases` names, before it is known which requests several of them have; empty where
    nothing was run. Raises as it does."""
    taken = merged_states(db)
    members = [GroupDatabase(path, part_of(path)) for path in (db, *shard_databases(db)) if was_run(path)]
    members = [member for member in members if member.part is None or (member.db.name, _state(member.db)) not in taken]
    refuse_unlike([member.db for member in members])
    return members


def facts_state(conn: sqlite3.Connection, schema: str = "main") -> str:
    """What a database holds, as a short text that is another one once a fact was added: facts only grow."""
    counts = {table: conn.execute(f"SELECT max(rowid) FROM {schema}.{table}").fetchone()[0] or 0 for table in _COUNTED}
    last = conn.execute(f"SELECT session_id FROM {schema}.sessions ORDER BY rowid DESC LIMIT 1").fetchone()
    return orjson.dumps(counts | {"session": last[0] if last else None}).decode()


def merged_states(db: Path) -> frozenset[tuple[str, str]]:
    """(name, `facts_state`) of every database that the group's own one has taken in, as it was then."""
    if not db.is_file():
        return frozenset()
    try:
        with closing(connect_for_reading(db)) as conn:
            if not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'merges'").fetchone():
                return frozenset()
            return frozenset(conn.execute("SELECT source, source_state FROM merges").fetchall())
    except MissingPrerequisiteError:  # it holds no tables yet
        return frozenset()


def was_run(db: Path) -> bool:
    """Whether any level of any experiment was begun in it."""
    if not db.is_file():
        return False
    try:
        with closing(connect_for_reading(db)) as conn:
            return conn.execute("SELECT 1 FROM experiments LIMIT 1").fetchone() is not None
    except MissingPrerequisiteError:
        return False


def _state(db: Path) -> str:
    with closing(connect_for_reading(db)) as conn:
        return facts_state(conn)


def _each_request_once(members: Sequence[GroupDatabase]) -> tuple[GroupDatabase, ...]:
    """The members, each without the requests that hold in another one."""
    without: list[set[str]] = [set() for _ in members]
    for a, b in combinations(range(len(members)), 2):
        one, other = members[a], members[b]
        if one.part is not None and other.part is not None and one.part[1] == other.part[1]:
            continue
        with closing(sqlite3.connect(":memory:", uri=True)) as conn:
            attach(conn, "one", one.db)
            attach(conn, "other", other.db)
            of_other = _in_both(conn)
            differing = conflicts(conn, "one", "other") if of_other else ()
            of_one = {each for each in differing if standing(conn, "other", each) < standing(conn, "one", each)}
        without[a] |= of_one
        without[b] |= of_other - of_one
    return tuple(replace(member, without=frozenset(ids)) for member, ids in zip(members, without, strict=True))


def _in_both(conn: sqlite3.Connection) -> set[str]:
    """request_ids that two attached databases have: those of the smaller one are looked for in the other."""
    sizes = {name: conn.execute(f"SELECT max(rowid) FROM {name}.requests").fetchone()[0] or 0 for name in _SIDES}
    small, large = sorted(_SIDES, key=lambda name: int(sizes[name]))
    sql = f"""SELECT s.request_id FROM {small}.requests s
              WHERE EXISTS (SELECT 1 FROM {large}.requests l WHERE l.request_id = s.request_id)"""
    return {row[0] for row in conn.execute(sql)}

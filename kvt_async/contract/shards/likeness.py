"""Whether databases are parts of one group: made under one contract, from one manifest, of one server's answers.

What one of them does not have is no difference: a shard may be of an older version of a manifest that has grown since,
or lack a task, a level or a generation.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from kvt_async.contract.differing_fields import difference, flat
from kvt_async.contract.errors import ContractMismatchError, DriftError, GuardError
from kvt_async.contract.formulas.server_identity import drift, known
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.secrets import matches

Json = dict[str, Any]

_OF_THE_EARLIEST = ("run_id", "base_url", "engine_name", "level_idx", "created_at")
"""Columns of `runs` that may differ: the earliest row's hold."""
_LEVEL = ("exp_group_id", "generation", "dataset_id", "series", "kv_budget", "kv_unit", "repeat_idx")
_DO = (
    "Parts of one group have one config, one manifest and one server: send this part again as it should be, or keep it "
    "as a group of its own."
)


@dataclass(frozen=True, slots=True)
class _Part:
    """Something that databases of one group have alike: `what` it is called in a refusal."""

    what: str
    content: Json
    db: Path


def refuse_unlike(databases: Sequence[Path]) -> None:
    """Raises ContractMismatchError or DriftError, naming the two databases and what differs."""
    parts: dict[tuple[Any, ...], _Part] = {}
    servers: dict[tuple[Any, ...], _Part] = {}
    for db in databases:
        with closing(connect_for_reading(db)) as conn:
            for key, part in _parts(conn, db):
                first = parts.setdefault(key, part)
                if not matches(part.content, first.content) and not matches(first.content, part.content):
                    raise _unlike(first, part)
            for key, part in _servers(conn, db):
                first = servers.setdefault(key, part)
                if changes := drift(first.content, part.content, str(key[0])):
                    raise _other_server(first, part, changes)
                servers[key] = _Part(first.what, known([part.content, first.content]), first.db)


def _unlike(first: _Part, part: _Part) -> GuardError:
    one, other = _names(first.db, part.db)
    return ContractMismatchError(
        f"{first.what} in {one} is not that in {other}: they are not parts of one group",
        where=str(part.db),
        details=difference(first.content, part.content, sides=(one, other)),
        do=_DO,
    )


def _other_server(first: _Part, part: _Part, changes: Sequence[str]) -> GuardError:
    one, other = _names(first.db, part.db)
    words = [re.sub(r" changed from (.*) to ", rf" differs: {one} \1, {other} ", change) for change in changes]
    return DriftError(
        f"{first.what} in {one} was not that in {other}: answers of two servers are never mixed",
        where=str(part.db),
        details=tuple(words),
        do=_DO,
    )


def _names(one: Path, other: Path) -> tuple[str, str]:
    return (one.name, other.name) if one.name != other.name else (str(one), str(other))


def _parts(conn: sqlite3.Connection, db: Path) -> Iterator[tuple[tuple[Any, ...], _Part]]:
    """What must be alike, by its key."""
    for group, generation, text in conn.execute("SELECT exp_group_id, generation, contract_json FROM experiments"):
        what = f"the contract of {group}, generation {generation},"
        yield ("contract", group, generation), _Part(what, flat(orjson.loads(text)), db)
    sql = "SELECT exp_group_id, generation, task, dataset_id, contract_json FROM task_contracts"
    for group, generation, task, dataset_id, text in conn.execute(sql):
        what = f"the contract of task {task} ({group}, generation {generation})"
        yield ("task", group, generation, task), _Part(what, flat(orjson.loads(text)), db)
        what = f"the data set {dataset_id} ({group}, generation {generation})"
        yield ("name", group, generation, dataset_id), _Part(what, {"task": task}, db)
    for row in _dicts(conn, "SELECT * FROM datasets"):
        name = row.pop("dataset_id")
        content = {key: _loaded(key, value) for key, value in row.items()}
        yield ("dataset", name), _Part(f"the data set {name}", flat(content), db)
    for name, version, sha256, n in conn.execute("SELECT dataset_id, version, sha256, n_entries FROM manifests"):
        content = {"sha256": sha256, "n_entries": n}
        yield ("manifest", name, version), _Part(f"the manifest of {name}, version {version},", content, db)
    for row in _dicts(conn, "SELECT * FROM runs"):
        content = {key: _loaded(key, value) for key, value in row.items() if key not in _OF_THE_EARLIEST}
        yield ("run", row["run_id"]), _Part(f"level {row['run_id']}", flat(content), db)
        level = tuple(row[key] for key in _LEVEL)
        yield ("level", *level), _Part(f"the name of level {level[3]} {level[4]:g}", {"run_id": row["run_id"]}, db)


def _servers(conn: sqlite3.Connection, db: Path) -> Iterator[tuple[tuple[Any, ...], _Part]]:
    """Who served each level, and full cache in general, by (model, group, generation, level)."""
    sql = """SELECT s.exp_group_id, s.generation, ifnull(n.run_id, n.endpoint), n.identity_json FROM server_snapshots n
             JOIN sessions s USING (session_id) ORDER BY n.taken_at, n.n"""
    snapshots: dict[tuple[str, int, str], list[Json]] = {}
    for group, generation, key, text in conn.execute(sql):
        snapshots.setdefault((group, generation, key), []).append(orjson.loads(text))
    sql = "SELECT exp_group_id, generation, model_name, run_id, base_url, is_full FROM runs ORDER BY repeat_idx, rowid"
    for group, generation, model, run_id, base_url, is_full in conn.execute(sql):
        taken = snapshots.get((group, generation, run_id)) or snapshots.get((group, generation, base_url))
        if taken:
            server = known(taken)
            yield (model, group, generation, run_id), _Part(f"the server of level {run_id}", server, db)
            if is_full:
                yield (model, group, generation, None), _Part("the server of full cache", server, db)


def _dicts(conn: sqlite3.Connection, sql: str) -> Iterator[Json]:
    cursor = conn.execute(sql)
    names = [column[0] for column in cursor.description]
    yield from (dict(zip(names, row, strict=True)) for row in cursor)


def _loaded(key: str, value: Any) -> Any:
    return orjson.loads(value) if key.endswith("_json") and value else value

"""manifest.json -> facts in the database, once; and the proof that file and database agree."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson

from kvt_async.contract.errors import ContractMismatchError
from kvt_async.contract.waiting import transaction
from kvt_async.data.batches import batches
from kvt_async.data.manifest import ManifestEntry, ManifestHead, read_head, read_items
from kvt_async.records import Example

_EXAMPLE_COLUMNS = "dataset_id, example_id, question, context, answers_json, meta_json, context_sha256"
_ENTRY_COLUMNS = (
    "dataset_id, example_id, seq, version, bin_idx, token_len, context_tokens, original_tokens, prompt_truncated, "
    "prompt_sha256"
)
_DATASET_COLUMNS = (
    "dataset_id, name, task, tokenizer_name, tokenizer_sha256, source_revision, metric, prompt_json, selection_json"
)
MAX_DIFFERENCES = 50  # verify_parity stops counting there: the answer is no


def store_manifest(conn: sqlite3.Connection, path: Path, *, dataset_id: str) -> int:
    """Insert datasets, bins, examples, manifest_entries and manifests in one transaction; return entries inserted.

    0: this version was there already. A grown manifest adds its new entries to those of its earlier version.
    `dataset_id` is the manifest's own, or that with a generation's suffix (see stored_id).

    Raises ContractMismatchError, naming each field, where the database holds something else under this id.
    """
    head = read_head(path, verify=False)
    db = Path(conn.execute("PRAGMA database_list").fetchone()[2])
    with transaction(conn, db):
        return _store(conn, path, head, dataset_id)


def stored_id(conn: sqlite3.Connection, head: ManifestHead, generation: int) -> str:
    """The id for this manifest in a database: its own, or with __g{generation} where that already means other facts."""
    differences = [] if _stored_version(conn, head.dataset_id) is None else _differences(conn, head, head.dataset_id)
    return f"{head.dataset_id}__g{generation}" if differences else head.dataset_id


def verify_parity(conn: sqlite3.Connection, path: Path, *, dataset_id: str | None = None) -> list[str]:
    """Every difference between manifest and database, as sentences; empty: they agree to the last entry.

    Without `dataset_id` it is looked for by its hash, since a later generation stores it under a suffix.
    """
    head = read_head(path)
    name = dataset_id or _holder(conn, head)
    version = _stored_version(conn, name)
    if version is None:
        return [f"the database holds no dataset {name}"]
    differences = _differences(conn, head, name)
    if version != head.version:
        differences.append(f"manifest version: file {head.version}, database {version}")
    stored = _stored_items(conn, name)
    for seq, (entry, example) in enumerate(read_items(path)):
        wanted = (*_example_row(name, entry, example), *_entry_row(name, seq, entry))
        differences += _compare(seq, wanted, next(stored, None))
        if len(differences) >= MAX_DIFFERENCES:
            return [*differences, "and more"]
    surplus = sum(1 for _ in stored)
    return [*differences, f"{surplus} entries are in the database only"] if surplus else differences


def _store(conn: sqlite3.Connection, path: Path, head: ManifestHead, name: str) -> int:
    version = _stored_version(conn, name)
    if version is not None:
        differences = _differences(conn, head, name)
        if differences:
            raise ContractMismatchError(
                f"the database holds another manifest under {name}; nothing was stored",
                where=str(path),
                details=tuple(differences),
                do="Choose a new experiment.exp_group_id, or --force: a new generation beside the old one.",
            )
        if version >= head.version:
            return 0
    read_head(path)  # its content is what it says
    if version is None:
        conn.execute(_insert("datasets", _DATASET_COLUMNS), _dataset_row(head, name))
        conn.executemany(
            "INSERT INTO bins (dataset_id, bin_idx, lo_tokens, hi_tokens) VALUES (?,?,?,?)",
            [(name, row["bin_idx"], row["lo_tokens"], row["hi_tokens"]) for row in head.bins],
        )
    fresh = ((seq, *item) for seq, item in enumerate(read_items(path)) if item[0].version > (version or 0))
    inserted = 0
    for batch in batches(fresh, lambda item: item[2]):
        conn.executemany(_insert("examples", _EXAMPLE_COLUMNS), [_example_row(name, e, x) for _, e, x in batch])
        conn.executemany(_insert("manifest_entries", _ENTRY_COLUMNS), [_entry_row(name, s, e) for s, e, _ in batch])
        inserted += len(batch)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    own = {"version": head.version, "sha256": head.sha256, "n_entries": head.n_entries}
    conn.executemany(
        "INSERT INTO manifests (dataset_id, version, sha256, created_at, n_entries) VALUES (?,?,?,?,?)",
        [
            (name, row["version"], row["sha256"], now, row["n_entries"])
            for row in (*head.earlier, own)
            if row["version"] > (version or 0)
        ],
    )
    return inserted


def _stored_version(conn: sqlite3.Connection, name: str) -> int | None:
    (version,) = conn.execute("SELECT MAX(version) FROM manifests WHERE dataset_id = ?", (name,)).fetchone()
    return None if version is None else int(version)


def _holder(conn: sqlite3.Connection, head: ManifestHead) -> str:
    """The dataset that holds this very manifest, else the manifest's own id."""
    query = "SELECT dataset_id FROM manifests WHERE sha256 = ? AND version = ?"
    row = conn.execute(query, (head.sha256, head.version)).fetchone()
    return str(row[0]) if row else head.dataset_id


def _differences(conn: sqlite3.Connection, head: ManifestHead, name: str) -> list[str]:
    """Fields of the dataset, and hashes of the versions both know."""
    row = conn.execute(f"SELECT {_DATASET_COLUMNS} FROM datasets WHERE dataset_id = ?", (name,)).fetchone()
    differences = [
        f"{column}   stored {stored}   asked {wanted}"
        for column, stored, wanted in zip(_DATASET_COLUMNS.split(", "), row, _dataset_row(head, name), strict=True)
        if stored != wanted
    ]
    hashes = {v["version"]: v["sha256"] for v in head.earlier} | {head.version: head.sha256}
    stored_hashes = conn.execute("SELECT version, sha256 FROM manifests WHERE dataset_id = ?", (name,)).fetchall()
    differences += [
        f"manifest.sha256 (version {version})   stored {sha256}   asked {hashes[version]}"
        for version, sha256 in stored_hashes
        if version in hashes and hashes[version] != sha256
    ]
    bins = conn.execute("SELECT bin_idx, lo_tokens, hi_tokens FROM bins WHERE dataset_id = ? ORDER BY 1", (name,))
    asked_bins = [(row["bin_idx"], row["lo_tokens"], row["hi_tokens"]) for row in head.bins]
    if (stored_bins := bins.fetchall()) != asked_bins:
        differences.append(f"bins   stored {stored_bins}   asked {asked_bins}")
    return differences


def _stored_items(conn: sqlite3.Connection, name: str) -> Iterator[tuple[object, ...]]:
    columns = [f"x.{c}" for c in _EXAMPLE_COLUMNS.split(", ")] + [f"e.{c}" for c in _ENTRY_COLUMNS.split(", ")]
    yield from conn.execute(
        f"SELECT {', '.join(columns)} FROM manifest_entries e JOIN examples x USING (dataset_id, example_id) "
        "WHERE e.dataset_id = ? ORDER BY e.seq",
        (name,),
    )


def _compare(seq: int, wanted: tuple[object, ...], stored: tuple[object, ...] | None) -> list[str]:
    if stored is None:
        return [f"entry {seq} ({wanted[1]}) is in the file only"]
    columns = (*_EXAMPLE_COLUMNS.split(", "), *_ENTRY_COLUMNS.split(", "))
    return [
        f"entry {seq} ({wanted[1]}): {column} differs"
        for column, a, b in zip(columns, wanted, stored, strict=True)
        if a != b
    ]


def _insert(table: str, columns: str) -> str:
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(columns.split(', ')))})"


def _dataset_row(head: ManifestHead, name: str) -> tuple[object, ...]:
    tokenizer = (head.tokenizer_name, head.tokenizer_sha256)
    return (
        name,
        head.name,
        head.task,
        *tokenizer,
        head.source_revision,
        head.metric,
        *map(_json, (head.prompt, head.selection)),
    )


def _example_row(name: str, entry: ManifestEntry, example: Example) -> tuple[object, ...]:
    answers, meta = _json(list(example.answers)), _json(example.meta)
    return (name, example.example_id, example.question, example.context, answers, meta, entry.context_sha256)


def _entry_row(name: str, seq: int, entry: ManifestEntry) -> tuple[object, ...]:
    lengths = (entry.token_len, entry.context_tokens, entry.original_tokens, entry.prompt_truncated)
    return (name, entry.example_id, seq, entry.version, entry.bin_idx, *lengths, entry.prompt_sha256)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()

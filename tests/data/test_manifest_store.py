"""manifest.json and the database hold the same facts, once."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from kvt_async.contract.errors import ContractMismatchError, GuardError
from kvt_async.contract.schema import connect_for_writing
from kvt_async.data.manifest import read_head
from kvt_async.data.manifest_store import store_manifest, stored_id, verify_parity
from kvt_async.data.prepare import Prepared, prepare
from tests.data.helpers import jsonl_settings, numbered

FOCUS = ("sampling.strategy=focus_transition", "binning.n_per_bin=2", "binning.n_bins=3")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect_for_writing(tmp_path / "kv.sqlite")) as conn:
        yield conn


def made(tmp_path: Path, n: int = 12, *overrides: str, force: bool = False) -> Prepared:
    rows = [{**row, "answers": ["a", "ü"], "meta": {"turns": [], "k": {"n": 1.5}}} for row in numbered(n)]
    return prepare(jsonl_settings(tmp_path, rows, *overrides), force=force, report=lambda _: None)


def test_every_fact_arrives_in_manifest_order(tmp_path: Path, db: sqlite3.Connection) -> None:
    prepared = made(tmp_path)
    assert store_manifest(db, prepared.path, dataset_id=prepared.dataset_id) == 12
    manifest = orjson.loads(prepared.path.read_bytes())
    rows = db.execute(
        "SELECT example_id, bin_idx, token_len, seq, version FROM manifest_entries ORDER BY seq"
    ).fetchall()
    assert rows == [(e["example_id"], e["bin_idx"], e["token_len"], i, 1) for i, e in enumerate(manifest["entries"])]
    examples = db.execute("SELECT example_id, answers_json, meta_json FROM examples").fetchall()
    assert {name: (orjson.loads(a), orjson.loads(m)) for name, a, m in examples} == {
        x["example_id"]: (x["answers"], x["meta"]) for x in manifest["examples"]
    }
    assert db.execute("SELECT COUNT(*) FROM bins").fetchone() == (5,)
    assert db.execute("SELECT version, sha256, n_entries FROM manifests").fetchall() == [(1, manifest["sha256"], 12)]
    (prompt,) = db.execute("SELECT prompt_json FROM datasets").fetchone()
    assert orjson.loads(prompt)["template"] == "{context} {question}"
    assert verify_parity(db, prepared.path) == []


def test_empty_bins_have_a_row(tmp_path: Path, db: sqlite3.Connection) -> None:
    prepared = made(tmp_path, 2)
    store_manifest(db, prepared.path, dataset_id=prepared.dataset_id)
    bins = db.execute("SELECT bin_idx, hi_tokens - lo_tokens + 1 FROM bins ORDER BY bin_idx").fetchall()
    assert [idx for idx, _ in bins] == [0, 1, 2, 3, 4]
    assert min(width for _, width in bins) == 0


def test_a_damaged_file_is_not_taken_in(tmp_path: Path, db: sqlite3.Connection) -> None:
    path = made(tmp_path).path
    path.write_bytes(path.read_bytes().replace(b'"token_len":', b'"token_len":1', 1))
    with pytest.raises(GuardError, match="changed or cut short"):
        store_manifest(db, path, dataset_id="d")
    assert db.execute("SELECT count(*) FROM examples").fetchone() == (0,)


def test_storing_again_changes_nothing(tmp_path: Path, db: sqlite3.Connection) -> None:
    prepared = made(tmp_path)
    store_manifest(db, prepared.path, dataset_id=prepared.dataset_id)
    assert store_manifest(db, prepared.path, dataset_id=prepared.dataset_id) == 0
    assert db.execute("SELECT COUNT(*) FROM manifest_entries").fetchone() == (12,)


def test_other_facts_under_the_same_id_are_refused_and_stand_beside_in_a_later_generation(
    tmp_path: Path, db: sqlite3.Connection
) -> None:
    first = made(tmp_path)
    assert stored_id(db, first.head, generation=1) == first.dataset_id
    store_manifest(db, first.path, dataset_id=first.dataset_id)
    assert stored_id(db, first.head, generation=2) == first.dataset_id

    second = made(tmp_path, 13, force=True)
    with pytest.raises(ContractMismatchError) as caught:
        store_manifest(db, second.path, dataset_id=second.dataset_id)
    fields = [line.split()[0] for line in caught.value.details]
    assert fields == ["source_revision", "manifest.sha256", "bins"]
    later = stored_id(db, second.head, generation=2)
    assert later == f"{second.dataset_id}__g2"
    assert store_manifest(db, second.path, dataset_id=later) == 13
    assert verify_parity(db, second.path, dataset_id=later) == verify_parity(db, second.path) == []


def test_a_grown_manifest_adds_its_new_entries_to_those_stored(tmp_path: Path, db: sqlite3.Connection) -> None:
    first = made(tmp_path, 30, *FOCUS)
    store_manifest(db, first.path, dataset_id=first.dataset_id)
    config = jsonl_settings(
        tmp_path,
        [{**row, "answers": ["a", "ü"], "meta": {"turns": [], "k": {"n": 1.5}}} for row in numbered(30)],
        *FOCUS,
    )
    grown = prepare(config, grow=lambda _: {0: 3}, report=lambda _: None)
    assert verify_parity(db, grown.path) == [
        "manifest version: file 2, database 1",
        *[f"entry {seq} ({entry}) is in the file only" for seq, entry in new_entries(grown)],
    ]
    assert store_manifest(db, grown.path, dataset_id=grown.dataset_id) == 3
    assert verify_parity(db, grown.path) == []
    assert db.execute("SELECT version, n_entries FROM manifests").fetchall() == [(1, 6), (2, 9)]


def new_entries(grown: Prepared) -> list[tuple[int, str]]:
    entries = orjson.loads(grown.path.read_bytes())["entries"]
    return [(seq, e["example_id"]) for seq, e in enumerate(entries) if e["version"] == 2]


def test_a_database_that_only_knows_the_grown_manifest_gets_every_version(
    tmp_path: Path, db: sqlite3.Connection
) -> None:
    made(tmp_path, 30, *FOCUS)
    rows = [{**row, "answers": ["a", "ü"], "meta": {"turns": [], "k": {"n": 1.5}}} for row in numbered(30)]
    grown = prepare(jsonl_settings(tmp_path, rows, *FOCUS), grow=lambda _: {0: 3}, report=lambda _: None)
    assert store_manifest(db, grown.path, dataset_id=grown.dataset_id) == 9
    stored = db.execute("SELECT version, sha256 FROM manifests ORDER BY version").fetchall()
    assert stored == [(1, grown.head.earlier[0]["sha256"]), (2, grown.head.sha256)]


def test_parity_finds_each_kind_of_difference(tmp_path: Path) -> None:
    prepared = made(tmp_path)
    db = connect_for_writing(tmp_path / "other.sqlite")
    assert verify_parity(db, prepared.path) == [f"the database holds no dataset {prepared.dataset_id}"]
    store_manifest(db, prepared.path, dataset_id=prepared.dataset_id)
    for (trigger,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        db.execute(f"DROP TRIGGER {trigger}")  # a database that somebody tampered with
    db.execute("UPDATE examples SET context = 'x' WHERE example_id = 'e002'")
    db.execute("UPDATE manifest_entries SET token_len = 1 WHERE example_id = 'e003'")
    db.execute("UPDATE datasets SET metric = 'em'")
    differences = verify_parity(db, prepared.path)
    db.close()
    assert differences[0] == "metric   stored em   asked f1"
    assert differences[1:] == ["entry 2 (e002): context differs", "entry 3 (e003): token_len differs"]


def test_a_store_that_is_cut_short_leaves_nothing(tmp_path: Path, db: sqlite3.Connection) -> None:
    prepared = made(tmp_path)
    (seq,) = db.execute("SELECT 5").fetchone()
    db.execute(f"CREATE TRIGGER stop BEFORE INSERT ON manifest_entries WHEN NEW.seq = {seq} "
               "BEGIN SELECT RAISE(ABORT, 'disk gone'); END")  # fmt: skip
    with pytest.raises(sqlite3.IntegrityError, match="disk gone"):
        store_manifest(db, prepared.path, dataset_id=prepared.dataset_id)
    assert not db.in_transaction
    assert db.execute("SELECT (SELECT COUNT(*) FROM datasets) + (SELECT COUNT(*) FROM examples)").fetchone() == (0,)
    db.execute("DROP TRIGGER stop")
    assert store_manifest(db, prepared.path, dataset_id=read_head(prepared.path).dataset_id) == 12

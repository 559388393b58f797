"""The store's promises that SQLite itself keeps."""

import re
import sqlite3
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from kvt_async.contract.errors import MissingPrerequisiteError, StoreError
from kvt_async.contract.schema import SCHEMA_VERSION, connect_for_reading, connect_for_writing, create, missing_tables
from kvt_async.contract.schema_tables import (
    DERIVED_TABLES,
    FACT_TABLES,
    MADE_WHEN_WANTED,
    SINCE,
    columns_of,
    schema_sql,
)

DATASET = "INSERT INTO datasets VALUES ('d','jsonl','t','tok','sha',NULL,'f1','{}','{}')"


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = connect_for_writing(tmp_path / "new/folder/db.sqlite")
    yield connection
    connection.close()


def test_every_table_is_declared_a_fact_or_derived_and_is_strict(conn: sqlite3.Connection) -> None:
    tables = {row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    assert tables == {*FACT_TABLES, *DERIVED_TABLES}
    strict = {row[1] for row in conn.execute("PRAGMA table_list") if row[5]}
    assert tables <= strict


def test_the_page_says_what_its_names_do_not() -> None:
    """The schema file is the documentation of the store: a comment stands where name and head are not enough."""
    head, _, page = schema_sql().partition("CREATE TABLE")
    once_for_all = re.findall(r"^--   ([^\s,]+(?:, [^\s,]+)*) ", head, re.MULTILINE)
    told = [*", ".join(once_for_all).split(", "), "*_ns", "*_s", "*_json", "*_at"]
    heads = re.findall(r"^(?:CREATE TABLE|CREATE VIEW)[^\n]*$", "CREATE TABLE" + page, re.MULTILINE)
    assert [line for line in heads if "--" not in line] == []
    columns = re.findall(r"^    \"?([a-z_0-9]+)\"? +(?:TEXT|INTEGER|REAL|BLOB)([^\n]*)$", page, re.MULTILINE)
    bare = [name for name, rest in columns if "--" not in rest and "REFERENCES" not in rest]
    assert len(columns) > 300
    assert [name for name in bare if not any(fnmatch(name, pattern) for pattern in told)] == []


def test_the_columns_of_a_table_are_those_of_the_database(conn: sqlite3.Connection) -> None:
    for table in (*FACT_TABLES, *DERIVED_TABLES):
        assert columns_of(table) == tuple(row[1] for row in conn.execute(f"PRAGMA table_info({table})"))


def test_the_page_has_a_line_for_every_version_of_the_schema() -> None:
    versions = re.findall(r"^-- Schema version (\d+): \w", schema_sql(), re.MULTILINE)
    assert versions == [str(n + 1) for n in range(SCHEMA_VERSION)]


@pytest.mark.parametrize("table", FACT_TABLES)
def test_facts_refuse_update_delete_and_replace(conn: sqlite3.Connection, table: str) -> None:
    columns = conn.execute(f"PRAGMA table_info({table})").fetchall()
    conn.execute("PRAGMA foreign_keys=OFF")
    row = [{"TEXT": "x", "INTEGER": 1, "REAL": 1.0, "BLOB": b"x"}[c[2]] for c in columns]
    marks = ",".join("?" * len(row))
    conn.execute(f"INSERT INTO {table} VALUES ({marks})", row)
    for statement in (
        f"UPDATE {table} SET {columns[0][1]} = {columns[0][1]}",
        f"DELETE FROM {table}",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="rows are never changed or removed"):
            conn.execute(statement)
    for verb in ("INSERT OR REPLACE", "REPLACE"):
        with pytest.raises(sqlite3.IntegrityError, match="rows are never changed or removed"):
            conn.execute(f"{verb} INTO {table} VALUES ({marks})", row)
    assert conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 1


def test_replace_is_refused_on_a_connection_that_did_not_ask_for_recursive_triggers(tmp_path: Path) -> None:
    connect_for_writing(tmp_path / "db.sqlite").close()
    plain = sqlite3.connect(tmp_path / "db.sqlite", isolation_level=None)
    plain.execute(DATASET)
    with pytest.raises(sqlite3.IntegrityError):
        plain.execute(DATASET.replace("INSERT", "REPLACE"))
    plain.close()


def test_creating_twice_changes_nothing(conn: sqlite3.Connection) -> None:
    conn.execute(DATASET)
    before = conn.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    create(conn)
    assert conn.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == before
    assert missing_tables(conn) == []


def test_foreign_keys_hold(conn: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        conn.execute("INSERT INTO bins VALUES ('nowhere', 0, 1, 2)")


def test_a_newer_schema_is_refused_by_both_and_an_older_one_by_the_runner(tmp_path: Path) -> None:
    db = tmp_path / "db.sqlite"
    connection = connect_for_writing(db)
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    connection.close()
    for opener in (connect_for_writing, connect_for_reading):
        with pytest.raises(StoreError, match="newer"):
            opener(db)


def test_a_database_of_an_older_schema_is_read_and_owes_only_its_own_tables(tmp_path: Path) -> None:
    db = tmp_path / "db.sqlite"
    connection = connect_for_writing(db)
    for table, version in SINCE.items():
        assert version > 1
        connection.execute(f"DROP TABLE {table}")
    assert set(missing_tables(connection)) == set(SINCE) - MADE_WHEN_WANTED
    connection.execute("PRAGMA user_version=1")
    connection.close()
    reader = connect_for_reading(db)
    assert missing_tables(reader) == []
    reader.close()
    with pytest.raises(StoreError, match="older"):
        connect_for_writing(db)


def test_reading_needs_a_database_that_exists_and_holds_kvt_tables(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisiteError, match="no database yet"):
        connect_for_reading(tmp_path / "none.sqlite")
    sqlite3.connect(tmp_path / "empty.sqlite").executescript("VACUUM;")
    with pytest.raises(MissingPrerequisiteError, match="no kvt tables"):
        connect_for_reading(tmp_path / "empty.sqlite")


def test_a_reader_cannot_write_and_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    connect_for_writing(tmp_path / "db.sqlite").close()
    reader = connect_for_reading(tmp_path / "db.sqlite")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute(DATASET)
    reader.close()
    (tmp_path / "text.sqlite").write_text("hello " * 400, encoding="utf-8")
    with pytest.raises(StoreError, match="not a database"):
        connect_for_writing(tmp_path / "text.sqlite")

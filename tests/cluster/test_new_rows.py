"""New facts of a database reach its copy: all of them, once, and only as far as a pull has come to its end."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvt_async.cluster import new_rows
from kvt_async.cluster.new_rows import Copy, Pull, database_pieces
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.schema_tables import FACT_TABLES
from tests.group_db import NOW, RUN, SESSION, make_group
from tests.tables import insert_many


def _answer(db: Path, first: int, n: int) -> None:
    """Requests first .. first + n - 1 are sent and answered."""
    keys = [(f"{RUN}:{seq}", seq) for seq in range(first, first + n)]
    with closing(connect_for_writing(db)) as conn:
        conn.execute("BEGIN")
        insert_many(
            conn,
            "requests",
            [
                {"request_id": key, "run_id": RUN, "example_id": f"e{i}", "prompt_sha256": "p", "created_at": NOW}
                for key, i in keys
            ],
        )
        attempt = {
            "attempt_idx": 0,
            "series_idx": 0,
            "session_id": SESSION,
            "started_at": NOW,
            "endpoint": "u",
            "latency_s": 1.0,
        }
        insert_many(conn, "attempts", [{"request_id": key, "end_state": "complete", **attempt} for key, _ in keys])
        insert_many(
            conn,
            "responses",
            [{"request_id": key, "attempt_idx": 0, "text": "a" * i, "created_at": NOW} for key, i in keys],
        )
        conn.execute("COMMIT")


def _facts(db: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(db)) as conn:
        return {name: conn.execute(f"SELECT rowid, * FROM {name} ORDER BY rowid").fetchall() for name in FACT_TABLES}


def _pull(source: Path, copy: Copy) -> int:
    portions = 0
    for portion in Pull(source, copy.marks()).portions():
        copy.add(portion)
        portions += 1
    copy.commit()
    return portions


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=5))
def test_the_copy_stands_where_the_source_stood_at_each_pull(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    source, n = folder / "source.sqlite", 0
    make_group(source, 200)
    with Copy(folder / "copy.sqlite") as copy:
        for more, is_pulled in steps:
            _answer(source, n, more)
            n += more
            if is_pulled:
                _pull(source, copy)
                assert _facts(folder / "copy.sqlite") == _facts(source)
        assert _pull(source, copy) <= 1
        assert _facts(folder / "copy.sqlite") == _facts(source)
        assert _pull(source, copy) == 0


def test_a_pull_of_more_than_a_portion_comes_in_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_rows, "PORTION_BYTES", 1 << 20)
    make_group(tmp_path / "source.sqlite", 3000)
    _answer(tmp_path / "source.sqlite", 0, 3000)
    with Copy(tmp_path / "copy.sqlite") as copy:
        assert _pull(tmp_path / "source.sqlite", copy) > 3
    assert _facts(tmp_path / "copy.sqlite") == _facts(tmp_path / "source.sqlite")


def test_a_pull_that_breaks_off_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_rows, "PORTION_BYTES", 1 << 16)
    source = tmp_path / "source.sqlite"
    make_group(source, 2000)
    with Copy(tmp_path / "copy.sqlite") as copy:
        _pull(source, copy)
        _answer(source, 0, 2000)
        before, portions = copy.marks(), Pull(source, copy.marks()).portions()
        copy.add(next(portions))
        assert copy.marks() == before
        _pull(source, copy)
    assert _facts(tmp_path / "copy.sqlite") == _facts(source)


def test_rows_that_come_during_a_pull_belong_to_the_next(tmp_path: Path) -> None:
    source = tmp_path / "source.sqlite"
    make_group(source, 20)
    _answer(source, 0, 5)
    with Copy(tmp_path / "copy.sqlite") as copy:
        pull = Pull(source, copy.marks())
        _answer(source, 5, 5)
        for portion in pull.portions():
            copy.add(portion)
        copy.commit()
        assert copy.marks()["responses"] == 5
        _pull(source, copy)
        assert copy.marks()["responses"] == 10


def test_a_copy_that_is_sent_on_goes_on_where_it_stood(tmp_path: Path) -> None:
    source, there = tmp_path / "source.sqlite", tmp_path / "there.sqlite"
    make_group(source, 50)
    with Copy(tmp_path / "copy.sqlite") as copy:
        _answer(source, 0, 20)
        _pull(source, copy)
        there.write_bytes(b"".join(database_pieces(tmp_path / "copy.sqlite")))
        _answer(there, 20, 10)
        _pull(there, copy)
    assert _facts(tmp_path / "copy.sqlite") == _facts(there)

"""Long answers pass through scoring and export in portions of bounded size, and nothing else depends on them."""

import os
import sqlite3
import stat
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.read import row_portions
from analyzer.read.row_portions import portions
from analyzer.scoring.score import score
from analyzer.verbs.export import export
from kvt_async.contract.errors import StoreError
from tests.analyzer.conftest import Experiment

SCORES = "SELECT * FROM scores ORDER BY request_id"


@given(lengths=st.lists(st.none() | st.integers(0, 40)), rows=st.integers(1, 9), characters=st.integers(1, 60))
def test_a_portion_has_so_many_rows_and_so_much_text_or_is_one_row(
    lengths: list[int | None], rows: int, characters: int
) -> None:
    conn = sqlite3.connect(":memory:")
    conn.execute("CREATE TABLE answers (text TEXT)")
    conn.executemany("INSERT INTO answers VALUES (?)", [(None if n is None else "x" * n,) for n in lengths])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_portions, "ROWS", rows)
        patch.setattr(row_portions, "CHARACTERS", characters)
        found = list(portions(conn.execute("SELECT rowid, text FROM answers ORDER BY rowid"), 1))
    assert [row[0] for part in found for row in part] == list(range(1, len(lengths) + 1))
    held = [sum(len(text or "") for _, text in part) for part in found]
    assert all(len(part) == 1 or (len(part) <= rows and n <= characters) for part, n in zip(found, held, strict=True))
    for part, n, after in zip(found, held, found[1:], strict=False):  # the next row would have been too much
        assert len(part) == rows or n + len(after[0][1] or "") > characters


def test_scores_and_exports_are_the_same_in_any_portions(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn, settings = experiment(n_per_bin=10, failures=0.1)
    score(conn, "synthetic")
    scores = conn.execute(SCORES).fetchall()
    for name in ("whole.parquet", "whole.csv", "whole.jsonl"):
        export(conn, settings, tmp_path / name)
    monkeypatch.setattr(row_portions, "CHARACTERS", 50)
    score(conn, "synthetic", recompute=True)
    assert conn.execute(SCORES).fetchall() == scores
    for name in ("parts.parquet", "parts.csv", "parts.jsonl"):
        export(conn, settings, tmp_path / name)
    assert pl.read_parquet(tmp_path / "parts.parquet").equals(pl.read_parquet(tmp_path / "whole.parquet"))
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_an_export_is_its_owners_alone_and_leaves_nothing_beside_it(experiment: Experiment, tmp_path: Path) -> None:
    conn, settings = experiment(n_per_bin=5)
    place = tmp_path / "out"
    place.mkdir()
    (place / ".export-killed").mkdir()
    before = os.umask(0)
    try:
        export(conn, settings, place / "all.csv")
    finally:
        os.umask(before)
    assert [path.name for path in place.iterdir()] == ["all.csv"]
    assert stat.S_IMODE((place / "all.csv").stat().st_mode) == 0o600
    (place / "folder.csv").mkdir()
    with pytest.raises(StoreError, match="a folder is in the way"):
        export(conn, settings, place / "folder.csv")

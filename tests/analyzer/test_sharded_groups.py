"""A group whose facts lie in several databases is scored, analysed and reported as if they lay in one."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from analyzer import parallel, stages
from analyzer.api import open_group as results_of
from analyzer.read.group_connection import CACHE_KIB, open_group, parts
from analyzer.read.run_counts import run_counts
from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.settings import Settings
from kvt_async.contract.shards.shard import shard_databases
from tests.analyzer.synthetic import make_db
from tests.shards.split import Part, by_context, by_level, keep, split
from tests.worlds import settings_of

WORLD: dict[str, Any] = {"n_bins": 2, "n_per_bin": 15, "graded": True, "failures": 0.1, "budgets": (1.0, 0.5, 0.2),
                         "series": ("snapkv/aware", "random/aware"), "exp_group_id": "g"}  # fmt: skip
DERIVED = ("bin_stats", "run_evidence", "budget_stats", "transition_summary", "comparisons", "outcome_changes")
SCORES = "SELECT * FROM scores ORDER BY request_id"


def settings(folder: Path) -> Settings:
    return settings_of(
        "experiment.exp_group_id=g",
        f"output.runs_dir={folder}",
        "analysis.resamples=200",
        "analysis.charts=false",
    )


def rows(db: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(db)) as conn:
        return conn.execute(sql).fetchall()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The group in one database, analysed."""
    folder = tmp_path_factory.mktemp("one")
    db = make_db(folder / "g" / DB_NAME, **WORLD)
    shutil.copy(db, folder / "facts.sqlite")
    stages.every_stage(settings(folder))
    return folder


def same_as_one(folder: Path, one: Path) -> None:
    """Every score, every derived row and every figure of the report."""
    scores = [row for db in shard_databases(folder / "g" / DB_NAME) for row in rows(db, SCORES)]
    assert sorted(scores) == rows(one / "g" / DB_NAME, SCORES)
    for table in DERIVED:
        sql = f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4, 5, 6, 7"
        assert rows(folder / "g" / DB_NAME, sql) == rows(one / "g" / DB_NAME, sql) != [], table


@pytest.mark.parametrize("worth_it", [10**9, 0])
@pytest.mark.parametrize("part", [by_context(3), by_level(4)])
def test_shards_give_the_rows_of_one_database(
    tmp_path: Path, one: Path, part: Part, worth_it: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole contexts dealt out, or levels (full cache's answers then lie in another database than those to compare)."""
    monkeypatch.setattr(parallel, "WORTH_IT_ROWS", worth_it)
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    split(one / "facts.sqlite", tmp_path / "g" / DB_NAME, 3 if part("a", 0) == part("a", 1) else 4, part)
    stages.every_stage(settings(tmp_path))
    same_as_one(tmp_path, one)


def test_a_second_time_nothing_is_done_and_nothing_counted(tmp_path: Path, one: Path) -> None:
    split(one / "facts.sqlite", tmp_path / "g" / DB_NAME, 2, by_context(2))
    stages.every_stage(settings(tmp_path))
    assert not any(log.stat().st_size for log in (tmp_path / "g" / "shards").glob("*-wal"))  # read by every next one
    assert stages.score_stage(settings(tmp_path)).scored == 0
    assert not stages.analyze_stage(settings(tmp_path)).recomputed
    with closing(open_group(tmp_path / "g" / DB_NAME)) as conn:
        assert run_counts(conn, "g", 1) == run_counts(conn, "g", 1, kept=False)


def test_a_request_that_two_databases_have_counts_once(tmp_path: Path, one: Path) -> None:
    """The group's own database has half of the contexts, and the shards all of them."""
    own = tmp_path / "g" / DB_NAME
    split(one / "facts.sqlite", own, 2, by_context(2))
    shutil.copy(one / "facts.sqlite", own)
    keep(own, lambda context, level: by_context(5)(context, level) < 2)
    with closing(sqlite3.connect(own)) as conn:  # the sweep was begun in one process and went on in shards
        conn.executescript("DROP TRIGGER sessions_no_update; UPDATE sessions SET started_at = '2000-01-01'")
        conn.executescript("DROP TRIGGER runs_no_update; UPDATE runs SET created_at = '2000-01-01'")
    stages.every_stage(settings(tmp_path))
    for table in DERIVED:
        sql = f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4, 5, 6, 7"
        assert rows(own, sql) == rows(one / "g" / DB_NAME, sql), table


def test_what_is_read_of_single_requests_is_found_in_every_shard(tmp_path: Path, one: Path) -> None:
    split(one / "facts.sqlite", tmp_path / "g" / DB_NAME, 2, by_context(2))
    stages.every_stage(settings(tmp_path))
    shown, whole = (stages.show_stage(settings(folder), None, sample=6).json() for folder in (tmp_path, one))
    assert shown == whole
    assert results_of(tmp_path / "g").progress == results_of(one / "g").progress
    stages.export_stage(settings(tmp_path), tmp_path / "rows.csv")
    stages.export_stage(settings(one), tmp_path / "whole.csv")
    lines, of_one = ((tmp_path / name).read_text().splitlines() for name in ("rows.csv", "whole.csv"))
    assert sorted(lines) == sorted(of_one)


def test_a_query_that_forgets_the_shards_fails(tmp_path: Path, one: Path) -> None:
    split(one / "facts.sqlite", tmp_path / "g" / DB_NAME, 2, by_context(2))
    with closing(open_group(tmp_path / "g" / DB_NAME, write_derived=True)) as conn:
        with pytest.raises(sqlite3.OperationalError, match="is_read_part_by_part"):
            conn.execute("SELECT count(*) FROM responses")
        assert conn.execute("SELECT count(*) FROM sessions").fetchone() == (2,)


def test_the_caches_of_many_shards_take_no_more_memory_than_the_one_of_a_database(tmp_path: Path, one: Path) -> None:
    split(one / "facts.sqlite", tmp_path / "g" / DB_NAME, 3, by_context(3))
    with closing(open_group(tmp_path / "g" / DB_NAME)) as conn:
        caches = [-part.execute("PRAGMA cache_size").fetchone()[0] for part in parts(conn)]
    assert len(caches) >= 3
    assert sum(caches) <= CACHE_KIB

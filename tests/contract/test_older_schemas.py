"""A database that an earlier kvt wrote is read and analysed as if it were of today's schema."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from analyzer.verify.findings import verified
from kvt_async.contract.older_schemas import rows_of_today
from kvt_async.contract.schema import connect_for_reading, connect_for_writing
from kvt_async.contract.schema_tables import DERIVED_TABLES, FACT_TABLES, SINCE, columns_of
from tests.analyzer.synthetic import make_db
from tests.group_db import make_group
from tests.older_db import made_older
from tests.worlds import settings_of

VERSIONS = (1, 2)
MADE_FROM = {"fingerprint", "detail_json"}  # what differs between two databases of the same facts


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two policies at three budgets, failures and pending requests among them."""
    folder = tmp_path_factory.mktemp("facts")
    return make_db(folder / "today.sqlite", n_bins=2, n_per_bin=12, series=("snapkv/aware", "random/aware"),
                   failures=0.1, partial=0.1, exp_group_id="g")  # fmt: skip


def analysed(db: Path) -> dict[str, list[str]]:
    """Every derived row of the group 'g', but for what the rows were made from, and for counts that are kept: an older
    database lacks the guards that they hang on."""
    settings = settings_of("experiment.exp_group_id=g", "analysis.resamples=200")
    with closing(connect_for_reading(db, write_derived=True)) as conn:
        score(conn, "g")
        analyze(conn, settings, partial=True)
        return {
            table: [
                repr(row)
                for row in conn.execute(f"SELECT {_compared(table)} FROM {table} ORDER BY 1, 2, 3, 4, 5, 6, 7")
                if "counts" not in tuple(row)
            ]
            for table in DERIVED_TABLES
        }


def _compared(table: str) -> str:
    return ", ".join(f'"{name}"' for name in columns_of(table) if name not in MADE_FROM) + (", 0" * 7)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_older_database_is_analysed_to_the_same_rows(facts: Path, tmp_path: Path, version: int) -> None:
    older = made_older(facts, tmp_path / "older.sqlite", version)
    assert analysed(older) == analysed(facts)
    assert analysed(older) == analysed(facts), "once its derived tables have today's shape"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_fact_of_an_older_database_is_read_by_todays_columns(facts: Path, tmp_path: Path, version: int) -> None:
    older = made_older(facts, tmp_path / "older.sqlite", version)
    with closing(connect_for_reading(older)) as old, closing(connect_for_reading(facts)) as new:
        for table in FACT_TABLES:
            if table in ("task_contracts", "sample_plans") or SINCE.get(table, 0) == 2 > version:
                continue
            query = f"SELECT {', '.join(columns_of(table))} FROM {table}"
            assert sorted(map(repr, old.execute(query))) == sorted(map(repr, new.execute(query))), table
        assert old.execute("SELECT task, look FROM task_contracts").fetchall() == [("single_needle", 1)]


def test_a_database_of_version_1_has_no_benches_and_says_so_by_empty_tables(facts: Path, tmp_path: Path) -> None:
    older = made_older(facts, tmp_path / "older.sqlite", 1)
    with closing(connect_for_reading(older)) as conn:
        assert conn.execute("SELECT count(*) FROM bench_stages").fetchone() == (0,)


def test_nothing_is_written_to_an_older_database_that_is_only_read(facts: Path, tmp_path: Path) -> None:
    older = made_older(facts, tmp_path / "folder/older.sqlite")
    before = older.read_bytes()
    for immutable in (False, True):
        with closing(connect_for_reading(older, immutable=immutable)) as conn:
            assert conn.execute("SELECT count(*) FROM outcomes WHERE sample_idx = 0").fetchone()[0] > 0
            assert conn.execute("SELECT sum(planned) FROM run_progress").fetchone()[0] > 0
    assert older.read_bytes() == before
    older.parent.chmod(0o500)
    try:
        with closing(connect_for_reading(older)) as conn:
            assert conn.execute("SELECT count(*) FROM task_contracts").fetchone() == (1,)
    finally:
        older.parent.chmod(0o700)


def test_derived_rows_that_an_older_kvt_left_are_read_with_their_task(facts: Path, tmp_path: Path) -> None:
    older = made_older(facts, tmp_path / "older.sqlite")
    with closing(sqlite3.connect(older)) as conn:
        conn.execute("INSERT INTO comparisons VALUES ('g',1,'a','b',0.5,-1,24,0.1,0.0,0.2,0.01,0.02,'f')")
        conn.commit()
        (dataset,) = conn.execute("SELECT dataset_id FROM datasets").fetchone()
    with closing(connect_for_reading(older)) as conn:
        assert conn.execute("SELECT dataset_id, n FROM comparisons").fetchall() == [(dataset, 24)]


def test_what_was_recorded_about_derived_rows_of_an_older_shape_goes_with_them(facts: Path, tmp_path: Path) -> None:
    """Else an analysis under the same settings would find nothing to do, and no rows."""
    older = made_older(facts, tmp_path / "older.sqlite")
    with closing(sqlite3.connect(older)) as conn:
        conn.execute("INSERT INTO analysis_state VALUES ('g',1,'analyze','*','f','{}'), ('g',1,'score','run','f','{}')")
        conn.commit()
    with closing(connect_for_reading(older, write_derived=True)) as conn:
        assert conn.execute("SELECT stage FROM analysis_state").fetchall() == [("score",)]


def test_an_older_database_is_searched_as_one_of_today(tmp_path: Path) -> None:
    """What stands between a query and a table must not be built first: a million rows would be."""
    make_group(tmp_path / "today.sqlite", 4)
    made_older(tmp_path / "today.sqlite", tmp_path / "older.sqlite")
    answers = "FROM requests r LEFT JOIN responses p ON p.request_id = r.request_id WHERE r.run_id = 'r'"
    queries = (
        "SELECT p.text, p.tool_calls_json FROM requests r JOIN responses p USING (request_id) WHERE r.run_id = 'r'",
        f"SELECT r.sample_idx, p.cache_state {answers}",
        f"SELECT r.example_id {answers} AND r.sample_idx = 0 ORDER BY p.text",
        "SELECT o.state, count(*) FROM outcomes o WHERE o.run_id = 'r' GROUP BY 1",
        "SELECT n.identity_json FROM server_snapshots n JOIN sessions s USING (session_id) WHERE s.exp_group_id = 'g'",
    )
    plans = []
    for name in ("today", "older"):
        with closing(connect_for_reading(tmp_path / f"{name}.sqlite")) as conn:
            steps = [[row[3].split()[0] for row in conn.execute(f"EXPLAIN QUERY PLAN {query}")] for query in queries]
            plans.append([sorted(each) for each in steps])
    assert plans[0] == plans[1]


def test_a_table_of_today_is_read_as_it_is(tmp_path: Path) -> None:
    connect_for_writing(tmp_path / "today.sqlite").close()
    with closing(connect_for_reading(tmp_path / "today.sqlite")) as conn:
        assert conn.execute("SELECT count(*) FROM temp.sqlite_master WHERE type = 'view'").fetchone() == (0,)
        for table in FACT_TABLES:
            assert "NULL AS" not in rows_of_today(conn, table)


@pytest.mark.parametrize("version", VERSIONS)
def test_scores_that_an_older_kvt_left_can_be_verified(facts: Path, tmp_path: Path, version: int) -> None:
    """Its folder may be one that can't be written: nothing is made anew there."""
    older = made_older(facts, tmp_path / "older.sqlite", version)
    with closing(connect_for_reading(facts, write_derived=True)) as conn:
        score(conn, "g")
    with closing(sqlite3.connect(older)) as conn:
        conn.execute("ATTACH ? AS today", (str(facts),))
        names = ", ".join(row[1] for row in conn.execute("PRAGMA main.table_info(scores)"))
        conn.execute(f"INSERT INTO main.scores ({names}) SELECT {names} FROM today.scores")
        conn.commit()
    of_group = verified(older).generations[0].findings
    assert of_group.checked["scores"] > 50
    assert {difference.column for difference in of_group.differences} <= {"first_divergence"}

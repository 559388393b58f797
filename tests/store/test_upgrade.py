"""`kvt upgrade`: facts of an older schema become facts of today's, and nothing is ever lost on the way."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from kvt_async.bench.bench import BenchOptions
from kvt_async.bench.bench import run as bench
from kvt_async.contract import waiting
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError, StoreError
from kvt_async.contract.local_faults import opened
from kvt_async.contract.ownership import APPLICATION_ID
from kvt_async.contract.paths import DB_NAME
from kvt_async.contract.schema import SCHEMA_VERSION, connect_for_reading, connect_for_writing
from kvt_async.contract.schema_tables import FACT_TABLES, columns_of
from kvt_async.store.lock import hold, lock_path
from kvt_async.sweep.sweep import SweepOptions, run
from kvt_async.upgrade import upgrade
from tests.analyzer.synthetic import make_db
from tests.older_db import made_older
from tests.servers.openai_server import Script, serving
from tests.worlds import bench_settings, check_invariants, db_of, query, sweep_settings, write_examples

QUIET = SweepOptions(quiet=True)
KEPT = "kv_transition.schema2.sqlite"
# What an older kvt did not store: who made it, when a task came, and the answers that were asked of an example.
NOT_STORED = {"sessions": {"host"}, "task_contracts": {"created_at"}}

DECODING_OF_A_BENCH = {  # before schema 3: with one more, none of their groups could go on
    f"decoding.{name}" for name in ("extra_body", "max_tokens_field", "seed", "stop", "temperature")
}


@pytest.fixture(autouse=True)
def nothing_opened_yet() -> None:
    """Each test as if in a process of its own."""
    opened.clear()


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, as a kvt of schema 2 left it, with failures and pending requests."""
    folder = tmp_path_factory.mktemp("older")
    today = make_db(folder / "today.sqlite", n_bins=2, n_per_bin=5, failures=0.2, partial=0.2)
    made_older(today, folder / "run" / DB_NAME)
    today.unlink()
    return folder / "run"


@pytest.fixture
def folder(older: Path, tmp_path: Path) -> Path:
    """A copy of it to work on."""
    return Path(shutil.copytree(older, tmp_path / "run"))


def facts(db: Path) -> dict[str, list[str]]:
    """Every fact by today's columns, whatever the schema."""
    with closing(connect_for_reading(db)) as conn:
        rows = {}
        for table in FACT_TABLES:
            names = [name for name in columns_of(table) if name not in NOT_STORED.get(table, ())]
            if table not in ("experiments", "task_contracts", "sample_plans"):
                rows[table] = sorted(map(repr, conn.execute(f"SELECT {', '.join(names)} FROM {table}")))
        return rows


def names_in(folder: Path) -> set[str]:
    """The files of a folder, but for the lock and for what SQLite makes beside a database that is read."""
    return {path.name for path in folder.iterdir() if not path.name.endswith((".lock", "-wal", "-shm"))}


def version_of(db: Path) -> int:
    with closing(sqlite3.connect(db)) as conn:
        return int(conn.execute("PRAGMA user_version").fetchone()[0])


@pytest.mark.parametrize("version", [1, 2])
def test_every_fact_is_in_the_new_database_and_the_old_one_stays_beside(folder: Path, version: int) -> None:
    db, kept = folder / DB_NAME, folder / f"kv_transition.schema{version}.sqlite"
    with closing(sqlite3.connect(db)) as conn:
        conn.executescript("DROP TABLE bench_stages; PRAGMA user_version=1;" if version == 1 else "")
    before = facts(db)
    done = upgrade(folder)
    assert (done.from_schema, done.to_schema, done.kept) == (version, SCHEMA_VERSION, str(kept))
    assert done.rows["requests"] == len(before["requests"]) > 0
    assert facts(db) == facts(kept) == before
    assert (version_of(db), version_of(kept)) == (SCHEMA_VERSION, version)
    assert names_in(folder) == {DB_NAME, kept.name}
    assert db.stat().st_mode == kept.stat().st_mode
    for file in (db, kept):
        with closing(sqlite3.connect(file)) as conn:
            assert conn.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
            assert conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with closing(connect_for_writing(db)) as conn, pytest.raises(sqlite3.IntegrityError, match="never changed"):
        conn.execute("UPDATE responses SET text = ''")


def test_a_database_of_today_is_left_as_it_is(folder: Path) -> None:
    upgrade(folder)
    before = (folder / DB_NAME).read_bytes()
    again = upgrade(folder)
    assert (again.from_schema, again.kept) == (SCHEMA_VERSION, None)
    assert (folder / DB_NAME).read_bytes() == before


async def test_a_swept_group_goes_on_where_it_was(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(tmp_path, url)
        await run(settings, options=QUIET)
        db, before = db_of(settings), tmp_path / "before.sqlite"
        db.rename(before)
        made_older(before, db)
        with pytest.raises(StoreError, match="kvt upgrade"):
            await run(settings, options=QUIET)
        upgrade(db.parent)
        assert facts(db) == facts(before)
        contract = "SELECT contract_json, contract_sha256 FROM"
        for table in ("experiments", "task_contracts"):
            assert query(db, f"{contract} {table}") == query(before, f"{contract} {table}")
        server.bodies.clear()
        report = await run(settings, options=QUIET)
        assert (report.sent, report.responses, server.bodies) == (0, 48, [])
        report = await run(sweep_settings(tmp_path, url, "kv.budgets=[1.0, 0.5, 0.3, 0.2]"), options=QUIET)
        assert report.sent == 12
    check_invariants(settings)


async def test_each_generation_keeps_its_task_and_its_data(tmp_path: Path) -> None:
    """The second one holds other examples under the name of the first, so they have a name of their own."""
    async with serving(Script()) as (server, url):
        await run(sweep_settings(tmp_path, url, n=4), options=QUIET)
        write_examples(tmp_path / "examples.jsonl", 4, words=50)
        shutil.rmtree(tmp_path / "data")
        settings = sweep_settings(tmp_path, url, n=4)
        await run(settings, options=SweepOptions(quiet=True, force=True))
        db, before = db_of(settings), tmp_path / "before.sqlite"
        db.rename(before)
        upgrade(made_older(before, db))
        stated = "SELECT generation, task, dataset_id, contract_sha256, look FROM task_contracts ORDER BY 1"
        assert query(db, stated) == query(before, stated)
        assert [row[2].endswith("__g2") for row in query(db, stated)] == [False, True]
        assert facts(db) == facts(before)
        server.bodies.clear()
        await run(settings, options=QUIET)
        assert server.bodies == []


async def test_a_benched_group_goes_on_where_it_was(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = bench_settings(tmp_path, url, "bench.concurrency=2")
        await bench(settings, BenchOptions(quiet=True))
        db, before = db_of(settings), tmp_path / "before.sqlite"
        db.rename(before)
        made_older(before, db)
        upgrade(db)
        assert facts(db) == facts(before)
        assert query(db, "SELECT contract_json FROM experiments") == query(
            before, "SELECT contract_json FROM experiments"
        )
        assert query(db, "SELECT count(*) FROM task_contracts") == query(before, "SELECT count(*) FROM task_contracts")
        (contract,) = query(db, "SELECT contract_json FROM experiments")[0]
        assert {key for key in json.loads(contract) if key.startswith("decoding.")} == DECODING_OF_A_BENCH
        server.bodies.clear()
        await bench(settings, BenchOptions(quiet=True))
        assert server.bodies == []


def test_what_only_the_log_of_a_killed_runner_holds_comes_along(folder: Path, tmp_path: Path) -> None:
    db = folder / DB_NAME
    with closing(sqlite3.connect(db, isolation_level=None)) as conn:
        conn.execute(
            "INSERT INTO probes SELECT 7, session_id, 'canary', 'full', '', 'a', 'alive', '{}', '' FROM sessions"
        )
        killed = Path(shutil.copytree(folder, tmp_path / "killed"))
    assert (killed / f"{DB_NAME}-wal").stat().st_size > 0
    upgrade(killed)
    with closing(connect_for_reading(killed / DB_NAME)) as conn:
        assert conn.execute("SELECT n, answer FROM probes").fetchall() == [(0, "a")]


def test_a_runner_at_work_is_not_disturbed(folder: Path) -> None:
    before = (folder / DB_NAME).read_bytes()
    with hold(folder / DB_NAME, "kvt sweep", "now"), pytest.raises(StoreError, match="another runner holds"):
        upgrade(folder)
    assert (folder / DB_NAME).read_bytes() == before
    assert names_in(folder) == {DB_NAME}


def test_a_database_that_a_reader_has_open_keeps_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log would be taken for the new one's."""
    monkeypatch.setattr(waiting, "LIMIT_S", 0.1)
    with closing(sqlite3.connect(folder / DB_NAME)) as reader:
        reader.execute("SELECT count(*) FROM runs").fetchone()
        with pytest.raises(StoreError, match="is held by"):
            upgrade(folder)
        assert version_of(folder / DB_NAME) == 2
    upgrade(folder)
    assert version_of(folder / DB_NAME) == SCHEMA_VERSION


def test_a_kill_at_any_statement_or_step_leaves_a_whole_database_and_the_next_upgrade_finishes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a child process; the parent looks at what it left."""
    db, before, versions = folder / DB_NAME, facts(folder / DB_NAME), []
    shutil.copytree(folder, folder.with_name("counted"))
    n_steps = _steps_until(folder.with_name("counted"), 1_000_000) or 0
    assert n_steps > 200
    for n in [*range(0, n_steps - 40, 90), *range(n_steps - 40, n_steps, 3)]:  # the exchange is among the last ones
        opened.clear()
        assert _steps_until(folder, n) is None
        assert facts(db) == before
        versions.append(version_of(db))
        if versions[-1] == SCHEMA_VERSION:  # it died after the exchange: back, for the next one
            (folder / KEPT).replace(db)
    assert set(versions) == {2, SCHEMA_VERSION}
    opened.clear()
    upgrade(folder)
    assert names_in(folder) == {DB_NAME, KEPT}
    assert facts(folder / KEPT) == before


def _steps_until(folder: Path, end: int) -> int | None:
    """Upgrade in a child process that ends without a word at step `end`. How many steps it took; None: it ended so."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        steps = _dying_at(end)
        upgrade(folder)
        os.write(writing, str(steps[0]).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        said = answer.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (0 if said else 9)
    return int(said) if said else None


def _dying_at(end: int) -> list[int]:
    """Let this process end without a word at a statement of SQL, or order to the file system. Returns the count of
    them, which grows."""
    steps = [0]

    def step(*_: object) -> None:
        if steps[0] == end:
            os._exit(9)
        steps[0] += 1

    class Watched(sqlite3.Connection):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[arg-type]
            self.set_trace_callback(step)

    def watched(do: Callable[..., object]) -> Callable[..., object]:
        def watch(*args: object, **options: object) -> object:
            step()
            done = do(*args, **options)
            step()
            return done

        return watch

    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **options: connect(*args, **(options | {"factory": Watched}))
    for name in ("link", "fsync", "replace", "rename", "unlink"):
        setattr(os, name, watched(getattr(os, name)))
    return steps


def test_a_disk_without_room_loses_nothing(folder: Path) -> None:
    before = (folder / DB_NAME).read_bytes()
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "sys.argv = ['kvt', 'upgrade', sys.argv[1]]\n"
        "from kvt_async.__main__ import main\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(folder)], check=False, capture_output=True, text=True)
    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stderr
    assert (folder / DB_NAME).read_bytes() == before
    assert names_in(folder) == {DB_NAME}


def test_a_file_system_without_second_names_keeps_a_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    before = facts(folder / DB_NAME)
    monkeypatch.setattr(os, "link", refuse)
    upgrade(folder)
    assert facts(folder / DB_NAME) == facts(folder / KEPT) == before
    assert names_in(folder) == {DB_NAME, KEPT}


def test_a_name_that_cannot_be_given_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = facts(folder / DB_NAME)
    monkeypatch.setattr("kvt_async.upgrade._second_name", refuse)
    with pytest.raises(StoreError, match="Free disk space"):
        upgrade(folder)
    assert names_in(folder) == {DB_NAME}
    assert facts(folder / DB_NAME) == before
    with closing(sqlite3.connect(folder / DB_NAME)) as conn:
        assert conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_earlier_copy_is_never_written_over(folder: Path) -> None:
    (folder / KEPT).write_text("mine")
    done = upgrade(folder)
    assert (folder / KEPT).read_text() == "mine"
    assert done.kept == str(folder / "kv_transition.schema2-2.sqlite")


def test_a_damaged_database_is_refused_and_not_touched(folder: Path) -> None:
    db = folder / DB_NAME
    with closing(sqlite3.connect(db)) as conn:
        (page,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'responses'").fetchone()
    with db.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    before = db.read_bytes()
    with pytest.raises(StoreError, match="damaged in responses"):
        upgrade(folder)
    assert db.read_bytes() == before
    assert names_in(folder) == {DB_NAME}


def test_what_is_no_run_of_kvt_is_refused(tmp_path: Path, folder: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as conn:
        conn.execute("CREATE TABLE precious (x)")
    for place, error in (
        (tmp_path / "nowhere", ConfigError),
        (tmp_path, MissingPrerequisiteError),
        (tmp_path / "other.sqlite", StoreError),
    ):
        with pytest.raises(error):
            upgrade(place)
    assert not lock_path(tmp_path / "other.sqlite").exists()
    with closing(sqlite3.connect(folder / DB_NAME)) as conn:
        conn.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match="newer"):
        upgrade(folder)


def test_several_places_are_upgraded_and_one_that_fails_stops_no_other(folder: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "kvt_async", "upgrade", str(tmp_path / "nowhere"), str(folder), "--json"]
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    failed, done = json.loads(ended.stdout)
    assert ended.returncode == ConfigError.exit_code
    assert "there is no folder" in failed["error"]
    assert (done["from_schema"], done["to_schema"], done["kept"]) == (2, SCHEMA_VERSION, str(folder / KEPT))

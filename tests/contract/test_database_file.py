"""Files that kvt must not touch, databases that are held, damaged or full, and who may read what kvt writes."""

import hashlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from analyzer.store.derived_rows import in_transaction
from kvt_async.contract import waiting
from kvt_async.contract.damage import damage
from kvt_async.contract.errors import StoreError
from kvt_async.contract.files import PRIVATE, append_to, scratch_folder, sweep, write_whole
from kvt_async.contract.local_faults import explained, opened
from kvt_async.contract.schema import connect_for_reading, connect_for_writing
from kvt_async.contract.waiting import transaction

Open = Callable[[Path], sqlite3.Connection]
OPENINGS: tuple[Open, ...] = (
    connect_for_writing,
    connect_for_reading,
    lambda db: connect_for_reading(db, write_derived=True),
)
HOLDER = """
import sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None)
conn.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def nothing_opened_yet() -> None:
    """Each test as if in a process of its own."""
    opened.clear()


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A database of ours with some hundred pages of examples."""
    path = tmp_path / "kv.sqlite"
    with closing(connect_for_writing(path)) as conn, transaction(conn, path):
        conn.execute("INSERT INTO datasets VALUES ('d','jsonl','t','tok','sha',NULL,'f1','{}','{}')")
        rows = [("d", f"e{i}", "q", "word " * 200, "[]", "{}", "0" * 64) for i in range(400)]
        conn.executemany("INSERT INTO examples VALUES (?,?,?,?,?,?,?)", rows)
    opened.clear()
    return path


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize(
    "made_by",
    [
        "CREATE TABLE precious (x)",
        "CREATE TABLE precious (x); PRAGMA user_version=2",
        "CREATE TABLE runs (x); CREATE TABLE requests (x); PRAGMA user_version=2",
        "PRAGMA application_id=7; PRAGMA user_version=2; CREATE TABLE precious (x)",
        "PRAGMA journal_mode=WAL; CREATE TABLE precious (x)",
    ],
)
def test_another_programs_database_is_refused_and_nothing_changes(tmp_path: Path, made_by: str, opening: Open) -> None:
    with closing(sqlite3.connect(tmp_path / "precious.db")) as conn:
        conn.executescript(made_by + ";")
    before = contents(tmp_path)
    with pytest.raises(StoreError, match="another program's database") as caught:
        opening(tmp_path / "precious.db")
    assert caught.value.exit_code == 3
    assert "--override db.path" in caught.value.do
    assert contents(tmp_path) == before


def test_a_foreign_database_in_use_keeps_what_its_log_holds(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "precious.db", isolation_level=None)) as conn:
        conn.executescript("PRAGMA journal_mode=WAL; CREATE TABLE precious (x); INSERT INTO precious VALUES (1);")
        with pytest.raises(StoreError, match="another program's database"):
            connect_for_writing(tmp_path / "precious.db")
        assert conn.execute("SELECT x FROM precious").fetchall() == [(1,)]


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_database_from_before_the_application_id_is_known_by_its_tables(db: Path, opening: Open) -> None:
    with closing(sqlite3.connect(db)) as conn:
        conn.execute("PRAGMA application_id=0")
    with closing(opening(db)) as conn:
        assert conn.execute("SELECT count(*) FROM examples").fetchone() == (400,)


@pytest.mark.parametrize("first_named", ["absolute", "relative", "link"])
def test_opening_a_database_again_drops_no_lock_of_its_first_connection(
    db: Path, first_named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the locks another process takes itself for the last one, and its close deletes the log in use."""
    monkeypatch.chdir(db.parent)
    (db.parent / "linked").symlink_to(db.parent, target_is_directory=True)
    names = {"absolute": db, "relative": Path(db.name), "link": db.parent / "linked" / db.name}
    elsewhere = [sys.executable, "-c", "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
                 "c.execute('SELECT count(*) FROM runs').fetchone(); c.close()", str(db)]  # fmt: skip
    with closing(connect_for_writing(names[first_named])) as first:
        first.execute("INSERT INTO datasets VALUES ('e','jsonl','t','tok','sha',NULL,'f1','{}','{}')")
        for opening in OPENINGS:
            opening(db).close()
        subprocess.run(elsewhere, check=True)
        assert db.with_name(f"{db.name}-wal").exists()
        first.execute("INSERT INTO datasets VALUES ('f','jsonl','t','tok','sha',NULL,'f1','{}','{}')")
    with closing(connect_for_reading(db)) as conn:
        assert conn.execute("SELECT count(*) FROM datasets").fetchone() == (3,)
        assert damage(db) == []


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_damaged_database_is_refused_with_the_tables_that_suffered(db: Path, opening: Open) -> None:
    with closing(sqlite3.connect(db)) as conn:
        (leaf,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'examples'").fetchone()
    overwrite(db, (leaf - 1) * 4096, b"\xff" * 4096)
    before = contents(db.parent)
    with pytest.raises(StoreError, match=r"damaged in examples") as caught:
        opening(db)
    assert "Restore it from a copy" in caught.value.do
    assert contents(db.parent) == before


@pytest.mark.parametrize("opening", OPENINGS)
def test_an_index_that_lost_its_rows_is_damage(db: Path, opening: Open) -> None:
    """A lookup in it finds nothing: fewer rows would be analysed, and nothing said."""
    with closing(sqlite3.connect(db)) as conn:
        (index,) = conn.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_examples_1'"
        ).fetchone()
        (other,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_runs_1'").fetchone()
    with db.open("rb") as file:
        file.seek((other - 1) * 4096)
        empty = file.read(4096)
    overwrite(db, (index - 1) * 4096, empty)
    with pytest.raises(StoreError, match=r"damaged in examples"):
        opening(db)


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        (b"word word", b"word \xff\xff\xff\xff", "examples"),
        (b'["the gold"]', b'["the gold"}', "examples"),
        (b"answers_json   ", b"answers_jsom   ", "its schema"),
        (b"of the contract", b"of the kontrakt", "experiments"),
    ],
)
def test_what_kvt_never_wrote_is_the_damage_behind_any_exception(
    db: Path, before: bytes, after: bytes, named: str
) -> None:
    """SQLite's own check finds nothing there."""
    with closing(connect_for_writing(db)) as conn:
        conn.execute("INSERT INTO examples VALUES ('d', 'x', 'q', 'c', '[\"the gold\"]', '{}', 's')")
        text = '"of the contract"'
        digest = hashlib.sha256(text.encode()).hexdigest()
        conn.execute("INSERT INTO experiments VALUES ('g', 1, 'now', ?, ?)", (text, digest))
    assert explained(json.JSONDecodeError("a server's page", "", 0)) is None
    data = db.read_bytes()
    assert before in data
    db.write_bytes(data.replace(before, after, 1))
    assert damage(db) == []
    assert f"the database is damaged in {named}" in str(explained(KeyError("what it led to")))


def test_of_two_databases_the_damaged_one_is_named(db: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.sqlite"
    connect_for_writing(whole).close()
    connect_for_reading(db).close()
    connect_for_reading(whole).close()
    overwrite(db, db.stat().st_size // 2, os.urandom(3 * 4096))
    with closing(sqlite3.connect(db)) as conn, pytest.raises(sqlite3.DatabaseError) as caught:
        conn.execute("SELECT sum(length(context)) FROM examples").fetchone()
    assert str(db) in str(explained(caught.value))


def test_a_limit_of_file_sizes_is_named_with_how_to_raise_it(db: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from kvt_async.contract.schema import connect_for_writing\n"
        "db = Path(sys.argv[1]); most = db.stat().st_size + 50_000; conn = connect_for_writing(db)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))\n"
        "from kvt_async.contract.command_line.options import run_app\n"
        "run_app(lambda: conn.execute(\"INSERT INTO datasets VALUES ('e', hex(zeroblob(3000000)),'t','t','s',NULL,'f',"
        "'{}','{}')\"))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(db)], check=False, capture_output=True, text=True)
    assert ended.returncode == 3, ended.stderr
    assert "ulimit -f" in ended.stderr


def test_any_exception_upon_a_damaged_database_is_told_as_the_damage(db: Path) -> None:
    connect_for_reading(db).close()
    assert explained(KeyError("a bug of ours")) is None
    overwrite(db, db.stat().st_size // 2, os.urandom(3 * 4096))
    assert "the database is damaged in examples" in str(explained(KeyError("what the damage led to")))


def test_who_holds_a_database_and_for_how_long_is_told_before_it_is_given_up(
    db: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "TELL_AFTER_S", 0.1)
    monkeypatch.setattr(waiting, "LIMIT_S", 0.6)
    command = [sys.executable, "-c", HOLDER, str(db)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        who = f"process {other.pid}" if Path("/proc/locks").exists() else "another program"
        with closing(connect_for_reading(db, write_derived=True)) as conn, pytest.raises(StoreError) as caught:
            in_transaction(conn, lambda _: None)
        other.communicate("")
    assert f"held by {who}" in str(caught.value)
    assert "waited 1 s" in str(caught.value)
    assert caught.value.exit_code == 3
    assert f"is held by {who}" in capsys.readouterr().err
    with closing(connect_for_writing(db)) as conn, transaction(conn, db):
        pass  # the holder has gone


def test_a_full_disk_is_the_reason_told_and_not_the_rollback_that_sqlite_did(db: Path) -> None:
    with closing(connect_for_reading(db, write_derived=True)) as conn:
        conn.execute("PRAGMA max_page_count=1")  # as many as there are now
        with pytest.raises(StoreError, match="database or disk is full") as caught:
            in_transaction(conn, lambda c: c.executescript("CREATE TABLE more AS SELECT * FROM examples").close())
        assert not conn.in_transaction
    assert "Free disk space" in caught.value.do


def test_a_copy_without_a_log_gets_one_so_that_its_readers_bar_no_writer(db: Path) -> None:
    """As `VACUUM INTO` and `.recover` write it."""
    copy = db.with_name("copy.sqlite")
    with closing(sqlite3.connect(db)) as conn:
        conn.execute("VACUUM INTO ?", (str(copy),))
    with closing(connect_for_reading(copy, write_derived=True)) as writer, closing(connect_for_reading(copy)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM examples").fetchone() == (400,)
        with transaction(writer, copy):
            writer.execute("DELETE FROM analysis_state")


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_nobody_else_reads_databases_and_logs(tmp_path: Path) -> None:
    with closing(connect_for_writing(tmp_path / "kv.sqlite")) as conn, append_to(tmp_path / "run.log"):
        conn.execute("INSERT INTO datasets VALUES ('d','jsonl','t','tok','sha',NULL,'f1','{}','{}')")
        names = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert names == dict.fromkeys(["kv.sqlite", "kv.sqlite-wal", "kv.sqlite-shm", "run.log"], PRIVATE)


def test_a_file_is_written_whole_or_stays_what_it_was(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_whole(page, "one")
    write_whole(page, b"two")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert page.read_text() == "two"
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        for write in (append_to, lambda path: write_whole(path, "three")):
            with pytest.raises(StoreError, match="in the way"):
                write(tmp_path / name)
    with pytest.raises(StoreError, match="a file is in the way of a folder") as caught:
        write_whole(page / "chart.svg", "three")
    assert str(page) in str(caught.value)


def test_scratch_of_the_killed_is_swept_and_that_of_the_living_stays(tmp_path: Path) -> None:
    (tmp_path / ".prepare-dead").mkdir()
    (tmp_path / ".prepare-dead/spool.sqlite").touch()
    (tmp_path / ".manifest.json.1.new").touch()
    with scratch_folder(tmp_path, ".prepare-") as living:
        sweep(tmp_path, ".manifest.json.*")
        sweep(tmp_path, ".prepare-*")
        assert list(tmp_path.iterdir()) == [living]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shell", "code", "says"),
    [
        ("{kvt} tasks > /dev/full", 3, "the answer can't be written: No space left on device"),
        ("{kvt} tasks ruler 2>&-", 0, ""),
        ("{kvt} tasks nothing 2> /dev/full", 2, ""),
        ("set -o pipefail; {kvt} tasks ruler 2>&1 | head -c 1 > /dev/null", 0, ""),
        ("{kvt} tasks ruler >&-", 0, ""),
    ],
)
def test_a_terminal_that_takes_nothing_ends_no_command_in_a_traceback(shell: str, code: int, says: str) -> None:
    command = shell.format(kvt=f"{sys.executable} -m kvt_async")
    ended = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, "Traceback" in ended.stderr, says in ended.stderr) == (code, False, True), ended.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def overwrite(file: Path, at: int, data: bytes) -> None:
    with file.open("r+b") as out:
        out.seek(at)
        out.write(data)


def test_a_table_that_came_later_is_empty_to_a_reader_and_made_for_a_writer(tmp_path: Path) -> None:
    db = tmp_path / "group.sqlite"
    connect_for_writing(db).close()
    with closing(sqlite3.connect(db)) as conn:
        conn.execute("DROP TABLE bench_requests")
    with closing(connect_for_reading(db)) as conn:
        assert conn.execute("SELECT request_id, turn_idx FROM bench_requests").fetchall() == []
    connect_for_writing(db).close()
    with closing(sqlite3.connect(db)) as conn:
        assert conn.execute("SELECT count(*) FROM sqlite_master WHERE name = 'bench_requests'").fetchone() == (1,)

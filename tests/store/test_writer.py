"""Facts are committed in groups, told done only then, and never lost, changed or written twice."""

import asyncio
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from kvt_async.contract.errors import StoreError
from kvt_async.records import Marks, Outcome
from kvt_async.store.columns import rows_of_outcome
from kvt_async.store.writer import Writer
from tests.group_db import NOW, RUN, SESSION, attempt, gave_up, make_group, outcome, request, request_row
from tests.worlds import query


@pytest.fixture
def db(tmp_path: Path) -> Path:
    make_group(tmp_path / "k.sqlite", 2000)
    return tmp_path / "k.sqlite"


def count(db: Path, table: str) -> int:
    return int(query(db, f"SELECT count(*) FROM {table}")[0][0])


async def test_a_future_resolves_only_when_its_rows_can_be_read_by_another_connection(db: Path) -> None:
    async with Writer(db, 0.2) as store:
        future = await store.submit([request_row(0), *rows_of_outcome(outcome(0), SESSION, NOW)])
        assert not future.done()
        assert count(db, "responses") == 0
        await future
        assert count(db, "responses") == 1


async def test_rows_wait_no_longer_than_the_flush_interval_and_are_committed_together(db: Path) -> None:
    async with Writer(db, 0.15) as store:
        before, began = store.commits, asyncio.get_running_loop().time()
        futures = [await store.submit([request_row(seq)]) for seq in range(50)]
        await asyncio.gather(*futures)
        assert 0.1 < asyncio.get_running_loop().time() - began < 2
        assert store.commits - before == 1


async def test_nobody_who_waits_for_a_commit_waits_for_the_interval(db: Path) -> None:
    async with Writer(db, 10, urgent=lambda: True) as store:
        async with asyncio.timeout(5):
            await (await store.submit([request_row(0)]))
    async with Writer(db, 10) as store:
        async with asyncio.timeout(5):
            await store.save([request_row(1)])
            await store.submit([request_row(2)])
            await store.flush()
        assert count(db, "requests") == 3


async def test_an_outcome_becomes_attempt_telemetry_response_and_a_failure_a_give_up(db: Path) -> None:
    async with Writer(db) as store:
        await store.save([request_row(0), request_row(1)])
        await store.save(rows_of_outcome(outcome(0, text="vier"), SESSION, NOW))
        await store.save(rows_of_outcome(gave_up(1), SESSION, NOW))
    assert query(db, "SELECT request_id, state FROM outcomes ORDER BY 1") == [
        (f"{RUN}:0", "response"),
        (f"{RUN}:1", "failure"),
    ]
    assert query(db, "SELECT text, kv_effective FROM responses") == [("vier", 1.0)]
    assert query(db, "SELECT ttft_s, prompt_tokens FROM attempt_metrics")[0] == (pytest.approx(0.001999), 10)
    assert query(db, "SELECT end_state, error_type, reason FROM attempts JOIN give_ups USING (request_id)") == [
        ("timeout", "IdleTimeout", "attempts_exhausted")
    ]


async def test_ttfb_and_ttft_end_at_the_kernels_stamp_where_there_is_one(db: Path) -> None:
    late = Marks(start_ns=0, first_byte_ns=9_000_000, first_reasoning_ns=20_000_000, first_content_ns=40_000_000)
    early = replace(late, first_byte_kernel_ns=5_000_000, first_text_kernel_ns=10_000_000)
    async with Writer(db) as store:
        for seq, marks in enumerate((late, early)):
            await store.save([request_row(seq)])
            stamped = Outcome(request(seq), replace(attempt(), marks=marks))
            await store.save(rows_of_outcome(stamped, SESSION, NOW))
    metrics = query(db, "SELECT ttfb_s, ttft_s, ttft_content_s FROM attempt_metrics ORDER BY request_id")
    assert metrics == [(0.009, 0.02, 0.04), (0.005, 0.01, 0.04)]


async def test_half_a_surrogate_pair_in_an_answer_is_stored_as_a_replacement_character(db: Path) -> None:
    async with Writer(db) as store:
        await store.save([request_row(0), *rows_of_outcome(outcome(0, text="a\ud83d b"), SESSION, NOW)])
    assert query(db, "SELECT text FROM responses") == [("a\ufffd b",)]


async def test_submit_waits_while_the_disk_is_behind(db: Path) -> None:
    async with Writer(db, 10, max_waiting_rows=10) as store:
        for seq in range(200):
            await store.submit([request_row(seq)])
        assert count(db, "requests") >= 180
        assert store.commits >= 18


async def test_leaving_commits_what_waits_and_truncates_the_log(db: Path) -> None:
    async with Writer(db, 10) as store:
        await store.submit([request_row(0)])
    assert count(db, "requests") == 1
    wal = db.with_name(db.name + "-wal")
    assert not wal.exists() or wal.stat().st_size == 0


async def test_the_log_stays_bounded_while_much_is_written(db: Path) -> None:
    async with Writer(db, 0) as store:
        await store.save([request_row(seq) for seq in range(1500)])
        for seq in range(1500):
            future = await store.submit(rows_of_outcome(outcome(seq, text="x" * 8000), SESSION, NOW))
            if seq % 50 == 0:
                await future
        await store.flush()
        wal, whole = (os.stat(name).st_size for name in (f"{db}-wal", db))
    assert wal < 8_000_000 < whole


async def test_a_second_insert_of_a_fact_is_a_bug_that_stops_the_writer(db: Path) -> None:
    async def twice() -> None:
        async with Writer(db) as store:
            await store.save([request_row(0)])
            await store.save([request_row(0)])

    with pytest.raises(sqlite3.IntegrityError, match="holds facts"):
        await twice()
    assert count(db, "requests") == 1


async def test_a_disk_that_fills_up_is_said_so_and_keeps_what_was_committed(db: Path) -> None:
    async def fill() -> None:
        async with Writer(db) as store:
            await store.save([request_row(seq) for seq in range(500)])
            await store._conn.execute("PRAGMA max_page_count=1")  # SQLite then reports a full disk
            for seq in range(500):
                await store.save(rows_of_outcome(outcome(seq, text="x" * 20_000), SESSION, NOW))

    with pytest.raises(StoreError, match="disk is full") as caught:
        await fill()
    assert caught.value.exit_code == 3
    assert "Free disk space" in str(caught.value)
    assert count(db, "requests") == 500
    assert query(db, "PRAGMA integrity_check") == [("ok",)]


async def test_every_call_after_a_failed_commit_fails_alike(db: Path) -> None:
    async def go_on() -> None:
        async with Writer(db) as store:
            await store._conn.execute("PRAGMA query_only=ON")
            with pytest.raises(StoreError, match="readonly"):
                await store.save([request_row(0)])
            with pytest.raises(StoreError):
                await store.submit([request_row(1)])
            with pytest.raises(StoreError):
                await store.flush()

    with pytest.raises(StoreError, match="readonly"):
        await go_on()


async def test_a_database_that_is_deleted_under_the_run_is_noticed_at_the_next_commit(db: Path) -> None:
    async def lose_it() -> None:
        async with Writer(db) as store:
            await store.save([request_row(0)])
            shutil.rmtree(db.parent)
            await store.save([request_row(1)])

    with pytest.raises(StoreError, match="moved or deleted"):
        await lose_it()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(StoreError, match="unable to open"):
        await Writer(folder / "k.sqlite").__aenter__()


async def test_a_path_that_can_hold_no_database_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"runs_dir|can't be used"):
        async with Writer(tmp_path / "file" / "k.sqlite"):
            pass


async def test_a_busy_database_is_waited_for(db: Path) -> None:
    other = sqlite3.connect(db, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with Writer(db) as store:
        future = await store.submit([request_row(0)])
        store.hurry()
        done, _ = await asyncio.wait({asyncio.ensure_future(future)}, timeout=0.2)
        assert not done
        other.execute("COMMIT")
        await future
    other.close()


async def test_insert_takes_columns_by_name_and_knows_no_others(db: Path) -> None:
    async with Writer(db) as store:
        await store.insert(
            "probes",
            {"session_id": SESSION, "kind": "canary", "level": "full", "prompt_sha256": "", "detail_json": "{}",
             "created_at": NOW},
        )  # fmt: skip
        with pytest.raises(KeyError, match="colour"):
            await store.insert("probes", {"colour": "red"})
    assert query(db, "SELECT n, verdict FROM probes") == [(0, None)]

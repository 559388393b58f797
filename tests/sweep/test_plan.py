"""The plan: manifest x levels - what is settled, in order, without ever being a list."""

from collections import Counter
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.schema import connect_for_writing
from kvt_async.store.columns import rows_of_outcome
from kvt_async.store.reader import Past, Reader
from kvt_async.store.writer import Writer
from kvt_async.sweep.plan import only, pending, steps
from kvt_async.ways.registry import way_of
from tests.group_db import (
    DATASET,
    NOW,
    RUN,
    SESSION,
    add_session,
    gave_up,
    make_group,
    outcome,
    request_row,
)
from tests.tables import insert

masks = st.lists(st.lists(st.sampled_from([0, 1]), min_size=5, max_size=5).map(bytearray), min_size=1, max_size=5)


@given(masks, st.sampled_from(["by_budget", "interleaved"]), st.integers(0, 3), st.data())
def test_every_open_step_comes_once_and_no_settled_one_comes(
    done: list[bytearray], order: Literal["by_budget", "interleaved"], seed: int, data: st.DataObject
) -> None:
    repeats = data.draw(st.lists(st.booleans(), min_size=len(done), max_size=len(done)))
    made = list(steps(done, repeats, order, seed))
    asked = {(level, seq) for level, mask in enumerate(done) for seq, byte in enumerate(mask) if not byte}
    assert Counter(made) == Counter(asked)
    assert len(made) == sum(pending(done))


def test_by_budget_ends_a_level_before_the_next_and_keeps_the_manifest_order() -> None:
    done = [bytearray([0, 1, 0]), bytearray(3)]
    assert list(steps(done, [False, False], "by_budget", 1)) == [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_interleaved_sends_all_levels_of_an_example_before_the_next_in_a_seeded_order() -> None:
    done = [bytearray(50) for _ in range(4)]
    made = list(steps(done, [False] * 4, "interleaved", 7))
    assert [seq for _, seq in made] == [seq for seq in range(50) for _ in range(4)]
    orders = {tuple(level for level, _ in made[i : i + 4]) for i in range(0, 200, 4)}
    assert len(orders) > 10
    assert made == list(steps(done, [False] * 4, "interleaved", 7))
    assert made != list(steps(done, [False] * 4, "interleaved", 8))


def test_interleaved_keeps_the_repeats_of_full_cache_for_the_end() -> None:
    done = [bytearray(2), bytearray(2), bytearray(2)]
    assert list(steps(done, [False, False, True], "interleaved", 1))[-2:] == [(2, 0), (2, 1)]


def test_an_order_of_an_interrupted_plan_is_that_of_the_whole_one() -> None:
    whole = list(steps([bytearray(9), bytearray(9)], [False, False], "interleaved", 3))
    done = [bytearray(9), bytearray(9)]
    for level, seq in whole[:7]:
        done[level][seq] = 1
    rest = list(steps(done, [False, False], "interleaved", 3))
    assert [seq for _, seq in rest] == [seq for _, seq in whole[7:]]


def test_interleaved_with_servers_that_are_launched_one_by_one_is_a_config_error() -> None:
    way_of("launch").check_order("by_budget")
    with pytest.raises(ConfigError, match="interleaved"):
        way_of("launch").check_order("interleaved")


def test_limit_leaves_only_the_chosen_entries() -> None:
    assert list(only(bytearray([0, 1, 0, 0]), [1, 2])) == [1, 1, 0, 1]


def test_limit_takes_the_first_of_each_bin(tmp_path: Path) -> None:
    make_group(tmp_path / "k.sqlite", 10, n_bins=3)
    reader = Reader(tmp_path / "k.sqlite")
    assert reader.first_of_each_bin(DATASET, 2) == [0, 1, 4, 5, 7, 8]
    reader.close()


async def test_answered_and_failed_entries_are_settled_until_a_new_try_series_opens(tmp_path: Path) -> None:
    db = tmp_path / "k.sqlite"
    make_group(db, 5, run_ids=(RUN, f"{RUN}0"))
    reader = Reader(db)
    async with Writer(db) as store:
        await store.save([request_row(seq) for seq in range(5)])
        await store.save([request_row(3, f"{RUN}0"), *rows_of_outcome(outcome(3, f"{RUN}0"), SESSION, NOW)])
        await store.save([*rows_of_outcome(outcome(0), SESSION, NOW), *rows_of_outcome(gave_up(2), SESSION, NOW)])
        assert list(reader.settled(RUN, 5)) == [1, 0, 1, 0, 0]
        assert reader.failed(RUN) == [(f"{RUN}:2", 0)]
        await store.insert(
            "try_series", {"request_id": f"{RUN}:2", "series_idx": 1, "session_id": SESSION, "created_at": NOW}
        )
        assert list(reader.settled(RUN, 5)) == [1, 0, 0, 0, 0]
        assert reader.past([f"{RUN}:1", f"{RUN}:2", f"{RUN}:9"]) == {
            f"{RUN}:1": Past(True, 0),
            f"{RUN}:2": Past(True, 1),
        }
        assert reader.series_idx([f"{RUN}:1", f"{RUN}:2"]) == {f"{RUN}:2": 1}
        await store.save(rows_of_outcome(gave_up(2, series_idx=1, idx=1), SESSION, NOW))
        assert list(reader.settled(RUN, 5)) == [1, 0, 1, 0, 0]
        assert reader.failed(RUN) == [(f"{RUN}:2", 1)]
    assert list(reader.settled(f"{RUN}0", 5)) == [0, 0, 0, 1, 0]
    assert reader.counts(RUN) == {"requests": 5, "responses": 1, "failures": 1}
    reader.close()


def test_only_sessions_killed_since_the_last_orderly_end_may_have_lost_requests(tmp_path: Path) -> None:
    db = tmp_path / "k.sqlite"
    make_group(db, 1)
    conn = connect_for_writing(db)
    add_session(conn, "s2", at="2026-01-02T00:00:00.000Z")
    insert(conn, "session_ends", session_id="s2", ended_at=NOW, exit_code=0, reason="finished")
    add_session(conn, "s3", at="2026-01-03T00:00:00.000Z", concurrency=3)
    conn.close()
    reader = Reader(db)
    assert reader.killed_sessions("g") == [("s3", 3)]
    reader.close()


def test_the_entry_of_a_step_carries_its_whole_example(tmp_path: Path) -> None:
    make_group(tmp_path / "k.sqlite", 4)
    reader = Reader(tmp_path / "k.sqlite")
    found = reader.entries(DATASET, [3, 1])
    assert set(found) == {1, 3}
    assert found[3].example.context == "context 3."
    assert (found[3].token_len, found[3].prompt_sha256) == (13, "p3")
    reader.close()

"""Which databases a group has, and which request is read from which of them."""

from contextlib import closing
from pathlib import Path

import pytest

from kvt_async.contract.errors import ConfigError, ContractMismatchError, DriftError
from kvt_async.contract.schema import connect_for_reading, connect_for_writing
from kvt_async.contract.shards.group_databases import GroupDatabase, facts_state, group_databases
from kvt_async.contract.shards.shard import Shard, shard_from
from tests.shards.shard_db import RUN, answer, give_up, group_of, tried, with_server
from tests.tables import insert

EARLY, LATE = tried("2026-01-01", "sa"), tried("2026-01-02", "sb")
EARLY_ANSWER, LATE_ANSWER = answer("2026-01-01", "sa"), answer("2026-01-02", "sb")


def shard(own: Path, name: str) -> Path:
    return own.parent / "shards" / f"{name}.sqlite"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "kv_transition.sqlite"


def without(own: Path) -> dict[str, set[int]]:
    """Entries that are not read, by database."""
    return {m.db.stem: {int(i.rpartition(":")[2]) for i in m.without} for m in group_databases(own)}


def test_a_group_without_shards_is_its_own_database_whether_it_is_there_or_not(own: Path) -> None:
    assert group_databases(own) == (GroupDatabase(own),)


def test_shards_of_one_n_are_read_whole_and_the_groups_own_database_only_where_something_was_run_in_it(
    own: Path,
) -> None:
    for name, seq in (("2-of-2", 1), ("1-of-2", 0)):
        group_of(shard(own, name), (seq, [EARLY_ANSWER]))
    connect_for_writing(own).close()
    connect_for_writing(shard(own, "1-of-3")).close()
    shard(own, "notes").write_text("")
    both = [GroupDatabase(shard(own, "1-of-2"), (1, 2)), GroupDatabase(shard(own, "2-of-2"), (2, 2))]
    assert list(group_databases(own)) == both


def test_of_two_histories_the_one_is_read_that_a_merge_would_keep(own: Path) -> None:
    group_of(
        own,
        (0, [EARLY_ANSWER]),  # both answered: the earlier one
        (1, [EARLY]),  # the other one goes on where this ended
        (2, [EARLY, give_up]),  # answered elsewhere
        (3, [LATE, give_up]),  # pending elsewhere
        (4, [EARLY_ANSWER]),  # the same in both
        (5, [EARLY_ANSWER]),  # here alone
    )
    group_of(
        shard(own, "1-of-2"),
        (0, [LATE_ANSWER]),
        (1, [EARLY, LATE, give_up]),
        (2, [LATE_ANSWER]),
        (3, [EARLY]),
        (4, [EARLY_ANSWER]),
        (6, [LATE_ANSWER]),
    )
    assert without(own) == {"kv_transition": {1, 2}, "1-of-2": {0, 3, 4}}


def test_a_request_in_three_databases_is_read_from_one(own: Path) -> None:
    group_of(own, (0, [LATE]))
    group_of(shard(own, "1-of-2"), (0, [EARLY]))
    group_of(shard(own, "1-of-3"), (0, [LATE, give_up]))
    assert without(own) == {"kv_transition": {0}, "1-of-2": {0}, "1-of-3": set()}


def test_a_shard_that_was_taken_in_whole_is_not_read_until_it_has_more(own: Path) -> None:
    group_of(own, (0, [EARLY_ANSWER]))
    part = group_of(shard(own, "1-of-2"), (0, [EARLY_ANSWER]))
    with closing(connect_for_reading(part)) as conn:
        state = facts_state(conn)
    with closing(connect_for_writing(own)) as conn:
        insert(conn, "merges", source=part.name, source_state=state, merged_at="t", n_requests=1, n_new=0, n_equal=1,
               n_continued=0, n_replaced=0, n_left=0)  # fmt: skip
    assert [member.db for member in group_databases(own)] == [own]
    with closing(connect_for_writing(part)) as conn:
        insert(conn, "requests", request_id=f"{RUN}:1", run_id=RUN, example_id="e1", prompt_sha256="p1", created_at="t")
    assert [member.db for member in group_databases(own)] == [own, part]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('UPDATE experiments SET contract_json = \'{"model.name": "b"}\'', ("contract of g", "model.name")),
        ("UPDATE manifests SET sha256 = 'other'", ("manifest of jsonl__made, version 1", "sha256")),
        ("UPDATE datasets SET metric = 'em'", ("data set jsonl__made", "metric")),
        ("UPDATE runs SET kv_policy = 'snapkv'", (f"level {RUN}", "kv_policy")),
    ],
)
def test_parts_of_another_contract_or_manifest_are_refused_and_named(
    own: Path, change: str, words: tuple[str, ...]
) -> None:
    group_of(shard(own, "1-of-2"))
    with closing(connect_for_writing(group_of(shard(own, "2-of-2")))) as conn:
        conn.execute(f"DROP TRIGGER {change.split()[1]}_no_update")
        conn.execute(change)
    with pytest.raises(ContractMismatchError) as refused:
        group_databases(own)
    assert all(word in str(refused.value) for word in (*words, "1-of-2.sqlite", "2-of-2.sqlite"))


def test_an_older_version_of_a_manifest_that_has_grown_is_no_other_manifest(own: Path) -> None:
    group_of(shard(own, "1-of-2"))
    with closing(connect_for_writing(group_of(shard(own, "2-of-2")))) as conn:
        insert(conn, "manifests", dataset_id="jsonl__made", version=2, sha256="2", created_at="t", n_entries=9)
    assert len(group_databases(own)) == 2


def test_parts_of_two_servers_are_refused_and_two_places_of_one_server_are_not(own: Path) -> None:
    with_server(group_of(shard(own, "1-of-3")), "1")
    with closing(connect_for_writing(with_server(group_of(shard(own, "2-of-3")), "1", "http://node2/v1"))) as conn:
        conn.execute("DROP TRIGGER runs_no_update")
        conn.execute("UPDATE runs SET base_url = 'http://node2/v1'")
    assert len(group_databases(own)) == 2
    with_server(group_of(shard(own, "3-of-3")), "2")
    with pytest.raises(DriftError, match=r"1-of-3\.sqlite 1, 3-of-3\.sqlite 2"):
        group_databases(own)


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "-1/2", "1/0", "1/2/3", "a/b", "1/9999", "1.5/2", "1 / 2"])
def test_what_is_no_shard_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="--shard 2/4"):
        shard_from(text, "--shard", "entries")


def test_a_shard_is_called_by_its_part() -> None:
    assert (shard_from("2/4", "--shard", "entries"), Shard(2, 4).name) == (Shard(2, 4), "2-of-4")

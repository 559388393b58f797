"""Shards merged in any order, again and again, are what one process would have written."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvt_async.contract.errors import ContractMismatchError, DriftError, MissingPrerequisiteError
from kvt_async.contract.schema import connect_for_writing
from kvt_async.contract.shards.group_databases import group_databases
from kvt_async.merge import show_merge
from kvt_async.store.merging import Taken, merge
from tests.shards.shard_db import RUN, Step, answer, copy_of, give_up, group_of, retry, tried, with_server
from tests.tables import insert
from tests.worlds import query

N = 5  # requests of a random group
CASES = int(os.environ.get("KVT_FUZZ_CASES", "0")) // 2000 or 4
HISTORY = """SELECT o.request_id, o.state, p.text, p.usage_json, p.kv_evidence_json,
    (SELECT group_concat(a.started_at || a.session_id || a.series_idx || ifnull(t.start_ns, 'no telemetry')) FROM
     attempts a LEFT JOIN telemetry t USING (request_id, attempt_idx) WHERE a.request_id = o.request_id),
    (SELECT count(*) FROM give_ups g WHERE g.request_id = o.request_id),
    (SELECT count(*) FROM try_series g WHERE g.request_id = o.request_id)
    FROM outcomes o LEFT JOIN responses p USING (request_id) ORDER BY 1"""


@st.composite
def lineages(draw: st.DrawFn) -> list[list[Step]]:
    """One or two lives of one request, which began at different times; each as long as it ever got."""
    lives = []
    for nth in range(draw(st.integers(1, 2))):
        sessions = [f"{draw(st.sampled_from('abc'))}{nth}" for _ in range(4)]
        steps = [tried(f"2026-01-{nth + 1:02}", sessions[0])] if draw(st.booleans()) else []
        if draw(st.booleans()) and steps:
            steps += [give_up, retry(sessions[1])]
        end = [answer(f"2026-02-{nth + 1:02}", sessions[2])], [tried(f"2026-02-{nth + 1:02}", sessions[3]), give_up]
        lives.append([*steps, *end[draw(st.integers(0, 1))]])
    return lives


def kept(histories: Sequence[Sequence[Step]]) -> list[Step]:
    """The rule as it is written down: the one that goes on, else a response, else a give-up, else the earlier one."""
    longest = [
        one for one in histories
        if not any(len(other) > len(one) and list(other[: len(one)]) == list(one) for other in histories)
    ]  # fmt: skip
    answered = [one for one in longest if any(step.kind == "answer" for step in one)]
    given_up = [one for one in longest if give_up in one]
    return list(min(answered or given_up or longest, key=_began))


def _began(history: Iterable[Step]) -> tuple[str, str]:
    return next(((step.at, step.session) for step in history if step.kind in ("try", "answer")), ("~", ""))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    db = tmp_path_factory.mktemp("empty") / "x.sqlite"
    make = group_of(db, n=N)
    with closing(connect_for_writing(make)) as conn:
        conn.execute("PRAGMA journal_mode=DELETE")
    return db


def facts(db: Path) -> list[tuple[Any, ...]]:
    assert query(db, "PRAGMA foreign_key_check") == []
    assert query(db, "PRAGMA integrity_check") == [("ok",)]
    return query(db, HISTORY)


@settings(max_examples=CASES, deadline=None)
@given(
    lives=st.lists(lineages(), min_size=N, max_size=N),
    n_databases=st.integers(2, 4),
    rng=st.randoms(use_true_random=False),
)
def test_any_order_of_merging_gives_the_facts_of_one_process(
    lives: list[list[list[Step]]], n_databases: int, rng: random.Random, empty: Path
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_merging(Path(folder), empty, lives, n_databases, rng)


def check_merging(
    folder: Path, empty: Path, lives: list[list[list[Step]]], n_databases: int, rng: random.Random
) -> None:
    has: list[list[tuple[int, list[Step]]]] = [[] for _ in range(n_databases)]
    for seq, of_request in enumerate(lives):
        for db in rng.sample(range(n_databases), rng.randint(1, n_databases)):
            life = rng.choice(of_request)
            has[db].append((seq, life[: rng.randint(0, len(life))]))
    own = folder / "g" / "kv_transition.sqlite"
    paths = [own, *(own.parent / "shards" / f"1-of-{i}.sqlite" for i in range(2, n_databases + 1))]
    parts = [copy_of(empty, path, *histories) for path, histories in zip(paths, has, strict=True)]
    held = {seq: [h for histories in has for s, h in histories if s == seq] for seq in range(N)}
    whole = copy_of(empty, folder / "one.sqlite", *((seq, kept(those)) for seq, those in held.items() if those))
    read_apart = sorted(
        row for member in group_databases(own) for row in query(member.db, HISTORY) if row[0] not in member.without
    )
    assert read_apart == facts(whole)
    for nth in range(2):
        into = folder / f"merged{nth}.sqlite"
        order = [rng.choice(parts) for _ in range(rng.randint(0, 2))] + rng.sample(parts, len(parts))
        for at in range(0, len(order), 2):
            taken = merge(into, order[at : at + 2])
            assert all(t.n_requests == sum([t.n_new, t.n_equal, t.n_continued, t.n_replaced, t.n_left]) for t in taken)
        assert facts(into) == facts(whole)
    assert [t.n_equal == t.n_requests for t in merge(into, parts)] == [True] * len(parts)


def test_a_merge_counts_what_it_took_and_what_it_left(tmp_path: Path) -> None:
    early, late = answer("2026-01-01", "sa"), answer("2026-01-02", "sb")
    own = group_of(tmp_path / "own.sqlite", (0, [late]), (1, [late]), (2, [tried("2026-01-01", "sa")]), (3, [early]))
    part = group_of(
        tmp_path / "1-of-2.sqlite",
        (0, [early]), (1, [late]), (2, [tried("2026-01-01", "sa"), late]), (3, [late]), (4, [late]),
    )  # fmt: skip
    (taken,) = merge(own, [part])
    assert taken == Taken("1-of-2.sqlite", 5, n_new=1, n_equal=1, n_continued=1, n_replaced=1, n_left=1)
    row = query(own, "SELECT source, n_requests, n_new, n_equal, n_continued, n_replaced, n_left FROM merges")
    assert row == [("1-of-2.sqlite", 5, 1, 1, 1, 1, 1)]
    assert [text for (text,) in query(own, "SELECT text FROM responses ORDER BY request_id")] == [
        "by sa", "by sb", "by sb", "by sa", "by sb",
    ]  # fmt: skip
    with closing(connect_for_writing(own)) as conn, pytest.raises(sqlite3.IntegrityError, match="holds facts"):
        conn.execute("DELETE FROM attempts")


def test_scores_of_a_history_that_was_replaced_go_with_it(tmp_path: Path) -> None:
    own = group_of(tmp_path / "own.sqlite", (0, [answer("2026-01-02", "sb")]), (1, [answer("2026-01-02", "sb")]))
    with closing(connect_for_writing(own)) as conn:
        for seq in (0, 1):
            insert(conn, "scores", request_id=f"{RUN}:{seq}", em=1, f1=1, score=1, metric="em", flags="",
                   scorer_version="1")  # fmt: skip
        insert(conn, "analysis_state", exp_group_id="g", generation=1, stage="score", scope=RUN, fingerprint="f",
               detail_json="{}")  # fmt: skip
    merge(own, [group_of(tmp_path / "1-of-2.sqlite", (0, [answer("2026-01-01", "sa")]))])
    assert query(own, "SELECT request_id FROM scores") == [(f"{RUN}:1",)]
    assert query(own, "SELECT count(*) FROM analysis_state") == [(0,)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_what_all_have_the_earliest_row_holds(tmp_path: Path, order: tuple[int, int]) -> None:
    parts = []
    for name, at in (("1-of-2", "2026-01-02"), ("2-of-2", "2026-01-01")):
        db = group_of(tmp_path / f"{name}.sqlite")
        with closing(connect_for_writing(db)) as conn:
            conn.execute("DROP TRIGGER runs_no_update")
            conn.execute("UPDATE runs SET created_at = ?, base_url = ?, engine_name = ?", (at, f"http://{name}", name))
        parts.append(db)
    into = tmp_path / "own.sqlite"
    for nth in order:
        merge(into, [parts[nth]])
    assert query(into, "SELECT created_at, base_url, engine_name FROM runs") == [
        ("2026-01-01", "http://2-of-2", "2-of-2")
    ]


def test_entries_of_a_manifest_that_has_grown_are_taken_along(tmp_path: Path) -> None:
    older, grown = group_of(tmp_path / "1-of-2.sqlite", n=4), group_of(tmp_path / "2-of-2.sqlite", n=4)
    with closing(connect_for_writing(grown)) as conn:
        insert(conn, "manifests", dataset_id="jsonl__made", version=2, sha256="2", created_at="t", n_entries=5)
        conn.execute("INSERT INTO examples SELECT dataset_id, 'e4', question, context, answers_json, meta_json, 'c4' "
                     "FROM examples WHERE example_id = 'e0'")  # fmt: skip
        conn.execute("INSERT INTO manifest_entries SELECT dataset_id, 'e4', 4, 2, bin_idx, token_len, context_tokens, "
                     "original_tokens, 0, 'p4' FROM manifest_entries WHERE seq = 0")  # fmt: skip
    for name, order in (("a", [older, grown]), ("b", [grown, older])):
        merge(tmp_path / name, order)
        assert query(tmp_path / name, "SELECT count(*), max(version) FROM manifest_entries") == [(5, 2)]


def test_parts_of_another_group_contract_or_server_are_refused_and_nothing_is_taken(tmp_path: Path) -> None:
    own = with_server(group_of(tmp_path / "own.sqlite"), "1")
    other = group_of(tmp_path / "other.sqlite", (0, [answer("2026-01-01", "sa")]))
    for change, error, words in (
        ("UPDATE experiments SET exp_group_id = 'h'", ContractMismatchError, "this is group h"),
        ('UPDATE experiments SET contract_json = \'{"model.name": "b"}\'', ContractMismatchError, "model.name"),
    ):
        changed = tmp_path / "changed.sqlite"
        shutil.copyfile(other, changed)
        with closing(sqlite3.connect(changed)) as conn:
            conn.execute("DROP TRIGGER experiments_no_update")
            conn.execute(change)
            conn.commit()
        with pytest.raises(error, match=words):
            merge(own, [changed])
    with pytest.raises(DriftError, match=r"server's version differs: own\.sqlite 1, other\.sqlite 2"):
        merge(own, [with_server(other, "2")])
    assert query(own, "SELECT count(*) FROM requests") == [(0,)]


def test_a_merge_that_is_refused_makes_no_database_and_the_groups_own_shards_have_a_say(tmp_path: Path) -> None:
    own, other = tmp_path / "g/kv_transition.sqlite", tmp_path / "other.sqlite"
    with_server(group_of(tmp_path / "g/shards/1-of-2.sqlite"), "1")
    with_server(group_of(other, (0, [answer("2026-01-01", "sa")])), "2")
    with pytest.raises(DriftError, match=r"1-of-2\.sqlite 1, other\.sqlite 2"):
        merge(own, [other])
    assert not own.exists()


def test_a_merge_that_was_killed_is_finished_by_the_next_one(tmp_path: Path) -> None:
    parts = [
        group_of(
            tmp_path / f"{i}-of-2.sqlite", *((s, [answer("2026-01-01", "sa")]) for s in range(i - 1, 400, 2)), n=400
        )
        for i in (1, 2)
    ]
    into = group_of(tmp_path / "own.sqlite", (1, [tried("2026-01-01", "sb"), give_up]), n=400)
    code = (
        "import os, signal, sys; from pathlib import Path; from kvt_async.store import merging\n"
        "merging.REQUESTS_AT_ONCE = 30; real, calls = merging._chunk, []\n"
        "def chunk(*args):\n"
        "    calls.append(real(*args))\n"
        "    if len(calls) == int(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return calls[-1]\n"
        "merging._chunk = chunk; merging.merge(Path(sys.argv[2]), [Path(p) for p in sys.argv[3:]])\n"
    )
    for n in (1, 3):
        killed = subprocess.run([sys.executable, "-c", code, str(n), into, *parts], check=False)
        assert killed.returncode == -signal.SIGKILL
        query(into, "SELECT 1")  # a reader finds a whole database at any time
    merge(into, parts)
    assert query(into, "SELECT state, count(*) FROM outcomes GROUP BY 1") == [("response", 400)]
    triggers = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"
    assert query(into, triggers) == query(parts[0], triggers)


def test_the_command_takes_a_groups_shards_and_other_run_folders_and_says_what_it_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group, node = tmp_path / "g", tmp_path / "node2" / "g"
    group_of(group / "shards/1-of-2.sqlite", (0, [answer("2026-01-01", "sa")]))
    group_of(node / "shards/2-of-2.sqlite", (1, [answer("2026-01-01", "sb")]))
    with pytest.raises(MissingPrerequisiteError, match="no shards"):
        show_merge(tmp_path / "nothing", [])
    assert show_merge(group, [group, node]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "1-of-2.sqlite: 1 request: 1 new",
        "2-of-2.sqlite: 1 request: 1 new",
    ]
    assert show_merge(group, [], as_json=True) == 0
    (source,) = orjson.loads(capsys.readouterr().out)["sources"]
    assert (source["source"], source["n_equal"]) == ("1-of-2.sqlite", 1)
    assert [member.part for member in group_databases(group / "kv_transition.sqlite")] == [None]

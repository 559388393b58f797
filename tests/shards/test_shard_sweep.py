"""A group that is sent in shards: together they ask everything once, each on its own."""

import asyncio
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from analyzer.stages import every_stage, verify_stage
from analyzer.verify.integrity import check_facts
from kvt_async.contract.command_line.run_folder import stored_settings
from kvt_async.contract.errors import ConfigError, ContractMismatchError, GuardError
from kvt_async.contract.schema import connect_for_reading, connect_for_writing
from kvt_async.contract.settings import Settings
from kvt_async.contract.shards.group_databases import group_databases
from kvt_async.contract.shards.shard import Shard, shard_databases
from kvt_async.status import show_status, status
from kvt_async.store.lock import hold
from kvt_async.store.merging import merge
from kvt_async.sweep.sweep import SweepOptions, prepare_group, run
from tests.servers.openai_server import Script, serving
from tests.sweep.test_conversations import OWN, TURNS, settings_for
from tests.sweep.test_sweep import grid_bodies
from tests.tables import insert_session
from tests.ways.test_launch import launching
from tests.worlds import check_invariants, db_of, query, sweep_settings, until

QUIET = SweepOptions(quiet=True)
SEVEN = "decoding.max_tokens=7"


def in_shards(n: int, **options: object) -> list[SweepOptions]:
    return [replace(QUIET, shard=Shard(i, n), **options) for i in range(1, n + 1)]  # type: ignore[arg-type]


def shared_contexts(folder: Path, n: int = 12, each: int = 2) -> None:
    """`n` examples, `each` of which ask about one context."""
    rows = ({"example_id": f"e{i}", "context": f"Fact {i // each}: " + "word " * 30, "question": f"What is {i}?",
             "answers": ["a"]} for i in range(n))  # fmt: skip
    folder.joinpath("examples.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def answered(settings: Settings) -> Counter[tuple[str, str]]:
    """How often each (level, example) was answered, over all databases of the group."""
    sql = "SELECT run_id, example_id FROM responses JOIN requests USING (request_id)"
    return Counter(row for member in group_databases(db_of(settings)) for row in query(member.db, sql))


async def test_shards_ask_everything_once_whole_contexts_each_and_a_second_time_nothing(tmp_path: Path) -> None:
    shared_contexts(tmp_path)
    async with serving(Script()) as (server, url):
        settings = sweep_settings(tmp_path, url, SEVEN)
        reports = [await run(settings, options=options) for options in in_shards(3)]
        assert [(r.exit_code, r.planned, r.pending) for r in reports] == [(0, 16, 0)] * 3
        assert len(grid_bodies(server)) == 48
        again = [await run(settings, options=options) for options in in_shards(3)]
        assert [r.session_id for r in again] == [None] * 3
        alone = sweep_settings(tmp_path, url, SEVEN, f"output.runs_dir={tmp_path}/alone")
        await run(alone, options=QUIET)
    counts = answered(settings)
    assert (len(counts), set(counts.values())) == (48, {1})
    folder = tmp_path / "runs/g/shards"
    assert sorted(path.name for path in folder.glob("*.sqlite")) == ["1-of-3.sqlite", "2-of-3.sqlite", "3-of-3.sqlite"]
    assert {path.name for path in folder.joinpath("1-of-3").iterdir()} == {"run.log"}
    assert not db_of(settings).exists()
    contexts: Counter[str] = Counter()
    for db in shard_databases(db_of(settings)):
        contexts.update(
            row[0] for row in query(db, "SELECT DISTINCT context_sha256 FROM requests JOIN examples USING (example_id)")
        )
        check_invariants(settings.model_copy(update={"db": settings.db.model_copy(update={"path": str(db)})}))
    assert (len(contexts), set(contexts.values())) == (6, {1})
    sessions = [row for db in shard_databases(db_of(settings))
                for row in query(db, "SELECT shard_i, shard_n, host IS NOT NULL FROM sessions")]  # fmt: skip
    assert sessions == [(1, 3, 1), (2, 3, 1), (3, 3, 1)]
    merge(db_of(settings), shard_databases(db_of(settings)))
    facts = """SELECT request_id, prompt_sha256, state, text, finish_reason, usage_json, kv_evidence_json, kv_effective
        FROM requests JOIN outcomes USING (request_id) LEFT JOIN responses USING (request_id) ORDER BY 1"""
    assert query(settings, facts) == query(alone, facts)


async def test_a_shard_says_what_all_may_send_together_and_plans_its_own_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(tmp_path, url, "limits.requests_per_minute=600", "limits.tokens_per_minute=1e6")
        report = await run(settings, options=replace(in_shards(4)[1], quiet=False, dry_run=True))
    assert report.plan is not None
    assert report.plan["requests"] == 12
    assert server.bodies == []
    words = "4 x 4 = 16 requests in flight and 4 x 600 = 2,400 requests a minute and 4 x 1,000,000 = 4,000,000 tokens"
    assert [words in note for note in report.plan["notes"]] == [True]


async def test_a_shard_sends_nothing_that_the_group_or_shards_of_another_number_have_answered(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(tmp_path, url, SEVEN)
        await run(settings, options=replace(QUIET, limit=2))
        await run(settings, options=in_shards(2)[0])
        reports = [await run(settings, options=options) for options in in_shards(3)]
        assert [r.pending for r in reports] == [0, 0, 0]
        assert len(grid_bodies(server)) == 48
    assert set(answered(settings).values()) == {1}


async def test_limit_takes_the_first_of_each_bin_of_all_and_of_them_the_shards_own(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = sweep_settings(tmp_path, url)
        reports = [await run(settings, options=options) for options in in_shards(2, limit=2)]
        whole = await run(sweep_settings(tmp_path, url, "experiment.exp_group_id=w"), options=replace(QUIET, limit=2))
    assert sum(r.planned for r in reports) == whole.planned == 16


async def test_several_answers_to_an_example_stay_in_its_shard(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(tmp_path, url, SEVEN, "decoding.samples=3", "decoding.temperature=1", n=4)
        for options in in_shards(2):
            assert (await run(settings, options=options)).pending == 0
    assert len(grid_bodies(server)) == 4 * 3 * 5  # where answers are drawn there are two repeats
    for db in shard_databases(db_of(settings)):
        per_example = query(db, "SELECT count(*) FROM responses JOIN requests USING (request_id) GROUP BY example_id")
        assert set(per_example) == {(15,)}


async def test_shards_of_a_prepared_manifest_run_without_preparing_and_keep_the_groups_ids(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = sweep_settings(tmp_path, url)
        prepare_group(settings, quiet=True)
        report = await run(settings, options=replace(in_shards(2)[0], prepare_first=False))
        warmer = sweep_settings(tmp_path, url, "decoding.temperature=0.5")
        with pytest.raises(GuardError, match="another contract"):
            await run(warmer, options=in_shards(2)[1])
        await run(sweep_settings(tmp_path, url), options=replace(QUIET, limit=1))
    ids = {row[0] for row in query(settings, "SELECT run_id FROM runs")}
    assert {level["run_id"] for level in report.levels} == ids


async def test_a_group_is_not_sent_in_two_splits_at_once(tmp_path: Path, unused_tcp_port: int) -> None:
    settings = sweep_settings(tmp_path, f"http://127.0.0.1:{unused_tcp_port}/v1")
    for busy in (db_of(settings), db_of(settings).parent / "shards/1-of-3.sqlite"):
        busy.parent.mkdir(parents=True, exist_ok=True)
        busy.touch()
        with hold(busy, "kvt sweep", "now"), pytest.raises(GuardError, match="another runner sends this group"):
            await run(settings, options=in_shards(2)[0])


async def test_a_stopped_shard_goes_on_where_it_was(tmp_path: Path) -> None:
    async with serving(Script(delay_s=0.01)) as (server, url):
        settings = sweep_settings(tmp_path, url, SEVEN)
        options = in_shards(2)[0]
        first = asyncio.create_task(run(settings, options=options))
        await until(lambda: len(grid_bodies(server)) >= 6)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        report = await run(settings, options=options)
        assert (report.pending, report.responses) == (0, 24)
    assert set(answered(settings).values()) == {1}


async def test_a_number_of_parts_is_split_by_one_rule(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = sweep_settings(tmp_path, url, n=4)
        await run(settings, options=in_shards(2)[0])
        with pytest.raises(ConfigError, match="made with --shard"):
            await run(settings, options=replace(QUIET, shard=Shard(2, 2, "levels")))


async def test_a_sweep_without_shards_takes_in_those_that_are_there_and_sends_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(tmp_path, url, SEVEN)
        await run(settings, options=in_shards(2)[0])
        shard = shard_databases(db_of(settings))[0]
        with hold(shard, "kvt sweep", "now"), pytest.raises(GuardError, match=r"1-of-2\.sqlite is being sent"):
            await run(settings, options=QUIET)
        report = await run(settings, options=SweepOptions())
        assert (report.responses, report.pending, report.sent) == (48, 0, 24)
        assert len(grid_bodies(server)) == 48
        assert "merged 1-of-2.sqlite: 24 requests: 24 new" in capsys.readouterr().err
    assert len(group_databases(db_of(settings))) == 1
    check_invariants(settings)


async def test_the_status_of_a_group_is_that_of_its_shards_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script(faults={"http_400": 0.2})) as (_, url):
        settings = sweep_settings(tmp_path, url, "kv.apply={via: none}", "kv.policy=label")
        await run(settings, options=replace(QUIET, limit=1))
        first = await run(settings, options=in_shards(2)[0])
        with hold(shard_databases(db_of(settings))[0], "kvt sweep --shard 1/2", "now"):
            now = status(stored_settings(tmp_path / "runs/g"))
            assert show_status(settings) == 0
        shown = capsys.readouterr().out
        second = await run(settings, options=in_shards(2)[1])
    assert (now["planned"], now["running"], now["invariants_hold"]) == (48, True, True)
    assert [level["planned"] for level in now["levels"]] == [12] * 4
    own, one = now["shards"]
    assert now["requests"] == own["requests"] + one["requests"]
    assert (one["name"], one["state"], one["pending"], first.pending) == ("shard 1 of 2", "running", None, 0)
    assert "shard 1 of 2" in shown
    then = status(settings)
    assert then["pending"] == second.pending == 0
    assert then["failures"] == sum(then["failures_by_type"].values()) > 0
    merge(db_of(settings), shard_databases(db_of(settings)))
    merged = status(settings)
    assert [merged[key] for key in ("planned", "responses", "failures")] == [
        then[key] for key in ("planned", "responses", "failures")
    ]
    alone = status(stored_settings(shard_databases(db_of(settings))[1]))
    assert (alone["pending"], alone["planned"] < 48) == (
        alone["planned"] - alone["responses"] - alone["failures"],
        True,
    )


async def test_shards_of_levels_send_each_level_once_and_full_cache_at_the_same_entries(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    settings = launching(tmp_path, unused_tcp_port, n=6)
    for i in (1, 2):
        report = await run(settings, options=replace(QUIET, shard=Shard(i, 2, "levels")))
        assert (report.exit_code, report.pending) == (0, 0)
    one, two = shard_databases(db_of(settings))
    sql = "SELECT series, kv_budget, repeat_idx, count(*) FROM responses JOIN requests USING (request_id) " \
          "JOIN runs USING (run_id) GROUP BY 1, 2, 3 ORDER BY level_idx, repeat_idx"  # fmt: skip
    assert query(one, sql) == [("full", 1.0, 0, 6), ("full", 1.0, 1001, 6), ("full", 1.0, 1, 6)]
    assert query(two, sql) == [("full", 1.0, 1002, 6), ("kv", 0.5, 0, 6), ("kv", 0.2, 0, 6)]
    now = status(settings)
    assert (now["planned"], now["pending"]) == (36, 0)
    assert [level["level"] for level in now["levels"]].count("full (on shard 2)") == 1
    every_stage(stored_settings(tmp_path / "runs/g", ["analysis.resamples=100", "analysis.charts=false"]))
    page = (tmp_path / "runs/g/report.md").read_text()
    assert "0 of 6 on shard 2's server, 0 when its own server was asked again: no difference" in page
    assert "UNLIKE SERVERS" not in page
    answer = verify_stage(settings)
    assert (answer.total.n_differences, answer.exit_code) == (0, 3)
    assert any("kvt merge" in why for why in answer.facts.not_checkable)
    with pytest.raises(ConfigError, match="at most 3 shards"):
        await run(settings, options=replace(QUIET, shard=Shard(1, 4, "levels")))


async def test_what_failed_before_is_tried_again_by_its_shard_and_the_merge_knows_how_it_went_on(
    tmp_path: Path,
) -> None:
    async with serving(Script(faults={"http_400": 0.3}, seed=3)) as (server, url):
        settings = sweep_settings(tmp_path, url, SEVEN, "kv.apply={via: none}", "kv.policy=label")
        failed = (await run(settings, options=QUIET)).failures
        server.script.faults.clear()
        server.bodies.clear()
        reports = [await run(settings, options=options) for options in in_shards(2, retry_failed=True)]
        assert failed > 0 == sum(r.failures for r in reports)
        assert len(grid_bodies(server)) == sum(r.responses for r in reports) == failed
        again = [await run(settings, options=options) for options in in_shards(2, retry_failed=True)]
        assert [r.session_id for r in again] == [None, None]
    assert (status(settings)["responses"], status(settings)["failures"]) == (48, 0)
    taken = merge(db_of(settings), shard_databases(db_of(settings)))
    assert sum(t.n_continued for t in taken) == failed
    assert query(settings, "SELECT count(*), max(attempt_idx) FROM responses") == [(48, 1)]
    check_invariants(settings)


async def test_the_shards_of_a_group_are_verified_each_and_must_fit_together(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = sweep_settings(tmp_path, url, "analysis.resamples=100", "analysis.charts=false")
        for options in in_shards(2):
            await run(settings, options=options)
    every_stage(settings)
    answer = verify_stage(settings)
    assert answer.total.n_differences == 0
    assert answer.total.checked["scores"] == 48
    assert {checked.part for checked in answer.generations} == {"shard 1 of 2", "shard 2 of 2"}
    merge(db_of(settings), shard_databases(db_of(settings)))
    every_stage(settings)
    assert verify_stage(settings).exit_code == 0
    two = shard_databases(db_of(settings))[1]
    with closing(connect_for_writing(two)) as conn:
        conn.execute("DROP TRIGGER manifests_no_update")
        conn.execute("UPDATE manifests SET sha256 = 'x'")
        conn.execute("DELETE FROM scores")
        insert_session(conn, session_id="later", exp_group_id="g", started_at="t")  # it has grown since the merge
    with pytest.raises(ContractMismatchError, match="manifest"):
        verify_stage(settings)


async def test_conversations_with_answers_of_their_own_stay_whole_over_shards_and_the_merge(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = settings_for(tmp_path, url, OWN, TURNS, n=4)
        await run(settings, options=replace(QUIET, limit=1))
        reports = [await run(settings, options=options) for options in in_shards(2)]
        assert [report.pending for report in reports] == [0, 0]
        assert len(grid_bodies(server)) == 4 * 3 * 2
    merge(db_of(settings), shard_databases(db_of(settings)))
    with closing(connect_for_reading(db_of(settings))) as conn:
        assert check_facts(conn).n_differences == 0

"""`workload`: turns of a conversation in order, to one endpoint, with the model's own earlier answers or the data's."""

import asyncio
from collections import defaultdict
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from analyzer.metrics.calls_in_text import calls_of
from analyzer.verify.integrity import check_facts
from kvt_async.contract.errors import ConfigError, ContractMismatchError
from kvt_async.contract.formulas.own_history import said
from kvt_async.contract.formulas.prompt_text import messages_sha256
from kvt_async.contract.formulas.sample_seed import seed_of
from kvt_async.contract.labels import entry_of, request_id
from kvt_async.contract.schema import connect_for_reading
from kvt_async.contract.settings import Settings
from kvt_async.sweep import dry_run
from kvt_async.sweep.sweep import SweepOptions, run
from tests.servers.openai_server import FakeServer, Script, serving
from tests.sweep_process import config_of, kvt, wait_for
from tests.worlds import check_invariants, db_of, query, states, sweep_settings, until

QUIET = SweepOptions(quiet=True)
OWN, TURNS = "workload.history=own", "workload.reuse=turns"
Message = dict[str, str]


def write_conversations(path: Path, n: int, turns: int) -> Path:
    """`n` conversations of `turns` turns each; a later one has a longer context."""
    rows = []
    for c in range(n):
        asked = [{"question": f"Question {c}.{k}?", "answers": [f"golden {c}.{k}"]} for k in range(turns)]
        rows.append({"example_id": f"c{c}", "context": f"Talk {c}. " + "word " * 80 * (c + 1), "conversation": asked})
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def settings_for(folder: Path, url: str, *overrides: str, n: int = 5, turns: int = 3) -> Settings:
    write_conversations(folder / "examples.jsonl", n, turns)
    return sweep_settings(
        folder, url, "binning.n_bins=1", "kv.budgets=[1.0, 0.5]", "kv.control_repeats=0", "decoding.max_tokens=7",
        *overrides, n=n * turns,
    )  # fmt: skip


def talks(server: FakeServer) -> dict[tuple[float, str], list[list[Message]]]:
    """Messages of the grid's requests in the order received, by level and conversation."""
    by_talk = defaultdict(list)
    for body in server.bodies:
        if body["max_tokens"] == 7:
            by_talk[body["kv"]["budget"], body["messages"][0]["content"].partition(".")[0]].append(body["messages"])
    return by_talk


def answers(settings: Settings) -> dict[tuple[str, str, int], str]:
    """Texts by run, conversation and turn."""
    rows = query(
        settings,
        "SELECT r.run_id, r.example_id, r.turn_idx, p.text FROM requests r JOIN responses p USING (request_id)",
    )
    return {(run_id, example_id.partition(".")[0], turn): text for run_id, example_id, turn, text in rows}


async def test_a_turn_is_sent_with_what_this_level_answered_before(tmp_path: Path) -> None:
    async with serving(Script(delay_s=0.005)) as (server, url):
        settings = settings_for(tmp_path, url, OWN)
        report = await run(settings, options=QUIET)
        assert (report.exit_code, report.responses, report.pending) == (0, 30, 0)
        assert server.most_in_flight == 4
    stored, runs = answers(settings), dict(query(settings, "SELECT kv_budget, run_id FROM runs"))
    assert len(talks(server)) == 10
    for (budget, talk), sent in talks(server).items():
        conversation = talk.replace("Talk ", "c")
        assert [len(messages) for messages in sent] == [1, 3, 5]
        for messages in sent:
            own = [message["content"] for message in messages if message["role"] == "assistant"]
            assert own == [stored[runs[budget], conversation, turn].strip() for turn in range(len(own))]
    check_invariants(settings)


async def test_the_stored_hash_and_count_are_those_of_the_prompt_that_was_sent(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = settings_for(tmp_path, url, OWN, "decoding.samples=2", n=2)
        await run(settings, options=QUIET)
    sent = {messages_sha256(body["messages"]) for body in server.bodies if body["max_tokens"] == 7}
    assert {row[0] for row in query(settings, "SELECT prompt_sha256 FROM requests")} == sent


async def test_ids_and_seeds_name_the_turn(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        overrides = ("decoding.seed=5", "decoding.temperature=0.5", "decoding.samples=2")
        settings = settings_for(tmp_path, url, *overrides, n=1)
        await run(settings, options=QUIET)
    ids = {row[0].rpartition(":")[2] for row in query(settings, "SELECT request_id FROM requests")}
    assert ids == {"0", "0.1", "1.0.1", "1.1.1", "2.0.2", "2.1.2"}
    assert query(settings, "SELECT DISTINCT turn_idx FROM requests ORDER BY 1") == [(0,), (1,), (2,)]
    seeds = {body["seed"] for body in server.bodies if body["max_tokens"] == 7}
    names = ["c0", "c0.t1", "c0.t2"]
    assert seeds == {seed_of(5, name, sample, turn) for turn, name in enumerate(names) for sample in (0, 1)}


def test_an_id_says_entry_sample_and_turn() -> None:
    assert [request_id("r-0.5", 7, s, t) for s, t in [(0, 0), (2, 0), (0, 3), (2, 3)]] == [
        "r-0.5:7", "r-0.5:7.2", "r-0.5:7.0.3", "r-0.5:7.2.3",
    ]  # fmt: skip
    assert [entry_of(f"r-0.5:{key}") for key in ("7", "7.2", "7.0.3", "7.2.3")] == [(7, 0), (7, 2), (7, 0), (7, 2)]


async def test_turns_are_in_order_and_one_at_a_time_for_reuse_with_the_datas_own_answers(tmp_path: Path) -> None:
    async with serving(Script(delay_s=0.005)) as (server, url):
        settings = settings_for(tmp_path, url, TURNS)
        report = await run(settings, options=QUIET)
        assert server.most_in_flight == 4
    assert report.exit_code == 0
    for (_, talk), sent in talks(server).items():
        assert [len(messages) for messages in sent] == [1, 3, 5]
        golden = [f"golden {talk.removeprefix('Talk ')}.{k}" for k in range(2)]
        assert [m["content"] for m in sent[2] if m["role"] == "assistant"] == golden


async def test_one_place_means_one_conversation_after_the_other(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = settings_for(tmp_path, url, TURNS, "limits.concurrency=1")
        await run(settings, options=QUIET)
    order = [body["messages"][0]["content"].partition(".")[0] for body in server.bodies if body["max_tokens"] == 7]
    assert order == [f"Talk {c}" for _ in range(2) for c in range(5) for _ in range(3)]


async def test_after_a_failed_turn_the_later_ones_fail_unsent_and_are_sent_behind_it_when_it_is_tried_again(
    tmp_path: Path,
) -> None:
    async with serving(Script(refused_words="Question 1.1")) as (server, url):
        settings = settings_for(tmp_path, url, OWN)
        report = await run(settings, options=QUIET)
        assert (report.exit_code, report.responses, report.failures, report.pending) == (4, 26, 4, 0)
        assert report.failures_by_type == {"HttpError": 2, "earlier_turn_failed": 2}
        assert not any("Question 1.2" in orjson.dumps(body).decode() for body in server.bodies)
        failures = "SELECT example_id, reason, n_attempts FROM failures ORDER BY run_id, example_id"
        assert query(settings, failures)[:2] == [("c1.t1", "not_retryable", 1), ("c1.t2", "earlier_turn_failed", 0)]
        again = await run(settings, options=QUIET)
        assert (again.sent, again.failures) == (0, 4)
        server.script.refused_words = "Question 1.2"
        report = await run(settings, options=replace(QUIET, retry_failed=True))
        assert (report.responses, report.failures) == (28, 2)
        server.script.refused_words = None
        report = await run(settings, options=replace(QUIET, retry_failed=True))
    assert (report.exit_code, report.responses, report.failures) == (0, 30, 0)
    stored = answers(settings)
    for (_, talk), sent in talks(server).items():
        own = [m["content"] for m in sent[-1] if m["role"] == "assistant"]
        conversation = talk.replace("Talk ", "c")
        assert len(own) == 2
        assert any(
            own == [stored[r, conversation, k].strip() for k in (0, 1)] for r in {run_id for run_id, *_ in stored}
        )
    check_invariants(settings)
    with closing(connect_for_reading(db_of(settings))) as conn:
        assert check_facts(conn).differences == []


async def test_a_refusal_whose_cause_is_known_at_the_end_alone_fails_the_turns_behind_it_then(tmp_path: Path) -> None:
    async with serving(Script(refused_words="Question 3.2")) as (_, url):
        overrides = ("limits.concurrency=1", "kv.budgets=[1.0]")
        report = await run(settings_for(tmp_path, url, OWN, *overrides, n=4, turns=5), options=QUIET)
    assert (report.responses, report.pending) == (17, 0)  # nothing was answered behind it that could have told
    assert report.failures_by_type == {"HttpError": 1, "earlier_turn_failed": 2}


async def test_a_turn_that_is_not_scored_is_never_asked_and_keeps_its_reply(tmp_path: Path) -> None:
    turns = [
        {"question": "First?", "reply": "told one"},
        {"question": "Second?", "answers": ["golden two"]},
        {"question": "Third?", "answers": ["golden three"], "score": False},
        {"question": "Fourth?", "answers": ["golden four"]},
    ]
    async with serving(Script()) as (server, url):
        settings = settings_for(tmp_path, url, OWN, "kv.budgets=[1.0]")
        row = {"example_id": "c0", "context": "Talk 0. A text.", "conversation": turns}
        (tmp_path / "examples.jsonl").write_bytes(orjson.dumps(row))
        report = await run(settings, options=QUIET)
    assert (report.exit_code, report.responses) == (0, 2)
    (own,) = query(settings, "SELECT p.text FROM responses p JOIN requests r USING (request_id) WHERE r.turn_idx = 1")
    last = next(body["messages"] for body in server.bodies if len(body["messages"]) == 7 and body["max_tokens"] == 7)
    told = [message["content"] for message in last if message["role"] == "assistant"]
    assert told == ["told one", own[0].strip(), "golden three"]


def test_what_a_model_is_told_that_it_said_has_no_reasoning_and_its_calls_as_text() -> None:
    call = orjson.dumps([{"name": "f", "arguments": '{"a": 1}', "id": "x"}]).decode()
    assert said("<think>so</think> 42 ", None, None, "stop", opened=False) == "42"
    assert said("so it is 4", None, None, "length", opened=True) == ""  # it never came out of its reasoning
    assert said("so it is 4", "thought", None, "length", opened=True) == "so it is 4"
    assert said("", None, call, "tool_calls", opened=False) == '[{"name": "f", "arguments": {"a": 1}}]'
    assert said("I look.", None, call, "stop", opened=False).splitlines()[0] == "I look."
    assert [c.arguments for c in calls_of(said("", None, call, "stop", opened=False))] == [{"a": 1}]


async def test_a_dry_run_says_how_turns_will_be_sent(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        report = await run(settings_for(tmp_path, url, OWN, TURNS), options=SweepOptions(dry_run=True))
    assert report.plan is not None
    text = "\n".join(dry_run.lines(report.plan))
    assert "one after the other, to one endpoint (workload.reuse: turns)" in text
    assert "what the same level answered (workload.history: own)" in text


async def test_with_the_datas_own_answers_a_failed_turn_ends_nothing(tmp_path: Path) -> None:
    async with serving(Script(refused_words="Question 1.1")) as (_, url):
        settings = settings_for(tmp_path, url, TURNS)
        report = await run(settings, options=QUIET)
    assert (report.responses, report.failures_by_type) == (28, {"HttpError": 2})


async def test_a_wait_for_another_try_lets_another_conversation_begin(tmp_path: Path) -> None:
    faults = {"hang_up": 0.1, "cut": 0.2}
    async with serving(Script(faults=faults, delay_s=0.002)) as (server, url):
        settings = settings_for(
            tmp_path,
            url,
            OWN,
            TURNS,
            "limits.concurrency=2",
            "limits.retry={max_attempts: 20, initial_s: 0.005, max_wait_s: 0.02}",
        )
        report = await run(settings, options=QUIET)
        assert (report.exit_code, report.responses, report.pending) == (0, 30, 0)
        assert server.most_in_flight == 2
    assert report.retries > 0
    check_invariants(settings)


async def test_levels_are_interleaved_conversation_by_conversation(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = settings_for(tmp_path, url, OWN, "limits.order=interleaved", "limits.concurrency=1")
        await run(settings, options=QUIET)
    order = [body["messages"][0]["content"].partition(".")[0] for body in server.bodies if body["max_tokens"] == 7]
    assert order == [f"Talk {c}" for c in range(5) for _ in range(6)]


@pytest.mark.parametrize("other", [OWN, TURNS])
async def test_another_workload_is_another_contract(tmp_path: Path, other: str) -> None:
    async with serving(Script()) as (_, url):
        await run(settings_for(tmp_path, url, n=2), options=QUIET)
        stored = query(settings_for(tmp_path, url, n=2), "SELECT contract_json FROM experiments")[0][0]
        assert "workload" not in stored
        key, _, value = other.partition("=")
        with pytest.raises(ContractMismatchError, match=rf"{key} +stored (golden|none) +asked {value}"):
            await run(settings_for(tmp_path, url, other, n=2), options=QUIET)


async def test_data_without_conversations_are_refused_with_the_reason(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        with pytest.raises(ConfigError, match=r"workload\.history: own is about conversations, and these"):
            await run(sweep_settings(tmp_path, url, OWN, n=4), options=QUIET)
    assert server.bodies == []


async def test_turns_without_the_turns_before_them_have_no_own_history(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = settings_for(tmp_path, url, OWN)
        row = {"context": "One text.", "question": "What?", "answers": ["x"], "conversation": "c"}
        lines = [orjson.dumps({**row, "example_id": f"e{k}", "turn": k}) for k in range(2)]
        (tmp_path / "examples.jsonl").write_bytes(b"\n".join(lines))
        with pytest.raises(ConfigError, match=r"does not carry the turns before it"):
            await run(settings, options=QUIET)


async def test_killed_in_the_middle_of_conversations_it_goes_on_from_the_stored_turns(tmp_path: Path) -> None:
    async with serving(Script(delay_s=0.01)) as (server, url):
        settings = settings_for(tmp_path, url, OWN, "limits.concurrency=3", n=6, turns=4)
        config = config_of(settings, tmp_path)
        process = kvt(config)
        await asyncio.to_thread(wait_for, settings, 13, process)
        process.kill()
        await asyncio.to_thread(process.communicate)
        check_invariants(settings)
        process = kvt(config)
        _, err = await asyncio.to_thread(process.communicate, timeout=60)
        assert process.returncode == 0, err
    assert states(settings) == {"response": 48}
    assert query(settings, "SELECT count(*), count(DISTINCT prompt_sha256) FROM requests") == [(48, 6 + 36)]
    stored, sent = answers(settings), defaultdict(list)
    for (_, talk), bodies in talks(server).items():
        for messages in bodies:
            sent[messages_sha256(messages)].append((talk.replace("Talk ", "c"), messages))
    assert sum(map(len, sent.values())) <= 48 + 3  # a kill costs what was under way
    for run_id, example_id, turn, sha256 in query(
        settings, "SELECT run_id, example_id, turn_idx, prompt_sha256 FROM requests"
    ):
        conversation, messages = sent[sha256][0]
        assert conversation == example_id.partition(".")[0]
        own = [message["content"] for message in messages if message["role"] == "assistant"]
        assert own == [stored[run_id, conversation, k].strip() for k in range(turn)]


def two_endpoints(tmp_path: Path, a: str, b: str, *overrides: str) -> Settings:
    apply = f"kv.apply={{via: endpoint, endpoints: {{full: ['{a}', '{b}']}}}}"
    return settings_for(tmp_path, a, apply, "kv.evidence={}", "kv.budgets=[1.0]", *overrides, n=8, turns=4)


SERVED = "SELECT r.example_id, a.endpoint FROM requests r JOIN attempts a USING (request_id) WHERE a.error_type IS NULL"


def endpoints_of(settings: Settings) -> dict[str, list[str]]:
    """Who answered, turn after turn, by conversation."""
    by_talk = defaultdict(list)
    for example_id, endpoint in query(settings, f"{SERVED} ORDER BY r.example_id"):
        by_talk[example_id.partition(".")[0]].append(endpoint)
    return by_talk


async def test_reuse_keeps_a_conversation_at_the_endpoint_that_served_its_first_turn(tmp_path: Path) -> None:
    async with serving(Script(delay_s=0.005)) as (first, a), serving(Script(delay_s=0.005)) as (second, b):
        first.script.too_long = second.script.too_long = 1650  # characters: one goes no further than its second turn
        settings = two_endpoints(tmp_path, a, b, TURNS)
        await run(settings, options=QUIET)
        half = endpoints_of(settings)
        first.script.too_long = second.script.too_long = 1 << 30
        await run(settings, options=replace(QUIET, retry_failed=True))
    assert {len(set(served)) for served in endpoints_of(settings).values()} == {1}
    assert {served[0] for served in endpoints_of(settings).values()} == {a, b}
    assert [len(served) for served in half.values()] == [4, 4, 4, 2]  # the last one went on where it had begun


async def test_where_its_endpoint_goes_away_a_conversation_goes_on_at_another_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script(delay_s=0.02)) as (_, a):
        async with serving(Script(delay_s=0.02)) as (gone, b):
            settings = two_endpoints(tmp_path, a, b, TURNS, "limits.retry.max_attempts=8")
            sweep = asyncio.create_task(run(settings, options=SweepOptions()))
            await until(lambda: sum(body["max_tokens"] == 7 for body in gone.bodies) > 4)
        report = await sweep
    assert (report.exit_code, report.responses) == (0, 32)
    assert " went to another endpoint than the turn before" in capsys.readouterr().err
    moved = [served for served in endpoints_of(settings).values() if len(set(served)) > 1]
    assert moved
    assert all(served == sorted(served, key=[b, a].index) for served in moved)  # once moved, it stays

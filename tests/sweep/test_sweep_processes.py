"""A sweep sent by several processes leaves what one would have left, whoever of them is killed."""

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.settings import Settings
from kvt_async.status import status
from kvt_async.sweep.parts import dealt, without
from kvt_async.sweep.sweep import SweepOptions, run
from tests.bench.test_bench_processes import gone, left_behind
from tests.servers.openai_server import Counting, FakeServer, Script, on_loopback, serving
from tests.sweep.test_conversations import OWN, answers, settings_for, talks
from tests.sweep_process import config_of, kvt
from tests.worlds import check_invariants, query, states, sweep_settings

QUIET = SweepOptions(quiet=True)
TWO = "limits.processes=2"


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(1, 5), st.integers(1, 3), st.data())
def test_every_owed_answer_is_one_parts_and_a_context_is_never_divided(
    contexts: Sequence[int], n: int, samples: int, data: st.DataObject
) -> None:
    size = len(contexts) * samples
    done = [bytearray(data.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))) for _ in range(2)]
    parts, part_of = dealt([str(context) for context in contexts], done, n, 1)
    for level in range(2):
        owners = [[i for i in range(n) if parts[i][level][place] == 0] for place in range(size)]
        assert [len(some) for some in owners] == [1 - is_done for is_done in done[level]]
        assert all(some == [part_of[place // samples]] for place, some in enumerate(owners) if some)
    of_context = {(context, part) for context, part in zip(contexts, part_of, strict=True) if part >= 0}
    assert len(of_context) == len({context for context, _ in of_context})
    assert all(0 not in mask for part in parts for mask in without(part, done) if 0 not in done[0] + done[1])


def senders_of(pid: int) -> list[int]:
    """Sender processes of a process, by its threads' children."""
    children = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for some in children for child in some
            if b"part_sender" in Path(f"/proc/{child}/cmdline").read_bytes()]  # fmt: skip


def texts(settings: Settings) -> list[tuple[str, str, int, str]]:
    """What a sweep comes to: answer, prompt and its tokens of each request."""
    return query(settings, """SELECT r.request_id, p.text, t.prompt_tokens, r.prompt_sha256 FROM requests r
        JOIN responses p USING (request_id) JOIN telemetry t USING (request_id, attempt_idx)
        ORDER BY r.request_id""")  # fmt: skip


async def test_a_sender_that_is_killed_is_replaced_and_the_facts_are_those_of_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script()) as (_, url):
        one = sweep_settings(tmp_path, url, "decoding.samples=2", "decoding.temperature=0.5")
        assert (await run(one, options=QUIET)).exit_code == 0
    server = Counting(Script(delay_s=0.05), 40)
    async with on_loopback(server) as url:
        settings = sweep_settings(
            tmp_path, url, "decoding.samples=2", "decoding.temperature=0.5", "limits.processes=4",
            f"db.path={tmp_path}/two.sqlite",
        )  # fmt: skip
        sweep = asyncio.create_task(run(settings, options=QUIET))
        await asyncio.wait_for(server.reached.wait(), 60)
        senders = senders_of(os.getpid())
        os.kill(senders[1], signal.SIGKILL)
        report = await sweep
        assert await gone(*senders)
    assert (report.exit_code, report.pending, len(senders)) == (0, 0, 4)
    assert "(pid " in (told := capsys.readouterr().err)
    assert "killed by SIGKILL; another one goes on with what it had left" in told
    check_invariants(settings)
    assert texts(settings) == texts(one)
    sql = "SELECT count(*), count(DISTINCT session_id) FROM attempts"
    assert query(settings, sql) == [(len(texts(one)), 1)], "one session, and no request of the killed one twice"
    ((detail,),) = query(settings, "SELECT detail_json FROM client_health ORDER BY created_at DESC LIMIT 1")
    health = orjson.loads(detail)
    assert ([part["process"] for part in health["processes"]], health["done"]) == ([1, 2, 3, 4], report.sent)
    assert report.client is not None
    assert "of 4 processes are client-clean" in report.client["signal"]
    assert left_behind(settings) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_a_stopped_sweep_keeps_what_its_senders_stored_and_goes_on_with_another_number(
    tmp_path: Path, how: signal.Signals
) -> None:
    server = Counting(Script(delay_s=0.05), 30)
    async with on_loopback(server) as url:
        settings = sweep_settings(tmp_path, url, TWO, "limits.grace_s=1", "db.flush_interval_s=0", n=24)
        process = await asyncio.to_thread(kvt, config_of(settings, tmp_path))
        await asyncio.wait_for(server.reached.wait(), 60)
        senders = senders_of(process.pid)
        process.send_signal(how)
        _, err = await asyncio.to_thread(process.communicate)
        assert (process.returncode, len(senders)) == (-9 if how is signal.SIGKILL else 130, 2)
        n, now = len(server.bodies), await asyncio.to_thread(status, settings)
        assert now["invariants_hold"]
        assert 0 < now["responses"] < 96, "what lies with the senders is counted"
        report = await run(sweep_settings(tmp_path, url, n=24), options=QUIET)
        assert await gone(*senders)
    check_invariants(settings)
    assert (report.exit_code, states(settings)) == (0, {"response": 96})
    assert len(server.bodies) - n < 96 + 12 - 10, f"what was answered is not sent again: {err}"
    assert left_behind(settings) == []


async def test_a_key_that_one_process_sees_refused_stops_all_and_gives_nothing_up(tmp_path: Path) -> None:
    async with on_loopback(FakeServer(Script(refusal=(40, 401), delay_s=0.01))) as url:
        settings = sweep_settings(tmp_path, url, TWO)
        report = await run(settings, options=QUIET)
    assert (report.exit_code, report.failures) == (2, 0)
    assert 0 < report.pending < 48
    assert left_behind(settings) == []


async def test_turns_follow_what_the_model_said_itself_also_in_a_process_of_its_own(tmp_path: Path) -> None:
    async with serving(Script(delay_s=0.005)) as (server, url):
        settings = settings_for(tmp_path, url, OWN, TWO)
        report = await run(settings, options=QUIET)
    assert (report.exit_code, report.responses) == (0, 30)
    stored = answers(settings)
    runs = {budget: run_id for run_id, budget in query(settings, "SELECT run_id, kv_budget FROM runs")}
    for (budget, talk), sent in talks(server).items():
        conversation = f"c{talk.split()[1]}"
        for messages in sent:
            own = [message["content"] for message in messages if message["role"] == "assistant"]
            assert own == [stored[runs[budget], conversation, turn].strip() for turn in range(len(own))]


async def test_a_share_of_less_than_one_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    settings = sweep_settings(tmp_path, "http://127.0.0.1:9/v1", "limits.requests_per_minute=1.5", TWO)
    with pytest.raises(ConfigError, match=r"limits\.requests_per_minute is 1\.5: of 2 processes"):
        await run(settings, options=QUIET)

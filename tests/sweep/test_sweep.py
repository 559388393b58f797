"""A whole sweep against a real server on loopback: what is sent, what is stored, what a second run does."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from kvt_async.contract.errors import ConfigError, ContractMismatchError, MissingPrerequisiteError, ServerError
from kvt_async.session.experiment_rows import command_line
from kvt_async.session.invocation import loop_factory
from kvt_async.sweep.sweep import SweepOptions, execute, prepare_group, run
from tests.servers.openai_server import FakeServer, Script, serving
from tests.worlds import check_invariants, db_of, query, states, sweep_settings

QUIET = SweepOptions(quiet=True)


def grid_bodies(server: FakeServer) -> list[dict[str, Any]]:
    """Request bodies of the grid, without the canary's (which asks for other answer lengths)."""
    return [body for body in server.bodies if body["max_tokens"] == 7]


async def test_every_example_is_answered_once_at_every_level_and_full_cache_once_more(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(tmp_path, url, "decoding.max_tokens=7")
        report = await run(settings, options=QUIET)
    assert (report.exit_code, report.responses, report.pending) == (0, 48, 0)
    assert [(level["level"], level["responses"]) for level in report.levels] == [
        ("full", 12), ("snapkv/aware 0.5", 12), ("snapkv/aware 0.2", 12), ("full (repeat 1)", 12),
    ]  # fmt: skip
    assert len(grid_bodies(server)) == 48
    assert server.most_in_flight <= 4
    check_invariants(settings)
    assert query(settings, "SELECT DISTINCT kv_effective FROM responses ORDER BY 1") == [(0.2,), (0.5,), (1.0,)]
    assert query(settings, "SELECT exit_code, reason FROM session_ends") == [(0, "finished")]
    assert [row[0] for row in query(settings, "SELECT phase FROM server_snapshots ORDER BY taken_at, n")] == [
        "start", "end",
    ]  # fmt: skip
    identity = orjson.loads(query(settings, "SELECT identity_json FROM server_snapshots")[0][0])
    assert identity["models"] == ["reference"]
    assert identity["metrics"] == {'vllm:prefix_cache_hits_total{m="a"}': 3.0}
    last_words = "SELECT count(*) FROM client_health WHERE json_extract(detail_json, '$.live') IS NULL"
    assert query(settings, last_words) == [(1,)]


async def test_a_second_run_sends_nothing_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(tmp_path, url)
        await run(settings, options=QUIET)
        before, sent = db_of(settings).read_bytes(), len(server.bodies)
        capsys.readouterr()
        report = await run(settings, options=SweepOptions())
    assert (report.exit_code, report.session_id) == (0, None)
    assert len(server.bodies) == sent
    assert db_of(settings).read_bytes() == before
    assert "48 requests are answered and skipped" in capsys.readouterr().err


async def test_a_budget_that_is_added_sends_only_its_own_requests(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        await run(sweep_settings(tmp_path, url, "decoding.max_tokens=7"), options=QUIET)
        server.bodies.clear()
        wider = sweep_settings(tmp_path, url, "decoding.max_tokens=7", "kv.budgets=[1.0, 0.5, 0.3, 0.2]")
        report = await run(wider, options=QUIET)
    assert report.sent == 12
    assert {body["kv"]["budget"] for body in grid_bodies(server)} == {0.3}
    check_invariants(wider)


async def test_a_changed_contract_is_refused_naming_the_field_and_force_opens_a_new_generation(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        await run(sweep_settings(tmp_path, url), options=QUIET)
        sent = len(server.bodies)
        warmer = sweep_settings(tmp_path, url, "decoding.temperature=0.5")
        with pytest.raises(ContractMismatchError) as caught:
            await run(warmer, options=QUIET)
        assert caught.value.exit_code == 3
        assert "decoding.temperature   stored 0.0   asked 0.5" in str(caught.value)
        assert len(server.bodies) == sent
        report = await run(warmer, options=replace(QUIET, force=True))
        assert (report.generation, report.sent) == (2, 48)
        again = await run(warmer, options=QUIET)
        assert (again.generation, again.session_id) == (2, None)
    assert query(warmer, "SELECT generation, count(*) FROM runs GROUP BY 1") == [(1, 4), (2, 4)]
    check_invariants(warmer)


async def test_another_metric_is_refused_as_a_contract_and_told_how_stored_answers_are_scored_again(
    tmp_path: Path,
) -> None:
    async with serving(Script()) as (_, url):
        await run(sweep_settings(tmp_path, url, n=4), options=QUIET)
        with pytest.raises(ContractMismatchError) as caught:
            await run(sweep_settings(tmp_path, url, "dataset.params={metric: em}", n=4), options=QUIET)
    assert "`kvt all -c CONFIG --metric em`" in caught.value.do


async def test_a_new_generation_begins_only_once_its_server_answers(tmp_path: Path, unused_tcp_port: int) -> None:
    async with serving(Script()) as (_, url):
        await run(sweep_settings(tmp_path, url, n=4), options=QUIET)
    nobody = sweep_settings(tmp_path, f"http://127.0.0.1:{unused_tcp_port}/v1", "decoding.temperature=0.5", n=4)
    with pytest.raises(ServerError):
        await run(nobody, options=replace(QUIET, force=True))
    assert query(nobody, "SELECT max(generation) FROM experiments") == [(1,)]


async def test_a_level_that_is_applied_another_way_is_refused_naming_it(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        await run(sweep_settings(tmp_path, url), options=QUIET)
        other = sweep_settings(tmp_path, url, "kv.apply={via: body, body: {kv: {budget: '{budget}', x: 1}}}")
        with pytest.raises(ContractMismatchError, match=r"(?s)level full.*apply\.body\.kv\.x +stored null +asked 1"):
            await run(other, options=QUIET)


@pytest.mark.parametrize("override", ["limits.concurrency=2", "engine.timeouts.ttfb_s=9", "analysis.margin=0.1"])
async def test_what_is_no_part_of_the_contract_may_change(tmp_path: Path, override: str) -> None:
    async with serving(Script()) as (_, url):
        await run(sweep_settings(tmp_path, url, n=4), options=QUIET)
        report = await run(sweep_settings(tmp_path, url, override, n=4), options=QUIET)
    assert (report.exit_code, report.sent) == (0, 0)


async def test_several_policies_and_modes_share_one_full_cache(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = sweep_settings(
            tmp_path, url, "kv.policies=[snapkv, {policy: snapkv, mode: question_agnostic}, random]",
            "kv.budgets=[1.0, 0.5]", n=4,
        )  # fmt: skip
        report = await run(settings, options=QUIET)
    assert [level["level"] for level in report.levels] == [
        "full", "snapkv/aware 0.5", "snapkv/agnostic 0.5", "random/aware 0.5", "full (repeat 1)",
    ]  # fmt: skip
    assert states(settings) == {"response": 20}


async def test_interleaved_alternates_levels_and_keeps_the_repeat_for_the_end(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(
            tmp_path, url, "limits.order=interleaved", "limits.concurrency=1", "decoding.max_tokens=7"
        )
        await run(settings, options=QUIET)
    sent = [body["kv"]["budget"] for body in grid_bodies(server)]
    assert [sorted(sent[i : i + 3]) for i in range(0, 36, 3)] == [[0.2, 0.5, 1.0]] * 12
    assert sent[36:] == [1.0] * 12
    assert len({tuple(sent[i : i + 3]) for i in range(0, 36, 3)}) > 1
    assert query(settings, "SELECT order_seed FROM sessions") == [(1337,)]


async def test_limit_sends_the_first_of_each_bin_and_a_later_run_the_rest(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = sweep_settings(tmp_path, url)
        report = await run(settings, options=replace(QUIET, limit=2))
        assert (report.sent, report.planned, report.exit_code) == (16, 16, 0)
        report = await run(settings, options=QUIET)
    assert (report.sent, report.responses) == (32, 48)


async def test_failures_stand_until_they_are_tried_again_in_a_new_series(tmp_path: Path) -> None:
    script = Script(faults={"http_400": 0.3})
    async with serving(script) as (_, url):
        settings = sweep_settings(tmp_path, url, "kv.apply={via: none}", "kv.policy=label", "kv.evidence={}")
        report = await run(settings, options=QUIET)
        failed = report.failures
        assert report.exit_code == 4
        assert failed > 0
        assert report.failures_by_type == {"HttpError": failed}
        assert (await run(settings, options=QUIET)).exit_code == 4
        script.faults = {}
        report = await run(settings, options=replace(QUIET, retry_failed=True))
    assert (report.exit_code, report.sent, report.failures, report.responses) == (0, failed, 0, 48)
    check_invariants(settings)
    assert query(settings, "SELECT series_idx, count(*) FROM try_series GROUP BY 1") == [(1, failed)]
    assert query(settings, "SELECT DISTINCT attempt_idx FROM responses WHERE request_id IN "
                           "(SELECT request_id FROM try_series)") == [(1,)]  # fmt: skip


async def test_mixed_faults_are_retried_each_try_a_row_and_every_request_ends_once(tmp_path: Path) -> None:
    script = Script(faults={"http_500": 0.1, "http_429": 0.1, "cut": 0.05, "garbage": 0.05})
    async with serving(script) as (server, url):
        settings = sweep_settings(
            tmp_path, url, "limits.retry.max_attempts=9", "limits.concurrency=8", "kv.apply={via: none}",
            "kv.policy=label", n=40,
        )  # fmt: skip
        report = await run(settings, options=QUIET)
    assert states(settings) == {"response": 160}
    assert report.retries > 0
    check_invariants(settings)
    assert query(settings, "SELECT count(*) FROM attempts") == [(len(server.bodies),)]
    assert len(query(settings, "SELECT DISTINCT error_type FROM attempts WHERE error_type IS NOT NULL")) >= 3


async def test_run_wants_a_prepared_manifest_and_says_the_command(tmp_path: Path) -> None:
    settings = sweep_settings(tmp_path, "http://127.0.0.1:9/v1")
    with pytest.raises(MissingPrerequisiteError, match="kvt prepare") as caught:
        await run(settings, options=replace(QUIET, prepare_first=False))
    assert caught.value.exit_code == 3
    assert not (tmp_path / "runs").exists()


async def test_run_sends_what_prepare_made(tmp_path: Path) -> None:
    async with serving(Script()) as (_, url):
        settings = sweep_settings(tmp_path, url)
        facts = prepare_group(settings, quiet=True)
        assert facts["entries"] == 12
        report = await run(settings, options=replace(QUIET, prepare_first=False))
    assert report.responses == 48


async def test_a_server_that_is_not_there_is_said_before_anything_is_sent(tmp_path: Path, unused_tcp_port: int) -> None:
    settings = sweep_settings(tmp_path, f"http://127.0.0.1:{unused_tcp_port}/v1")
    with pytest.raises(ServerError, match="kvt serve") as caught:
        await run(settings, options=QUIET)
    assert caught.value.exit_code == 5
    assert str(unused_tcp_port) in str(caught.value)
    assert query(settings, "SELECT exit_code, reason FROM session_ends") == [(5, "server")]
    assert query(settings, "SELECT count(*) FROM requests") == [(0,)]


async def test_a_refused_key_is_a_config_error_that_names_the_variable(tmp_path: Path) -> None:
    async with serving(Script(key="right")) as (_, url):
        with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
            await run(sweep_settings(tmp_path, url), options=QUIET)


@pytest.mark.parametrize("via", ["body", "none"])
async def test_a_server_that_refuses_the_model_is_said_before_the_grid_and_gives_nothing_up(
    tmp_path: Path, via: str
) -> None:
    async with serving(Script(model="other", strict=True)) as (_, url):
        settings = sweep_settings(tmp_path, url, *(["kv.apply={via: none}"] if via == "none" else []))
        with pytest.raises(ConfigError, match="no model reference") as caught:
            await run(settings, options=QUIET)
    assert "model.name" in str(caught.value)
    assert query(settings, "SELECT count(*) FROM requests") == [(0,)]


async def test_a_server_that_lists_another_name_but_takes_ours_is_only_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script(model="other")) as (_, url):
        report = await run(sweep_settings(tmp_path, url, n=4), options=QUIET)
    assert report.exit_code == 0
    assert "lists other, not model.name 'reference'" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "warned"), [("/models/llm.gguf", False), ("/models/other.gguf", True)])
async def test_the_path_of_a_gguf_file_is_one_name_however_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, warned: bool
) -> None:
    async with serving(Script(model="gguf/llm.gguf")) as (_, url):
        report = await run(sweep_settings(tmp_path, url, f"model.name={name}", n=4), options=QUIET)
    assert report.exit_code == 0
    assert ("not model.name" in capsys.readouterr().err) == warned


async def test_the_key_reaches_the_server_and_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-value")
    monkeypatch.setattr(
        "sys.argv", ["kvt", "sweep", "--override", "engine.headers.X-Token=abcdef", "sk-very-secret-value"]
    )
    async with serving(Script(key="sk-very-secret-value", faults={"http_400": 0.2})) as (_, url):
        settings = sweep_settings(tmp_path, url, "engine.headers={X-Token: abcdef}", "kv.apply={via: none}")
        await run(settings, options=QUIET)
    assert_nowhere(tmp_path, b"sk-very-secret-value", b"abcdef")


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (["--override=engine.headers.X-Token=abcdef"], "--override=engine.headers.X-Token=***"),
        (["--override", "engine={headers: {X-Token: abcdef}, stream: false}"], "X-Token"),
        (["--override=kv.apply.body={api_key: abcdef}"], "api_key"),
        (["--override=engine.base_url=http://me:abcdef@host/v1"], "--override=engine.base_url=http://***@host/v1"),
    ],
)
def test_a_secret_in_an_override_is_not_part_of_the_stored_command(
    monkeypatch: pytest.MonkeyPatch, typed: list[str], kept: str
) -> None:
    monkeypatch.setattr("sys.argv", ["kvt", "sweep", *typed])
    assert kept in command_line()
    assert "abcdef" not in command_line()


async def test_a_server_that_echoes_our_credentials_in_its_identity_does_not_bring_them_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-value")
    script = Script(key="sk-very-secret-value", version="for Bearer sk-very-secret-value, X-Token abcdef")
    async with serving(script) as (_, url):
        settings = sweep_settings(tmp_path, url, "engine.headers={X-Token: abcdef}", "kv.apply={via: none}", n=4)
        await run(settings, options=QUIET)
    assert_nowhere(tmp_path, b"sk-very-secret-value", b"abcdef")


def assert_nowhere(folder: Path, *secrets: bytes) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 4
    for path in files:
        assert not any(secret in path.read_bytes() for secret in secrets), path


async def test_endpoint_levels_reach_their_own_servers(tmp_path: Path) -> None:
    async with serving(Script()) as (first, a), serving(Script()) as (second, b):
        settings = sweep_settings(
            tmp_path, a, f"kv.apply={{via: endpoint, endpoints: {{full: '{a}', '0.5': '{b}'}}}}",
            "kv.budgets=[1.0, 0.5]", "kv.evidence={}",
        )  # fmt: skip
        with pytest.raises(Exception, match="KV budget changes nothing"):  # equal answers from two servers: a dead knob
            await run(settings, options=QUIET)
        report = await run(settings, options=replace(QUIET, allow_dead_knob=True))
    assert report.responses == 36
    assert query(settings, "SELECT endpoint, count(*) FROM attempts GROUP BY 1 ORDER BY 2") == [(b, 12), (a, 24)]
    assert len(second.bodies) == 12 + 15 + 15  # the grid and two canaries: dead knobs are asked all there is
    assert len(first.bodies) == 24 + 30 + 30  # each of their prompts twice


async def test_a_dry_run_prints_requests_tokens_time_and_cost_and_sends_nothing(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(tmp_path, url, "analysis.prices={prompt_per_mtok: 1000, completion_per_mtok: 0}")
        plan = (await run(settings, options=replace(QUIET, dry_run=True))).plan
        assert plan is not None
        assert server.bodies == []
        assert (plan["requests"], plan["max_output_tokens"]) == (48, 48 * 8)
        assert plan["rates"].startswith("assumed, nothing was measured: a GPU's 5,000 prompt and 30 output tokens/s")
        assert "kvt sweep --limit 1" in plan["rates"]
        assert plan["answer_timeout_s"] == 600
        assert plan["cost_at_most"] == pytest.approx(plan["prompt_tokens"] / 1000)
        await run(settings, options=replace(QUIET, limit=2))
        plan = (await run(settings, options=replace(QUIET, dry_run=True))).plan
    assert plan is not None
    assert plan["requests"] == 32
    assert plan["rates"].startswith("measured")


async def test_a_dry_run_after_a_canary_that_refused_reckons_with_its_answers(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(tmp_path, url, "kv.apply={via: body, body: {}}", "kv.evidence={}")
        with pytest.raises(Exception, match="KV budget changes nothing"):
            await run(settings, options=QUIET)
        asked = len(server.bodies)
        plan = (await run(settings, options=replace(QUIET, dry_run=True))).plan
    assert plan is not None
    assert plan["rates"].startswith(f"measured over {asked} answers of the canary")
    seconds = [
        seconds
        for (seconds,) in query(settings, "SELECT detail_json ->> '$.latency_s' FROM probes WHERE answer IS NOT NULL")
    ]
    streams = settings.limits.concurrency
    assert plan["expected_s"] == pytest.approx(plan["requests"] * sum(seconds) / len(seconds) / streams)


async def test_warm_up_sends_each_prompt_once_and_short_before_the_levels(tmp_path: Path) -> None:
    async with serving(Script()) as (server, url):
        settings = sweep_settings(tmp_path, url, "engine.warm_up=prefill", "decoding.max_tokens=7")
        await run(settings, options=QUIET)
    short = [n for n, body in enumerate(server.bodies) if body["max_tokens"] == 1]
    first = next(n for n, body in enumerate(server.bodies) if body["max_tokens"] == 7)
    assert len(short) == 12
    assert max(short) < first
    assert all(body["kv"]["context_chars"] > 0 for body in server.bodies)
    detail = orjson.loads(query(settings, "SELECT detail_json FROM probes WHERE kind = 'warm_up'")[0][0])
    assert (detail["sent"], detail["failed"]) == (12, 0)


@pytest.mark.parametrize(
    ("loop", "transport", "recorded"),
    [("truth", "aiohttp", "truth"), ("volume", "aiohttp", "volume"), ("volume", "lean", "volume+lean")],
)
def test_every_loop_and_transport_runs_a_sweep_and_the_session_says_which(
    tmp_path: Path, loop: str, transport: str, recorded: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = (f"engine.loop={loop}", f"engine.transport={transport}")
    settings = sweep_settings(tmp_path, "http://127.0.0.1:1/v1", *chosen, n=4)
    factory = loop_factory(settings)
    assert (factory is None) == (loop == "truth")

    async def whole() -> int:
        async with serving(Script()) as (_, url):
            return (await run(sweep_settings(tmp_path, url, *chosen), options=QUIET)).exit_code

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(whole()) == 0
    assert query(settings, "SELECT engine_loop FROM sessions") == [(recorded,)]


def test_execute_prints_json_for_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = sweep_settings(tmp_path, "http://127.0.0.1:9/v1")
    assert execute(settings, SweepOptions(dry_run=True, as_json=True)) == 0
    plan = orjson.loads(capsys.readouterr().out)
    assert plan["requests"] == 48
    assert len(plan["prepared"]) == 2, "manifest and database, which stay"
    assert all(Path(file).is_file() for file in plan["prepared"])
    assert execute(settings, SweepOptions(dry_run=True)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "dry run: nothing was sent", "nothing was made this time"


async def test_a_sweep_whose_prompts_were_cut_never_ends_with_0_and_keeps_every_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "examples.jsonl"
    rows = (
        {"example_id": f"e{i}", "context": f"Fact {i}: " + "word " * (80 * i), "question": "What?", "answers": ["a"]}
        for i in range(1, 13)
    )
    data.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    async with serving(Script(window=300)) as (_, url):
        settings = sweep_settings(tmp_path, url)
        report = await run(settings, options=SweepOptions(quiet=True))
        again = await run(settings, options=SweepOptions(quiet=True))  # nothing is left to send; it stays said
    assert (report.exit_code, report.responses, report.failures) == (4, 48, 0)
    assert (again.exit_code, again.session_id) == (4, None)
    assert "40 of 48 prompts were read shorter than sent" in report.read_short
    assert capsys.readouterr().err.count("warning: 40 of 48 prompts were read shorter than sent") == 2
    assert query(settings, "SELECT exit_code, reason FROM session_ends") == [(4, "failures")]

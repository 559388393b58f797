"""What a user is told to do about a refusal."""

import asyncio
from pathlib import Path

import pytest

from kvt_async.contract.errors import ConfigError, ServerError
from kvt_async.contract.settings import EngineSettings
from kvt_async.engine.send.advice import field_advice, key_advice
from kvt_async.engine.send.sender import Sender
from kvt_async.session import handshake
from kvt_async.sweep.sweep import SweepOptions, run
from kvt_async.validate import validate
from tests.servers.certificate import served_with_tls
from tests.servers.fault_server import FaultServer, Seen, Wire, answer, error, status
from tests.servers.openai_server import Script, serving
from tests.worlds import engine_settings, sweep_settings


def test_a_refused_key_is_named_by_its_variable_and_whether_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = EngineSettings(api_key_env="MYKEY")
    monkeypatch.delenv("MYKEY", raising=False)
    assert "MYKEY, which is set neither in the environment nor in .env" in key_advice(engine)
    monkeypatch.setenv("MYKEY", "expired-key")
    assert "The key is the one in MYKEY (engine.api_key_env)" in key_advice(engine)
    assert "engine.headers" in key_advice(EngineSettings(headers={"Authorization": "Bearer x"}))
    assert "expired-key" not in key_advice(engine)


async def test_a_sweep_whose_key_is_refused_says_which_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MYKEY", raising=False)
    async with serving(Script(key="the-right-one")) as (_, url):
        settings = sweep_settings(tmp_path, url, "engine.api_key_env=MYKEY")
        with pytest.raises(ConfigError, match="401") as refused:
            await run(settings, options=SweepOptions(quiet=True))
    assert "engine.api_key_env names MYKEY" in str(refused.value)


def test_validate_says_that_the_key_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MYKEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    local = "http://127.0.0.1:1/v1"
    said = "engine.api_key_env names MYKEY, which is not set: no key will be sent"
    assert said in validate(sweep_settings(tmp_path, local, "engine.api_key_env=MYKEY"))["notes"]
    assert not any("api_key_env" in note for note in validate(sweep_settings(tmp_path, local)).get("notes", []))
    remote = validate(sweep_settings(tmp_path, "https://api.example.com/v1"))
    assert any("OPENAI_API_KEY, which is not set" in note for note in remote["notes"])
    monkeypatch.setenv("MYKEY", "x")
    assert said not in validate(sweep_settings(tmp_path, local, "engine.api_key_env=MYKEY")).get("notes", [])


def test_a_field_that_is_refused_is_named_with_its_key() -> None:
    assert "engine.stream_usage: never" in (field_advice("HTTP 400: unknown field stream_options") or "")
    assert field_advice("HTTP 400: no") is None


async def test_a_certificate_that_nobody_vouches_for_sends_to_the_ca_file() -> None:
    async with (
        FaultServer(answer("a"), tls=served_with_tls()) as https,
        Sender(engine_settings(https.base_url)) as sender,
    ):
        with pytest.raises(ServerError, match="self-signed") as caught:
            await handshake.check_server(sender, sender.settings, [https.base_url], print)
    assert "engine.ca_file" in caught.value.do
    assert "Start the server" not in caught.value.do


async def test_a_list_of_models_that_comes_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "PATIENCE_S", (0.05, 5.0))
    monkeypatch.setattr(handshake, "PAUSE_S", 0.0)
    listed = status(200, {"data": [{"id": "m"}]})

    async def late(wire: Wire, request: Seen) -> None:
        await answer_late.wait()
        await listed(wire, request)

    answer_late = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, answer_late.set)
    async with FaultServer(late) as slow, Sender(engine_settings(slow.base_url)) as sender:
        settings = sender.settings.model_copy(update={"model": sender.settings.model.model_copy(update={"name": "m"})})
        assert await handshake.check_server(sender, settings, [slow.base_url], print)


async def test_a_refused_stream_option_says_how_to_leave_it_out(tmp_path: Path) -> None:
    refusal = error(400, "Unknown parameter: stream_options")
    async with FaultServer(refusal) as picky:
        with pytest.raises(ConfigError) as refused:
            await run(sweep_settings(tmp_path, picky.base_url), options=SweepOptions(quiet=True))
    assert "engine.stream_usage: never" in str(refused.value)

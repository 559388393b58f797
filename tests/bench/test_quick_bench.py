"""`kvt bench quick URL`: what is found out about a server, what is sent to it, and what is said where it can't be."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from aiohttp import web

from kvt_async.bench.first_look import FirstLook, Wish, base_url, look
from kvt_async.bench.quick import group_name
from kvt_async.contract.errors import ConfigError, ServerError
from kvt_async.contract.load import load_settings
from kvt_async.session.handshake import model_names
from tests.bench_output import documented
from tests.servers.openai_server import FakeServer, Script, on_loopback, serving
from tests.worlds import free_port


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:8000", "http://localhost:8000/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("https://h/v1/", "https://h/v1"),
        ("http://h/openai/v1/chat/completions", "http://h/openai/v1"),
        ("http://h:1/v1/models", "http://h:1/v1"),
        ("[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_a_url_may_be_written_as_it_comes(text: str, url: str) -> None:
    assert base_url(text) == url


@pytest.mark.parametrize("text", ["ftp://h", "http://", "", "http://h:99999", "http://[x"])
def test_what_is_no_url_of_a_server_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no URL of a server"):
        base_url(text)


def test_a_group_is_named_by_the_host_without_what_may_be_secret() -> None:
    when = datetime(2026, 12, 1, 10, 15, tzinfo=UTC)
    assert group_name("http://user:pass@h.example:81/v1?key=x", when) == "quick-h.example-81-20261201-101500"


class Counts(FakeServer):
    """Five characters a token and seven tokens around a prompt; `refuses`: fields that it takes for an error."""

    def __init__(self, script: Script, *refuses: str, models: int = 1, whole: bool = False) -> None:
        super().__init__(script)
        self.refuses, self.n_models, self.whole = refuses, models, whole

    async def models(self, http: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": f"m{n}"} for n in range(self.n_models)]})

    async def chat(self, http: web.Request) -> web.StreamResponse:
        body = orjson.loads(await http.read())
        if strange := [name for name in self.refuses if name in body]:
            return web.json_response({"error": {"message": f"unknown field {strange[0]}"}}, status=400)
        if self.whole:
            body["stream"] = False
            self.bodies.append(body)
            message = {"role": "assistant", "content": "a b"}
            usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
            return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                                      "usage": usage})  # fmt: skip
        return await super().chat(http)

    def usage(self, prompt: str, n: int) -> dict[str, Any]:
        return super().usage(prompt, n) | {"prompt_tokens": 7 + len(prompt) // 5}


async def looked(server: FakeServer, **wish: Any) -> FirstLook:
    async with on_loopback(server) as url:
        return await look(Wish(url, **{"output_tokens": 6, **wish}), ["experiment.exp_group_id=q"])


async def test_without_a_tokenizer_two_counts_of_the_server_make_prompts_of_the_asked_length() -> None:
    seen = await looked(Counts(Script()))
    asked = load_settings(None, seen.overrides).bench.workload.input_tokens.value
    assert 7 + asked * 4 / 5 == pytest.approx(256, abs=2)
    assert (seen.model, seen.tokenizer, seen.streams) == ("m0", "approx:chars/4", True)
    assert "a token has 5.0 characters" in " ".join(seen.notes)


async def test_fields_that_a_server_refuses_are_left_out_and_said() -> None:
    seen = await looked(Counts(Script(), "ignore_eos", "stream_options"))
    settings = load_settings(None, seen.overrides)
    assert (settings.bench.body, settings.engine.stream_usage) == ({}, "never")
    assert any("takes no ignore_eos" in note for note in seen.notes)
    assert any("takes no stream_options" in note for note in seen.notes)


async def test_a_server_that_does_not_stream_is_told_apart() -> None:
    seen = await looked(Counts(Script(), whole=True))
    assert not seen.streams
    assert "does not stream" in seen.notes[-1]


async def test_of_several_models_one_is_to_be_named() -> None:
    with pytest.raises(ConfigError, match="the server has 2 models: m0, m1") as refused:
        await looked(Counts(Script(), models=2))
    assert "--model m0" in str(refused.value.do)
    assert (await looked(Counts(Script(), models=2), model="m1")).model == "m1"
    with pytest.raises(ConfigError, match="has no model m9") as unknown:
        await looked(FakeServer(Script(strict=True)), model="m9")
    assert "It lists reference" in str(unknown.value.do)


async def test_a_dead_server_a_key_that_is_refused_and_what_is_no_such_server_are_told_apart() -> None:
    with pytest.raises(ServerError, match="no server answers") as dead:
        await look(Wish(f"http://127.0.0.1:{free_port()}"), [])
    assert dead.value.exit_code == 5
    with pytest.raises(ConfigError, match="refuses the API key") as refused:
        await looked(FakeServer(Script(key="k")), api_key_env="NO_SUCH_KEY")
    assert "NO_SUCH_KEY" in str(refused.value.do)

    class Page:
        app = web.Application()

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>hello")

    Page.app.router.add_get("/{any:.*}", page)
    async with on_loopback(Page()) as url:
        with pytest.raises(ConfigError, match="speaks no OpenAI API there"):
            await look(Wish(url), [])


async def test_the_whole_answer_from_a_url_alone(tmp_path: Path) -> None:
    """As a program; the config that it leaves makes the bench that it names as the next."""
    import sys

    async with serving(Script(delay_s=0.01)) as (_, url):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kvt_async", "bench", "quick", url.removesuffix("/v1"), "--json", "--within", "1",
            "--output-tokens", "6", "--override", "analysis.charts=false", "--override", "bench.auto.max_stages=1",
            cwd=tmp_path, env={"PYTHONPATH": str(Path.cwd())},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    answer = documented(json.loads(out), "run")
    assert answer["quick"]["model"] == "reference"
    assert answer["analysis"]["points"][0]["load"] == "concurrency 1"
    config = tmp_path / answer["quick"]["next"].split()[3]
    settings = load_settings(config, ["bench.concurrency=1"])
    assert settings.model.name == "reference"
    assert "sweep_concurrency" not in yaml.safe_load(config.read_text())["bench"]


def test_a_model_without_a_name_is_none() -> None:
    body = {"data": [{"id": None}, {"id": 5}, {"id": ""}, {"name": "x"}, "m", {"id": "base"}]}
    assert model_names(body) == ["base"]


async def test_a_server_that_never_answers_is_given_up_within_its_share_of_the_time() -> None:
    """Without the bound on the first byte the default holds: two minutes, twice."""

    class Silent(Counts):
        async def chat(self, http: web.Request) -> web.StreamResponse:
            await asyncio.Event().wait()
            raise AssertionError("nobody sets it")

    async with on_loopback(Silent(Script())) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kvt_async", "bench", "quick", url, "--within", "1"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        shown, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 5
    assert b"does not answer a first request: TtfbTimeout" in shown


async def test_a_name_too_long_to_be_read_is_cut_on_screen() -> None:
    class Long(Counts):
        async def models(self, http: web.Request) -> web.Response:
            return web.json_response({"data": [{"id": "m" * 100_000}, {"id": "n"}]})

    with pytest.raises(ConfigError, match=r"m{80}\.\.\., n\n") as refused:
        await looked(Long(Script()))
    assert len(str(refused.value)) < 1000

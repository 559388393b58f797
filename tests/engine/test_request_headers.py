"""What is sent over a connection, and what is kept of secrets."""

import pytest

from kvt_async.contract.errors import ConfigError, EndState, ServerError
from kvt_async.engine.send.sender import Sender
from tests.engine.sending import PATH, Recorder, against, request_to, send_one, try_once
from tests.servers.fault_server import FaultServer, Step, answer, close, delta, event, head, raw, reply, stall
from tests.servers.fault_server import status as http_status
from tests.worlds import engine_settings, free_port

pytestmark = pytest.mark.usefixtures("every_transport")

KEY = "sk-test-0123456789abcdef"


async def test_the_headers_of_a_request() -> None:
    async with against(answer("a"), headers={"X-Team": "red"}) as (server, sender):
        await send_one(sender, server, body=b'{"a":1}')
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/chat/completions", b'{"a":1}')
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["x-team"] == "red"
    assert "authorization" not in seen.headers
    assert "cookie" not in seen.headers


async def test_a_requests_own_headers_go_with_it_alone_and_over_those_of_all_on_one_connection() -> None:
    steps = (answer("a"), answer("b"), answer("c"))
    async with against(*steps, headers={"X-Team": "red"}) as (server, sender):
        await send_one(sender, server, headers=(("X-KV-Budget", "0.5"), ("x-team", "blue")))
        await sender.probe(server.base_url, PATH, b"{}", (("X-KV-Budget", "0.2"),))
        await send_one(sender, server)
    names = ("x-kv-budget", "x-team")
    assert [tuple(seen.headers.get(name) for name in names) for seen in server.seen] == [
        ("0.5", "blue"), ("0.2", "red"), (None, "red")
    ]  # fmt: skip
    assert len({seen.connection for seen in server.seen}) == 1


async def test_the_key_goes_into_the_header_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVT_TEST_KEY", KEY)
    echo = {"error": {"message": f"bad key {KEY}, header Authorization: Bearer {KEY}"}}
    fault = event(delta(f"key={KEY[:10]}")) + event(delta(KEY[10:])) + event({"error": KEY})
    steps = (
        http_status(401, echo),
        http_status(500, b"x" * 190 + KEY.encode(), content_type="text/plain"),
        raw(head() + fault),
        raw(KEY.encode() + b"\r\n\r\n"),
        raw(head() + reply(KEY[:8], KEY[8:], KEY)),
        http_status(302, headers={"Location": f"http://x/?k={KEY}"}),
    )
    async with against(*steps, api_key_env="KVT_TEST_KEY", headers={"X-Api-Key": KEY}) as (server, sender):
        attempts = [await sender.probe(server.base_url, PATH, b"{}") for _ in steps]
    assert [seen.headers["authorization"] for seen in server.seen] == [f"Bearer {KEY}"] * len(steps)
    assert all(KEY not in repr(attempt) and KEY[:16] not in repr(attempt) for attempt in attempts)
    assert attempts[4].reply is not None
    assert attempts[4].reply.text == "******"


async def test_credentials_in_the_url_are_sent_as_basic_auth_and_not_stored() -> None:
    async with FaultServer(http_status(500, b"dXNlcjpodW50ZXIyMg==")) as server:
        url = server.base_url.replace("://", "://user:hunter22@")
        async with Sender(engine_settings(url)) as sender:
            got = await sender.probe(url, PATH, b"{}")
    assert server.seen[0].headers["authorization"] == "Basic dXNlcjpodW50ZXIyMg=="
    assert got.endpoint == server.base_url
    assert "hunter22" not in repr(got)
    assert "dXNlcjpodW50ZXIyMg" not in repr(got)


async def test_a_key_that_no_header_can_hold_is_a_config_error_that_does_not_show_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KVT_TEST_KEY", KEY + "\n")
    with pytest.raises(ConfigError) as caught:
        async with Sender(engine_settings("http://127.0.0.1/v1", api_key_env="KVT_TEST_KEY")):
            pass
    assert "KVT_TEST_KEY" in str(caught.value)
    assert KEY not in str(caught.value)


async def test_a_url_that_is_none_is_a_config_error() -> None:
    async with Sender(engine_settings("http://127.0.0.1:1/v1")) as sender:
        with pytest.raises(ConfigError, match="not a valid URL"):
            await sender.send(request_to("http://127.0.0.1:99999/v1"), Recorder())


async def test_an_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert (await try_once(answer("a"))).end_state is EndState.DONE


# ------------------------------------------------------------------ plain documents


async def test_documents_are_fetched_with_the_key_only_from_known_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVT_TEST_KEY", KEY)
    models = http_status(200, {"data": [{"id": "m"}]}, headers={"Server": "vllm"})
    async with FaultServer(models) as other, against(models, api_key_env="KVT_TEST_KEY") as (server, sender):
        assert await sender.pages.get_json(server.base_url + "/models") == {"data": [{"id": "m"}]}
        assert (await sender.pages.get_headers(server.base_url + "/models"))["server"] == "vllm"
        assert '"id"' in await sender.pages.get_text(other.base_url + "/metrics")
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in other.seen[0].headers


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (http_status(404, {"detail": "nothing here"}), "HTTP 404"),
        (http_status(200, b"<html>"), "not JSON"),
        (stall(), "no answer within 0.2 s"),
        (close(), "GET http://"),
    ],
)
async def test_a_document_that_cannot_be_had_is_a_server_error(step: Step, says: str) -> None:
    async with against(step) as (server, sender):
        with pytest.raises(ServerError) as caught:
            await sender.pages.get_json(server.base_url + "/models", timeout_s=0.2)
    assert says in str(caught.value)
    assert "/v1/models" in str(caught.value)

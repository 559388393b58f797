"""A query of engine.base_url goes with every request and page, and is stored and shown nowhere."""

from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from kvt_async.contract.errors import ServerError
from kvt_async.contract.urls import bare_url, public_url, server_root, url_under
from kvt_async.engine.send.sender import Sender
from kvt_async.sweep.sweep import SweepOptions, run
from tests.engine.sending import PATH
from tests.servers.fault_server import FaultServer, answer, error, status
from tests.servers.openai_server import FakeServer, Script, on_loopback
from tests.worlds import engine_settings, query, sweep_settings

QUERY, SECRET = "?api-version=2024-10-21&code=hunter22%2Fsecret", "hunter22"


@pytest.mark.parametrize(
    ("base", "models", "metrics"),
    [
        ("http://h:1/v1", "http://h:1/v1/models", "http://h:1/metrics"),
        ("http://h/v1/?a=b/", "http://h/v1/models?a=b/", "http://h/metrics?a=b/"),
        ("https://u:p@h/x?a=b&c=d#f", "https://u:p@h/x/models?a=b&c=d#f", "https://u:p@h/x/metrics?a=b&c=d#f"),
        ("http://[::1]:8/v1?q", "http://[::1]:8/v1/models?q", "http://[::1]:8/metrics?q"),
    ],
)
def test_pages_of_a_server_keep_its_query(base: str, models: str, metrics: str) -> None:
    assert url_under(base, "/models") == models
    assert url_under(server_root(base), "/metrics") == metrics


def test_what_is_sent_has_the_query_and_what_is_shown_has_not() -> None:
    url = "https://u:p@h/x?a=b#f"
    assert (bare_url(url), public_url(url)) == ("https://h/x?a=b", "https://h/x")


@pytest.mark.usefixtures("every_transport")
async def test_the_query_is_sent_with_replies_and_pages_and_hidden_in_what_comes_back() -> None:
    told = error(400, f"bad code {SECRET}/secret for api-version 2024-10-21")
    async with FaultServer(answer("a"), status(200, {"data": []}), told) as server:
        base = server.base_url + QUERY
        async with Sender(engine_settings(base)) as sender:
            good = await sender.probe(base, PATH, b"{}")
            await sender.pages.get_json(url_under(base, "/models"))
            bad = await sender.probe(base, PATH, b"{}")
            with pytest.raises(ServerError) as refused:
                await sender.pages.get_json(url_under(base, "/models"))
        paths = [seen.path for seen in server.seen]
    assert paths[0].startswith("/v1/chat/completions?api-version=2024-10-21&code=hunter22")
    assert paths[1].startswith("/v1/models?api-version=2024-10-21&code=hunter22")
    assert (good.endpoint, bad.endpoint) == (server.base_url, server.base_url)
    assert bad.error_message is not None
    assert "bad code *** for api-version 2024-10-21" in bad.error_message
    assert SECRET not in str(refused.value)


async def test_a_sweep_over_such_a_url_leaves_no_trace_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: set[tuple[str, str]] = set()

    class Noting(FakeServer):
        def __init__(self, script: Script) -> None:
            super().__init__(script)
            self.app.middlewares.append(self.note)

        @web.middleware
        async def note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
            asked.add((request.path, request.query_string))
            return await handler(request)

    async with on_loopback(Noting(Script())) as url:
        settings = sweep_settings(tmp_path, url + QUERY, "kv.budgets=[1.0]", "kv.control_repeats=0", n=4)
        report = await run(settings, options=SweepOptions())
    assert (report.exit_code, report.pending) == (0, 0)
    assert {path for path, _ in asked} >= {"/v1/chat/completions", "/v1/models", "/version", "/metrics"}
    assert all(text.startswith("api-version=2024-10-21&code=hunter22") for _, text in asked)
    assert query(settings, "SELECT DISTINCT endpoint FROM attempts") == [(url,)]
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err
    assert [file for file in files_in(tmp_path) if SECRET.encode() in file.read_bytes()] == []


def files_in(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]

"""Who may look at the page, over real HTTP; and that nothing but the given folders is read."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, CookieJar
from aiohttp.test_utils import TestServer
from prometheus_client.parser import text_string_to_metric_families

from kvt_async.contract.paths import DB_NAME
from tests.analyzer.bench_rows import GROUP as BENCHED
from tests.analyzer.bench_rows import Load, steady, write_bench
from tests.older_db import made_older
from tests.viewer.conftest import GROUP
from tests.worlds import query
from viewer.groups.group_places import group_places
from viewer.pages.page_access import Doorkeeper
from viewer.pages.web_app import ViewApp

TOKEN = "a-token-of-the-test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@asynccontextmanager
async def viewing(*roots: Path) -> AsyncIterator[tuple[ClientSession, Doorkeeper, str]]:
    doorkeeper = Doorkeeper(TOKEN, ("127.0.0.1",))
    async with (
        TestServer(ViewApp(roots, doorkeeper).app) as server,
        ClientSession(cookie_jar=CookieJar(unsafe=True)) as client,
    ):
        yield client, doorkeeper, f"http://127.0.0.1:{server.port}"


async def status_of(client: ClientSession, url: str, method: str = "GET", **headers: str) -> int:
    async with client.request(method, url, headers=headers, allow_redirects=False) as answer:
        return answer.status


async def test_the_token_is_exchanged_for_a_cookie_and_leaves_the_address(runs_dir: Path) -> None:
    async with viewing(runs_dir) as (client, _, url):
        assert await status_of(client, f"{url}/") == 401
        assert await status_of(client, f"{url}/?token=another") == 401
        async with client.get(f"{url}/compare?token={TOKEN}&a=x", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/compare?a=x")
            cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        assert await status_of(client, f"{url}/") == 200
        assert await status_of(client, f"{url}/metrics") == 200


async def test_a_redirect_stays_on_this_server(runs_dir: Path) -> None:
    async with (
        viewing(runs_dir) as (client, _, url),
        client.get(f"{url}//evil.example/?token={TOKEN}", allow_redirects=False) as answer,
    ):
        assert answer.headers["Location"].startswith("/")
        assert not answer.headers["Location"].startswith("//")


async def test_the_browser_that_is_opened_has_a_token_that_works_once(runs_dir: Path) -> None:
    async with viewing(runs_dir) as (client, doorkeeper, url):
        once = doorkeeper.opening_token
        assert await status_of(client, f"{url}/?token={once}") == 303
        assert await status_of(client, f"{url}/?token={once}") == 401


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "evil.example"}, 403),  # a name that somebody pointed at 127.0.0.1
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_other_sites_are_refused_even_with_the_token(
    runs_dir: Path, headers: dict[str, str], expected: int
) -> None:
    async with viewing(runs_dir) as (client, _, url):
        assert await status_of(client, f"{url}/api/groups", **BEARER, **headers) == expected


async def test_nothing_but_get_is_answered_and_every_answer_carries_the_headers(runs_dir: Path) -> None:
    async with viewing(runs_dir) as (client, _, url):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert await status_of(client, f"{url}/", method, **BEARER) == 405
        for path in ("/", "/none", "/g/none", "/static/view.css", "/static/../web_app.py", "/api/groups", "/?token=x"):
            async with client.get(f"{url}{path}", headers=BEARER) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert "frame-ancestors 'none'" in policy
                assert "unsafe-eval" not in policy
                assert "script-src 'self';" in policy
                assert answer.headers["Referrer-Policy"] == "no-referrer"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert await status_of(client, f"{url}/static/..%2Fweb_app.py", **BEARER) == 404


async def test_pages_of_unknown_groups_answers_and_places_are_refused_in_words(runs_dir: Path) -> None:
    key = group_places([runs_dir])[0].key
    async with viewing(runs_dir) as (client, _, url):
        for path, expected in {
            "/g/none": 404,
            f"/api/g/{key}/answer?id=%00none": 409,
            f"/api/g/{key}/answers?after=x": 400,
            f"/api/g/{key}/answers?text={'x' * 501}": 400,
            f"/api/changed?a={key}&b={key}&task=x&level=y": 400,
        }.items():
            async with client.get(f"{url}{path}", headers=BEARER) as answer:
                assert answer.status == expected, path
                assert "Traceback" not in await answer.text()


async def test_links_out_of_the_folder_and_damage_are_named_and_the_rest_is_shown(
    runs_dir: Path, tmp_path: Path
) -> None:
    root, outside = tmp_path / "runs", tmp_path / "outside"
    shutil.copytree(runs_dir, root)
    shutil.copytree(runs_dir / GROUP, outside / "secret")
    (root / "linked").symlink_to(outside / "secret")
    (root / "inner").mkdir()
    (root / "inner" / DB_NAME).symlink_to(outside / "secret" / DB_NAME)
    (root / "broken").mkdir()
    (root / "broken" / DB_NAME).write_bytes(b"no database" * 1000)
    (root / "<b>empty").mkdir()
    os.close(os.open(root / "<b>empty" / DB_NAME, os.O_CREAT))
    places = {Path(place.folder).name: place for place in group_places([root])}
    assert {name: bool(place.problem) for name, place in places.items()} == {
        GROUP: False,
        "linked": True,
        "inner": True,
        "broken": True,
        "<b>empty": True,
    }
    assert "link" in places["linked"].problem
    assert "link" in places["inner"].problem
    async with viewing(root) as (client, _, url):
        async with client.get(f"{url}/", headers=BEARER) as answer:
            page = await answer.text()
        assert answer.status == 200
        assert "<b>empty" not in page
        for place in places.values():
            if place.problem:
                assert await status_of(client, f"{url}/g/{place.key}/verdict", **BEARER) in (404, 409)


async def test_metrics_are_prometheus_text_under_their_documented_names(runs_dir: Path) -> None:
    async with viewing(runs_dir) as (client, _, url), client.get(f"{url}/metrics", headers=BEARER) as answer:
        families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
    states = {sample.labels["state"]: sample.value for sample in families["kvt_requests"].samples}
    assert states["pending"] == 0
    assert states["answered"] + states["failed"] == 60 // 3 * 3 * 6
    documented = (Path(__file__).parents[2] / "docs/VIEW.md").read_text("utf-8")
    assert all(f"`{name}`" in documented for name in families)
    assert families["kvt_running"].samples[0].value == 0


async def test_two_folders_of_one_name_are_told_apart_wherever_a_group_is_named(runs_dir: Path, tmp_path: Path) -> None:
    roots = [tmp_path / week / "runs" for week in ("last-week", "this-week")]
    for root in roots:
        shutil.copytree(runs_dir, root)
    names = [f"last-week/runs/{GROUP}", f"this-week/runs/{GROUP}"]
    assert [place.folder for place in group_places(roots)] == names
    assert {place.folder for place in group_places([roots[0], roots[0]])} == {f"runs/{GROUP}"}
    async with viewing(*roots) as (client, _, url), client.get(f"{url}/metrics", headers=BEARER) as answer:
        families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
    assert [sample.labels["folder"] for sample in families["kvt_running"].samples] == names


async def test_a_verdict_page_holds_no_script_and_no_control_character(runs_dir: Path) -> None:
    key = group_places([runs_dir])[0].key
    async with viewing(runs_dir) as (client, _, url), client.get(f"{url}/g/{key}/verdict", headers=BEARER) as answer:
        page = await answer.text()
    assert answer.status == 200
    assert page.count("<script") == page.count('<script src="/static/') + page.count(
        '<script type="module" src="/static/'
    )
    assert not set(page) & {"\x1b", "\x00", "\u202e"}
    assert "snapkv" in page


async def test_a_bench_shows_its_loads_and_charts_and_says_why_it_has_no_answers(tmp_path: Path) -> None:
    folder = tmp_path / BENCHED
    folder.mkdir()
    write_bench(folder / DB_NAME, [Load(steady(30)), Load(steady(60, gap_ms=50), label="rate 20/s", rate=20)]).close()
    (place,) = group_places([tmp_path])
    async with viewing(tmp_path) as (client, _, url):
        async with client.get(f"{url}/g/{place.key}/verdict", headers=BEARER) as answer:
            assert (answer.status, "Throughput" in await answer.text()) == (200, True)
        async with client.get(f"{url}/api/g/{place.key}/charts", headers=BEARER) as answer:
            assert "bench_frontier" in await answer.json()
        async with client.get(f"{url}/api/g/{place.key}/progress", headers=BEARER) as answer:
            assert [level["responses"] for level in (await answer.json())["levels"]] == [30, 60]
        async with client.get(f"{url}/api/groups", headers=BEARER) as answer:
            assert [group["name"] for group in await answer.json()] == [BENCHED]
        async with client.get(f"{url}/api/g/{place.key}/answers", headers=BEARER) as answer:
            assert (answer.status, "was benched" in await answer.text()) == (409, True)


@pytest.mark.parametrize("version", [1, 2])
async def test_a_database_of_an_older_schema_has_every_page(runs_dir: Path, tmp_path: Path, version: int) -> None:
    older = made_older(runs_dir / GROUP / DB_NAME, tmp_path / GROUP / DB_NAME, version)
    before, n_answered = older.read_bytes(), query(older, "SELECT count(*) FROM responses")[0][0]
    (place,) = group_places([tmp_path])
    async with viewing(tmp_path) as (client, _, url):
        for path in ("progress", "charts", "answers", "answers?differs=yes"):
            async with client.get(f"{url}/api/g/{place.key}/{path}", headers=BEARER) as answer:
                read: Any = await answer.json() if answer.status == 200 else await answer.text()
                assert answer.status == 200, read
                assert path != "progress" or (read["state"], read["responses"]) == ("finished", n_answered)
                assert not path.startswith("answers?") or read["n"] > 0
        assert await status_of(client, f"{url}/g/{place.key}/verdict", **BEARER) == 200
    assert older.read_bytes() == before

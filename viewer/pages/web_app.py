"""The addresses of `kvt view`, and what each answers. Everything slow runs in threads."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import orjson
from aiohttp import web

from analyzer.report.vega import vega
from kvt_async.contract.errors import ConfigError, KvtError
from kvt_async.contract.local_faults import explained
from kvt_async.contract.visible import visible
from viewer.answers.answer_filter import AnswerFilter, answer_page, masks_of
from viewer.answers.answer_texts import answer_detail, first_rows, listed_rows
from viewer.answers.changed_answers import changed_answers, shared_levels
from viewer.answers.index_shelf import IndexShelf
from viewer.groups.group_places import GroupPlace, group_places
from viewer.groups.group_progress import ProgressBoard
from viewer.groups.opened_group import opened_group
from viewer.pages.page_access import Doorkeeper, Handler
from viewer.pages.page_templates import rendered
from viewer.pages.verdict_page import VerdictPage, verdict_page
from viewer.pages.viewed_metrics import CONTENT_TYPE, metrics_page

Answer = TypeVar("Answer")
STATIC = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
LISTED_S = 2.0  # the folders are looked through again after so long
SOON_S = 0.6  # an index that takes longer is not waited for by the first page


class ViewApp:
    """The pages over some folders."""

    def __init__(self, roots: Sequence[Path], doorkeeper: Doorkeeper) -> None:
        self._roots = [root.resolve() for root in roots]
        self._board = ProgressBoard()
        self._shelf = IndexShelf()
        self._places: dict[str, GroupPlace] = {}
        self._listed_at = -LISTED_S
        self._listing = asyncio.Lock()
        self.app = web.Application(middlewares=[doorkeeper.middleware, _in_words], client_max_size=0)
        self.app.router.add_get("/", self.overview)
        self.app.router.add_get("/compare", self.compare)
        self.app.router.add_get("/g/{key}", self.group)
        self.app.router.add_get("/g/{key}/verdict", self.verdict)
        self.app.router.add_get("/g/{key}/answers", self.answers)
        self.app.router.add_get("/api/groups", self.api_groups)
        self.app.router.add_get("/api/compare", self.api_compare)
        self.app.router.add_get("/api/changed", self.api_changed)
        self.app.router.add_get("/api/g/{key}/progress", self.api_progress)
        self.app.router.add_get("/api/g/{key}/charts", self.api_charts)
        self.app.router.add_get("/api/g/{key}/answers", self.api_answers)
        self.app.router.add_get("/api/g/{key}/answer", self.api_answer)
        self.app.router.add_get("/metrics", self.metrics)
        self.app.router.add_get("/static/{name}", self.static)

    async def places(self, *, anew: bool = False) -> dict[str, GroupPlace]:
        """By key, as the folders were a moment ago; `anew`: as they are now."""
        async with self._listing:
            if anew or time.monotonic() - self._listed_at > LISTED_S:
                found = await asyncio.to_thread(group_places, self._roots)
                self._places = {place.key: place for place in found}
                self._listed_at = time.monotonic()
            return self._places

    async def _place(self, key: str) -> GroupPlace:
        place = self._places.get(key) or (await self.places(anew=True)).get(key)
        if place is None:
            raise web.HTTPNotFound(text="There is no such group in the folders that were given.\n")
        return place

    # ------------------------------------------------------------ pages

    async def overview(self, http: web.Request) -> web.Response:
        places = list((await self.places()).values())
        folders = [visible(str(root)) for root in self._roots]
        return _page("overview.html.jinja", folders=folders, places=places)

    async def group(self, http: web.Request) -> web.Response:
        place = await self._place(http.match_info["key"])
        return _page("progress.html.jinja", place=place, tab="progress")

    async def verdict(self, http: web.Request) -> web.Response:
        place = await self._place(http.match_info["key"])
        page = await self._verdict(place)
        values = {**page.page, "place": place, "tab": "verdict", "kind": page.kind, "refusal": page.refusal}
        return _page("verdict.html.jinja", **values)

    async def answers(self, http: web.Request) -> web.Response:
        place = await self._place(http.match_info["key"])
        return _page("answers.html.jinja", place=place, tab="answers")

    async def compare(self, http: web.Request) -> web.Response:
        places = await self.places()
        chosen = [places.get(http.query.get(name, "")) for name in ("a", "b")]
        readable = [place for place in places.values() if not place.problem]
        return _page("compare.html.jinja", places=readable, a=chosen[0], b=chosen[1])

    async def static(self, http: web.Request) -> web.Response:
        name = http.match_info["name"]
        if name == "vega.js":
            text = await asyncio.to_thread(vega)
            return _static(text.replace("<\\/script", "</script").encode(), "text/javascript")
        files = {each.name: each for each in resources.files("viewer.pages").joinpath("static").iterdir()}
        if name not in files or name.rpartition(".")[2] not in STATIC:
            raise web.HTTPNotFound(text="There is no such file.\n")
        return _static(files[name].read_bytes(), STATIC[name.rpartition(".")[2]])

    # ------------------------------------------------------------ data

    async def api_groups(self, http: web.Request) -> web.Response:
        places = await self.places()
        return _json(
            [{"key": each.key, "name": visible(each.name), "folder": visible(each.folder)} for each in places.values()]
        )

    async def api_progress(self, http: web.Request) -> web.Response:
        place = await self._place(http.match_info["key"])
        return _json(_shown(await self._board.progress(place)))

    async def api_charts(self, http: web.Request) -> web.Response:
        place = await self._place(http.match_info["key"])
        return _json((await self._verdict(place)).specs)

    async def api_answers(self, http: web.Request) -> web.Response:
        place = await self._place(http.match_info["key"])
        chosen = AnswerFilter.of(http.query)
        after, before = (_number(http.query.get(name)) for name in ("after", "before"))
        if chosen == AnswerFilter() and after is None and before is None:
            index = await self._shelf.within(place, SOON_S)
            if index is None:
                rows = await _read(place, lambda conn: first_rows(conn, place.name))
                return _json({"rows": rows, "whole": False})
        else:
            index = await self._shelf.index(place)

        def read(conn: sqlite3.Connection) -> dict[str, Any]:
            page = answer_page(index, masks_of(index, chosen, conn), after=after, before=before)
            rows = listed_rows(conn, index, page.rows)
            counts = {name: [[visible(each), n] for each, n in kinds] for name, kinds in page.counts.items()}
            total = index.answers.height
            return {"rows": rows, "whole": True, "n": page.n, "first": page.first, "counts": counts, "total": total}

        return _json(await _read(place, read))

    async def api_answer(self, http: web.Request) -> web.Response:
        place = await self._place(http.match_info["key"])
        request_id = http.query.get("id", "")
        return _json(await _read(place, lambda conn: answer_detail(conn, place.settings(), request_id)))

    async def api_compare(self, http: web.Request) -> web.Response:
        a, b = await self._two(http)
        return _json(await asyncio.to_thread(shared_levels, a, b))

    async def api_changed(self, http: web.Request) -> web.Response:
        a, b = await self._two(http)
        task, level, after = (http.query.get(name, "") for name in ("task", "level", "after"))
        return _json(await asyncio.to_thread(changed_answers, a, b, task, level, after=_number(after) or 0))

    async def metrics(self, http: web.Request) -> web.Response:
        places = [place for place in (await self.places()).values() if not place.problem]
        progress = [(place, await self._board.progress(place)) for place in places]
        return web.Response(body=metrics_page(progress), headers={"Content-Type": CONTENT_TYPE})

    async def _two(self, http: web.Request) -> tuple[GroupPlace, GroupPlace]:
        return await self._place(http.query.get("a", "")), await self._place(http.query.get("b", ""))

    async def _verdict(self, place: GroupPlace) -> VerdictPage:
        return await _read(place, lambda conn: verdict_page(conn, place.settings()))


async def _read(place: GroupPlace, read: Callable[[sqlite3.Connection], Answer]) -> Answer:
    """In a thread with a connection of its own."""

    def work() -> Answer:
        with opened_group(place) as conn:
            return read(conn)

    return await asyncio.to_thread(work)


@web.middleware
async def _in_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What can't be read is said in words: 400 for what was asked wrongly, 409 for what lies in the folder."""
    try:
        return await handler(request)
    except (KvtError, sqlite3.Error, OSError) as error:
        fault = explained(error)
        if fault is None:
            raise
        status = 400 if isinstance(fault, ConfigError) else 409
        return web.Response(status=status, text=visible("\n".join([fault.what, *fault.details])))


def _shown(value: Any) -> Any:
    """JSON with every text made visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(str(name)): _shown(each) for name, each in value.items()}
    return [_shown(each) for each in value] if isinstance(value, (list, tuple)) else value


def _page(template: str, **values: Any) -> web.Response:
    return web.Response(text=rendered(template, values), content_type="text/html", charset="utf-8")


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value, default=str), content_type="application/json")


def _static(body: bytes, kind: str) -> web.Response:
    """Files that change with kvt alone: a browser keeps them for its session."""
    return web.Response(
        body=body, content_type=kind, charset="utf-8", headers={"Cache-Control": "private, max-age=600"}
    )


def _number(text: str | None) -> int | None:
    if not text:
        return None
    if not text.lstrip("-").isdigit() or len(text) > 20:
        raise web.HTTPBadRequest(text="This page's place is no number.\n")
    return int(text)

"""Who may look: whoever has the token of the URL that `kvt view` printed, or the cookie that it was exchanged for.

No web page of another site gets in: Host and Origin must be this server's own (serve/access.py), the cookie is
SameSite=Strict, and every answer forbids to be framed, sniffed, cached or referred to.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable

from aiohttp import web

from kvt_async.serve.access import Access
from kvt_async.serve.api_errors import ApiError

TOKEN_VARIABLE = "KVT_VIEW_TOKEN"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HEADERS = {
    # Scripts come from files alone, and none makes code of text; Vega sets style attributes of what it draws.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "style-src-attr 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Doorkeeper:
    """Checks every request, and exchanges the token for a cookie."""

    def __init__(self, token: str | None = None, names: tuple[str, ...] = ()) -> None:
        """`token`: None makes one. `names`: what the server may be called beside this machine's own names."""
        self.token = token or secrets.token_urlsafe(32)
        self._once = {secrets.token_urlsafe(32)}  # for the browser that we open: others can see its arguments
        self._session = secrets.token_urlsafe(32)
        self._access = Access(names)

    @property
    def opening_token(self) -> str:
        """A token that works once."""
        return next(iter(self._once))

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answers what may not be answered otherwise, and sets HEADERS on everything."""
        try:
            answer = await self._checked(request, handler)
        except web.HTTPException as refusal:
            answer = web.Response(status=refusal.status, text=refusal.text, headers=refusal.headers)
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    async def _checked(self, http: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._access.check(http)
        except ApiError as stranger:
            return web.Response(status=stranger.status, text=f"{stranger}\n")
        if http.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="This page only shows: GET alone.\n", headers={"Allow": "GET, HEAD"})
        if "token" in http.query:
            return self._exchanged(http)
        if self._is_known(http):
            return await handler(http)
        return web.Response(
            status=401,
            text="Open the URL that `kvt view` printed: it has a token, which this page needs once.\n",
            headers={"WWW-Authenticate": 'Bearer realm="kvt view"'},
        )

    def _exchanged(self, http: web.Request) -> web.Response:
        """A cookie for a token, and the same address without it."""
        given = http.query["token"]
        if given in self._once:
            self._once.discard(given)
        elif not _equal(given, self.token):
            return web.Response(status=401, text="This token is not valid (any more): take the URL from kvt view.\n")
        rest = http.rel_url.without_query_params("token")
        answer = web.Response(status=303, headers={"Location": f"/{str(rest).lstrip('/')}"})
        answer.set_cookie(_cookie(http), self._session, httponly=True, samesite="Strict", path="/")
        return answer

    def _is_known(self, http: web.Request) -> bool:
        scheme, _, bearer = http.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _equal(bearer.strip(), self.token):
            return True
        return _equal(http.cookies.get(_cookie(http), ""), self._session)


def _cookie(http: web.Request) -> str:
    """Cookies don't tell ports apart, so the name does."""
    address = http.transport.get_extra_info("sockname") if http.transport is not None else None
    return f"kvt_view_{address[1] if address else 0}"


def _equal(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), known.encode())

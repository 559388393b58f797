"""What a server says of itself beside its replies: pages that are asked for once, outside of limits and retries."""

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from kvt_async.contract.errors import ServerError
from kvt_async.contract.storable import header_text, storable
from kvt_async.contract.urls import public_url, server_root, url_under
from kvt_async.engine.reply.payload import UnreadableError, parse_json
from kvt_async.engine.send.advice import TLS_ADVICE
from kvt_async.engine.send.attempt import Client
from kvt_async.engine.transport.local_lacks import cause_here, local_error
from kvt_async.engine.transport.protocol import tls_text

NAPS_S = (0.1, 0.4, 1.0)  # between two tries that failed for want of something here
PROBE_TIMEOUT_S = 2.0  # for a word of an endpoint that is set aside


class ServerPages:
    """Asks with the credentials of the base URL that a page belongs to; `known`: those that may be told ours."""

    def __init__(self, client: Client, known: Sequence[str]) -> None:
        self._client, self._known = client, list(known)

    async def get_json(self, url: str, *, timeout_s: float = 5.0) -> Any:
        """A JSON document, e.g. /v1/models, as it can be stored. Raises ServerError."""
        _, text = await self._get(url, timeout_s)
        try:
            return storable(parse_json(text))
        except UnreadableError as error:
            raise ServerError(f"the reply is {error}", where=f"GET {public_url(url)}") from None

    async def get_text(self, url: str, *, timeout_s: float = 5.0) -> str:
        """A text document, e.g. /metrics, /health. Raises ServerError."""
        _, text = await self._get(url, timeout_s)
        return text.decode("utf-8", "replace")

    async def get_headers(self, url: str, *, timeout_s: float = 5.0) -> dict[str, str]:
        """Headers of a reply, names in lower case: the Server header says who answers. Raises ServerError."""
        headers, _ = await self._get(url, timeout_s)
        return {name: header_text(value) for name, value in headers.items()}

    async def answers(self, endpoint: str) -> bool:
        """Whether an endpoint that was set aside serves again: /health, whose 404 is an answer too; 503 is none yet."""
        try:
            reply = await self._client.get(url_under(server_root(endpoint), "/health"), endpoint, PROBE_TIMEOUT_S)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False
        return reply[0] < 500

    async def _get(self, url: str, timeout_s: float) -> tuple[dict[str, str], bytes]:
        where = f"GET {public_url(url)}"
        base = next((known for known in self._known if _origin(known) == _origin(url)), None)
        try:
            status, headers, body = await self._patient_get(url, base, timeout_s)
        except TimeoutError:
            raise ServerError(f"no answer within {timeout_s:g} s", where=where) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise ServerError(tls_text(error.certificate_error), where=where, do=TLS_ADVICE) from None
        except (aiohttp.ClientError, OSError) as error:
            reason = self._client.redactor.evidence(str(error) or type(error).__name__)
            raise ServerError(reason, where=where, do="Is the server running, and is the URL right?") from None
        if status >= 300:
            evidence = self._client.redactor.evidence(body)
            raise ServerError(f"HTTP {status}" + (f": {evidence}" if evidence else ""), where=where)
        return headers, body

    async def _patient_get(self, url: str, base: str | None, timeout_s: float) -> tuple[int, dict[str, str], bytes]:
        """Client.get, again while it is this machine that can't ask. Raises LocalError where that lasts."""
        naps = iter(NAPS_S)
        while True:
            try:
                return await self._client.get(url, base, timeout_s)
            except (aiohttp.ClientError, OSError) as error:
                reason = cause_here(error)
                if reason is None:
                    raise
                nap_s = next(naps, None)
                if nap_s is None:
                    raise local_error(reason, f"GET {public_url(url)}") from None
                await asyncio.sleep(nap_s)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port

"""Exchanges over aiohttp: the default transport, and the one that others are measured against."""

import ssl
from time import perf_counter_ns

import aiohttp
from aiohttp import client_exceptions as broken

from kvt_async.contract.errors import ErrorType
from kvt_async.engine.transport.aiohttp_stamps import Broken, StampedBody, StampedConnector, StampedRequest
from kvt_async.engine.transport.exchange import Exchange
from kvt_async.engine.transport.local_lacks import cause_here
from kvt_async.engine.transport.protocol import Target, tls_text
from kvt_async.records import Headers


class AiohttpTransport:
    """An aiohttp session whose connections stamp their reads. Use inside one running loop; close it."""

    def __init__(self, connect_s: float, tls: ssl.SSLContext | bool) -> None:
        """`connect_s`: how long a new connection may take."""
        self._session = aiohttp.ClientSession(
            connector=StampedConnector(ssl=tls),
            request_class=StampedRequest,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_s, ceil_threshold=1e9),
        )

    async def close(self) -> None:
        await self._session.close()

    async def exchange(
        self, exchange: Exchange, target: Target, body: bytes, *, fresh: bool, headers: Headers = ()
    ) -> None:
        payload = StampedBody(body, exchange, fresh=fresh)
        reply: aiohttp.ClientResponse | None = None
        try:
            sent = target.with_headers(headers) if headers else target.headers
            reply = await self._session.post(target.url, data=payload, headers=sent, allow_redirects=False)
            exchange.status = reply.status
            exchange.headers = {name.lower(): value for name, value in reply.headers.items()}
            content = reply.content
            if not content.is_eof() and content.exception() is None:
                await content.wait_eof()
            if (error := content.exception()) is not None:
                raise error
            exchange.complete = True
        except Broken as error:
            if exchange.fault is None and not exchange.done_seen:
                exchange.broke(ErrorType.STREAM_CUT, str(error))
        except (aiohttp.ClientError, OSError) as error:
            if exchange.marks.start_ns is None:
                exchange.ours = cause_here(error)
            exchange.broke(*_fault(error, exchange))
        finally:
            exchange.marks.end_ns = exchange.arrived_ns if exchange.complete else perf_counter_ns()
            if payload.handler is not None:
                payload.handler.detach(exchange)
            if reply is not None and not exchange.complete:
                reply.close()


def _fault(error: Exception, exchange: Exchange) -> tuple[ErrorType, str]:
    """What an exception of aiohttp means at this point of the exchange."""
    if isinstance(error, broken.ConnectionTimeoutError):
        return ErrorType.CONNECT_TIMEOUT, "no connection in time"
    if isinstance(error, (broken.ClientConnectorCertificateError, broken.ClientConnectorSSLError, ssl.SSLError)):
        cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
        return ErrorType.TLS, tls_text(cause)
    if isinstance(error, broken.ClientConnectorDNSError):
        return ErrorType.CONNECTION, f"the name {error.host} can't be resolved"
    if isinstance(error, broken.ClientConnectorError):
        reason = error.os_error.strerror or error.os_error
        return ErrorType.CONNECTION, f"can't connect to {error.host}:{error.port}: {reason}"
    if isinstance(error, broken.ClientResponseError):
        return ErrorType.MALFORMED, f"the reply is not HTTP ({str(error.message).splitlines()[0][:100]})"
    if isinstance(error, broken.InvalidURL):
        return ErrorType.CONNECTION, "the URL is not valid"
    if exchange.status is not None:
        if isinstance(error, broken.ClientPayloadError) or exchange.bytes_received:
            return ErrorType.STREAM_CUT, "the connection closed before the reply's end"
        return ErrorType.STREAM_CUT, str(error) or type(error).__name__
    return exchange.lost_before_status(error)

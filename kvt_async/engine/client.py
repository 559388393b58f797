"""One try of one request: bytes out, bytes in, and an Attempt with true marks. No limits and no retries here."""

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
import orjson
from aiohttp import client_exceptions as broken
from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from kvt_async.contract.errors import ConfigError, ErrorType
from kvt_async.contract.settings import Engine
from kvt_async.contract.urls import public_url
from kvt_async.engine.hints import Hints, read_hints
from kvt_async.engine.kv_body import read_evidence
from kvt_async.engine.redact import SECRET_HEADER, Redactor, basic, url_credentials
from kvt_async.engine.stamps import Broken, StampedBody, StampedConnector, StampedRequest
from kvt_async.engine.verdict import Verdict, judge
from kvt_async.engine.wire import Exchange
from kvt_async.records import Attempt, Json, Marks, Reply

USER_AGENT = "kvt"


@dataclass(frozen=True, slots=True)
class Tried:
    """An attempt and what the policy wants to know about it beyond what is stored."""

    attempt: Attempt
    hints: Hints = field(default_factory=Hints)
    stale: bool = False  # a pooled connection was found closed before anything of the reply came
    code: int | None = None  # status that an error object under 200 claims


class Client:
    """An aiohttp session whose connections stamp their reads. Use inside one running loop; close it."""

    def __init__(self, engine: Engine, key: SecretStr | None) -> None:
        """Raises ConfigError for a CA file, a header or a key that can't be used."""
        self.engine, self._key = engine, key
        for name, value in engine.headers.items():
            _check_header(value, f"engine.headers.{name}")
        if key is not None:
            _check_header(key.get_secret_value(), f"the key in {engine.api_key_env}")
        self._urls: dict[tuple[str, str], tuple[URL, CIMultiDict[str], str]] = {}
        self._secrets = [key.get_secret_value()] if key else []
        for name, value in engine.headers.items():
            if SECRET_HEADER.search(name):
                self._secrets += [value, value.rpartition(" ")[2]]
        self.redactor = Redactor(self._secrets, engine.headers.values())
        self._tls = tls_context(engine.ca_file)
        self._timeout = aiohttp.ClientTimeout(total=None, connect=engine.timeouts.connect_s, ceil_threshold=1e9)
        self._session = aiohttp.ClientSession(
            connector=StampedConnector(ssl=self._tls),
            request_class=StampedRequest,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=self._timeout,
        )

    async def close(self) -> None:
        await self._session.close()

    def headers(self, base_url: str) -> CIMultiDict[str]:
        """What every request to this server carries. Credentials: engine.headers, else the URL's own, else the key."""
        headers = CIMultiDict(
            {
                "Accept": "text/event-stream, application/json",
                "Accept-Encoding": "identity",  # a compressor holds events back
                "Content-Type": "application/json",
                "User-Agent": USER_AGENT,
            }
        )
        if (found := url_credentials(base_url)) is not None:
            headers["Authorization"] = basic(*found)
            self._learn(found[1], headers["Authorization"].rpartition(" ")[2])
        elif self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        headers.update(self.engine.headers)
        return headers

    async def attempt(
        self,
        endpoint: str,
        path: str,
        body: bytes,
        *,
        marks: Marks | None = None,
        attempt_idx: int = 0,
        series_idx: int = 0,
        expects: Json | None = None,
        fresh: bool = False,
        cancelled: list[Attempt] | None = None,
    ) -> Tried:
        """Send once and read to the end. Raises nothing but bugs and CancelledError: failures are attempts.

        `fresh`: not over a pooled connection. A cancelled attempt that had reached the wire is left in `cancelled`.
        """
        exchange = Exchange(marks=marks or Marks())
        url, headers, public = self._target(endpoint, path)
        started_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        began_ns = time.perf_counter_ns()

        def attempt_of(verdict: Verdict, hints: Hints) -> Attempt:
            transcript, ok = verdict.transcript, verdict.error is None
            end_ns = exchange.marks.end_ns or time.perf_counter_ns()
            return Attempt(
                attempt_idx=attempt_idx,
                series_idx=series_idx,
                started_at=started_at,
                endpoint=public,
                http_status=exchange.status,
                end_state=verdict.end_state,
                error_type=verdict.error,
                error_message=verdict.message,
                partial_text=None if ok else self.redactor.text(transcript.text) or None,
                retry_after_s=hints.retry_after_s,
                latency_s=max(0, end_ns - (exchange.marks.start_ns or began_ns)) / 1e9,
                marks=exchange.marks,
                reply=self._reply(exchange, verdict, expects or {}) if ok else None,
            )

        try:
            await self._exchange(exchange, url, headers, body, fresh)
            verdict = await judge(exchange, self.redactor, store_chunks=self.engine.store_chunks)
        except asyncio.CancelledError:
            exchange.fault, exchange.fault_text = ErrorType.CANCELLED, "cancelled by us"
            if cancelled is not None and exchange.marks.start_ns is not None:
                exchange.marks.end_ns = exchange.marks.end_ns or time.perf_counter_ns()
                cancelled.append(attempt_of(_cancelled(exchange, self.redactor), Hints()))
            raise
        hints = read_hints(exchange.headers) if verdict.error is not None else Hints()
        return Tried(attempt_of(verdict, hints), hints, exchange.stale, verdict.code)

    async def get(self, url: str, known_as: str | None, timeout_s: float) -> tuple[int, dict[str, str], bytes]:
        """(status, headers in lower case, body) of a GET, secrets replaced.

        Raises aiohttp.ClientError, OSError or TimeoutError.

        `known_as`: the base URL whose credentials go with it; None: none do.
        """
        headers = self.headers(known_as) if known_as else CIMultiDict[str]()
        if (found := url_credentials(url)) is not None:
            headers["Authorization"] = basic(*found)
        limit = aiohttp.ClientTimeout(total=timeout_s, ceil_threshold=1e9)
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=limit,
            ) as session,
            session.get(URL(public_url(url)), headers=headers, allow_redirects=False) as reply,
        ):
            hide = self.redactor.document
            shown = {k.lower(): hide(v.encode("utf-8", "surrogateescape")) for k, v in reply.headers.items()}
            body = hide(await reply.read())
            return reply.status, {k: v.decode("utf-8", "surrogateescape") for k, v in shown.items()}, body

    async def _exchange(
        self, exchange: Exchange, url: URL, headers: CIMultiDict[str], body: bytes, fresh: bool
    ) -> None:
        payload = StampedBody(body, exchange, self.engine.timeouts, fresh=fresh)
        reply: aiohttp.ClientResponse | None = None
        try:
            reply = await self._session.post(url, data=payload, headers=headers, allow_redirects=False)
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
            exchange.broke(*_fault(error, exchange))
        finally:
            exchange.marks.end_ns = exchange.arrived_ns if exchange.complete else time.perf_counter_ns()
            exchange.marks.bytes_received = exchange.bytes_received
            exchange.marks.stamp_source = "transport" if exchange.marks.first_byte_kernel_ns is None else "kernel"
            if payload.handler is not None:
                payload.handler.detach(exchange)
            if reply is not None and not exchange.complete:
                reply.close()

    def _target(self, endpoint: str, path: str) -> tuple[URL, CIMultiDict[str], str]:
        found = self._urls.get((endpoint, path))
        if found is None:
            try:
                url = URL(public_url(endpoint) + path)
            except ValueError as error:
                raise ConfigError(f"not a valid URL: {error}", where="engine.base_url or kv.apply.endpoints") from None
            found = self._urls[endpoint, path] = (url, self.headers(endpoint), public_url(endpoint))
        return found

    def _reply(self, exchange: Exchange, verdict: Verdict, expects: Json) -> Reply:
        transcript = verdict.transcript
        evidence, effective = read_evidence(expects, transcript.usage, exchange.headers) if expects else (None, None)
        text, reasoning, usage = transcript.text, transcript.reasoning_text, _storable(transcript.usage)
        if self.redactor.hit(exchange.raw_body()) or self.redactor.hit(text.encode()):
            text = self.redactor.text(text)
            reasoning = self.redactor.text(reasoning) if reasoning else reasoning
            usage, evidence = self.redactor.json(usage), self.redactor.json(evidence)
        return Reply(text, reasoning, transcript.finish_reason, usage, evidence, effective)

    def _learn(self, *secrets: str) -> None:
        self._secrets.extend(secrets)
        self.redactor = Redactor(self._secrets, self.engine.headers.values())


def tls_context(ca_file: str | None) -> ssl.SSLContext | bool:
    """The system's certificates, and those of `ca_file`. Raises ConfigError when it can't be used."""
    if ca_file is None:
        return True
    try:
        context = ssl.create_default_context()
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or "it holds no certificate in PEM form"
        raise ConfigError(f"the CA file can't be used: {reason}", where=f"engine.ca_file {ca_file}") from None
    return context


def _check_header(value: str, where: str) -> None:
    """Raises ConfigError, without the value, for what no HTTP header can hold."""
    if any(ord(char) < 32 or ord(char) > 255 or ord(char) == 127 for char in value):
        raise ConfigError(
            "it holds a line break or another character that no HTTP header can carry",
            where=where,
            do="A key copied with its line end is the usual cause.",
        )


def _fault(error: Exception, exchange: Exchange) -> tuple[ErrorType, str]:
    """What an exception of the transport means at this point of the exchange."""
    if isinstance(error, broken.ConnectionTimeoutError):
        return ErrorType.CONNECT_TIMEOUT, "no connection in time"
    if isinstance(error, (broken.ClientConnectorCertificateError, broken.ClientConnectorSSLError, ssl.SSLError)):
        cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
        return (
            ErrorType.TLS,
            f"TLS: {getattr(cause, 'verify_message', None) or getattr(cause, 'reason', None) or cause}",
        )
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
    where = "before the first byte of a reply" if not exchange.bytes_received else "inside the reply's head"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else "closed by the server"
    return ErrorType.CONNECTION, f"the connection was lost {where}: {reason}"


def _cancelled(exchange: Exchange, redactor: Redactor) -> Verdict:
    """Judge what had come, without giving up the loop: we are being cancelled."""
    judging = judge(exchange, redactor, store_chunks=False)
    while True:
        try:
            judging.send(None)
        except StopIteration as done:
            verdict: Verdict = done.value
            return verdict


def _storable(usage: Json | None) -> Json | None:
    try:
        orjson.dumps(usage)
    except TypeError:
        return {"unreadable": ascii(usage)[:200]}
    return usage

"""One try of one request: bytes out, bytes in, and an Attempt with true marks. No limits and no retries here."""

import asyncio
import ssl
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
from msgspec import Struct
from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from kvt_async.bug_reports import BugReports
from kvt_async.clock import utc_now
from kvt_async.contract.errors import ConfigError, EndState, ErrorType, LocalError
from kvt_async.contract.secrets import NONE, Secrets
from kvt_async.contract.settings import EngineSettings
from kvt_async.contract.timeouts import SLOW_TOKENS_PER_S
from kvt_async.contract.urls import bare_url, public_url, query_values, url_under
from kvt_async.contract.variables import TELLING_HEADER, TELLING_QUERY
from kvt_async.engine.reply.classify import Verdict, judge, reading_of
from kvt_async.engine.reply.long_replies import LongReplies
from kvt_async.engine.reply.payload import json_or_none
from kvt_async.engine.reply.redact import Redactor, basic, url_credentials
from kvt_async.engine.reply.retry_headers import read_hints
from kvt_async.engine.reply.token_counts import with_drafts
from kvt_async.engine.request.kv_evidence import read_evidence
from kvt_async.engine.send.tried import Tried
from kvt_async.engine.transport.aiohttp_transport import AiohttpTransport
from kvt_async.engine.transport.exchange import Exchange, ReplyTimeouts
from kvt_async.engine.transport.protocol import Target, Transport
from kvt_async.records import Attempt, Headers, Json, Marks, Reply

USER_AGENT = "kvt"
MOST_PAGE_BYTES = 8 * 1024 * 1024  # of what a server says of itself, inflated
LARGEST_ERROR = 65_536  # bytes of a refusal's body that is searched for a wait


class Client:
    """A transport, and what its exchanges mean. Use inside one running loop; close it."""

    def __init__(
        self, engine: EngineSettings, key: SecretStr | None, secrets: Secrets = NONE, bugs: BugReports | None = None
    ) -> None:
        """`secrets`: what must not be stored of a reply, beside the key and the credentials in headers and URLs.
        `bugs`: where a reply that can't be read is reported; None: in the working directory.

        Raises ConfigError for a CA file, a header or a key that can't be used."""
        self.engine, self._key = engine, key
        for name, value in engine.headers.items():
            _check_header(value, f"engine.headers.{name}")
        if key is not None:
            _check_header(key.get_secret_value(), f"the key in {engine.api_key_env}")
        self._targets: dict[tuple[str, str], Target] = {}
        self._long = LongReplies()
        telling = [value for name, value in engine.headers.items() if TELLING_HEADER.search(name)]
        words = (value.rpartition(" ")[2] for value in telling)
        self._secrets = secrets.and_also(key.get_secret_value() if key else None, *telling, *words)
        self._private = list(engine.headers.values())
        self.redactor = Redactor(self._secrets, self._private)
        self.bugs = bugs or BugReports(Path())
        self.bugs.secrets = self._secrets
        self._tls = tls_context(engine.ca_file)
        self._transport = _transport(engine, self._tls)

    async def close(self) -> None:
        await self._transport.close()

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
        if (credentials := url_credentials(base_url)) is not None:
            headers["Authorization"] = basic(*credentials)
            self._learn(credentials[1], headers["Authorization"].rpartition(" ")[2])
        elif self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        for name, value in query_values(base_url):
            if TELLING_QUERY.search(name):
                self._learn(value)
            elif "version" not in name.lower():
                self._learn(private=value)
        headers.update(self.engine.headers)
        return headers

    async def attempt(
        self,
        endpoint: str,
        path: str,
        body: bytes,
        headers: Headers = (),
        *,
        marks: Marks | None = None,
        attempt_idx: int = 0,
        series_idx: int = 0,
        expects: Json | None = None,
        max_tokens: int = 1,
        fresh: bool = False,
        cancelled: list[Attempt] | None = None,
    ) -> Tried:
        """Send once and read to the end. Raises nothing but bugs and CancelledError: failures are attempts.

        `headers`: the request's own, beside those that every request to this server carries. `max_tokens`: that the
        answer may have, for the time that it may take.
        `fresh`: not over a pooled connection. A cancelled attempt that had reached the wire is left in `cancelled`.
        """
        marks = marks or Marks()
        exchange = Exchange(marks, self._timeouts(max_tokens), self._long.grown)
        target = self._targets.get((endpoint, path)) or self._target(endpoint, path)
        own = _Own(attempt_idx, series_idx, utc_now(), time.perf_counter_ns())
        try:
            try:
                await self._transport.exchange(exchange, target, body, fresh=fresh, headers=headers)
            finally:
                marks.bytes_received = exchange.bytes_received
                marks.stamp_source = "kernel" if exchange.kernel_ns else "transport"
            reading = self._long.ended(exchange) or reading_of(exchange)
            while reading is not None and reading.goes_on():  # noqa: ASYNC110 - it reads; nobody else would
                await asyncio.sleep(0)  # other streams get their turn
            verdict = judge(exchange, reading, self.redactor, store_chunks=self.engine.store_chunks)
            if verdict.error is None:
                return Tried(self._answered(exchange, target, verdict, own, expects))
            hints = read_hints(exchange.headers, body=_error_body(exchange, verdict))
            attempt = self._failed(exchange, target, verdict, hints.retry_after_s, own)
            return Tried(attempt, hints, exchange.stale, verdict.code, verdict.cause, exchange.ours)
        except asyncio.CancelledError:
            exchange.fault, exchange.fault_text = ErrorType.CANCELLED, "cancelled by us"
            if cancelled is not None and marks.start_ns is not None:
                marks.end_ns = marks.end_ns or time.perf_counter_ns()
                cancelled.append(self._failed(exchange, target, self._cancelled(exchange), None, own))
            raise
        except MemoryError:
            raise LocalError(
                "this machine has no memory left to read a reply with",
                where=target.public,
                do="Lower limits.concurrency, or give this process more memory, and run the same command again.",
            ) from None
        except Exception as error:
            self._long.ended(exchange)
            return Tried(self._failed(exchange, target, self._unread(error, exchange), None, own))

    def _timeouts(self, max_tokens: int) -> ReplyTimeouts:
        """A reply that isn't streamed has no first byte until all of it is made."""
        limits = self.engine.timeouts
        making_s = max_tokens / SLOW_TOKENS_PER_S if limits.total_s == "auto" and not self.engine.stream else 0.0
        return ReplyTimeouts(max(limits.ttfb_s, making_s), limits.idle_s, limits.answer_s(max_tokens))

    def _cancelled(self, exchange: Exchange) -> Verdict:
        """Judge what had come, without giving up the loop: we are being cancelled."""
        try:
            reading = self._long.ended(exchange) or reading_of(exchange)
            while reading is not None and reading.goes_on():
                pass
            return judge(exchange, reading, self.redactor, store_chunks=False)
        except Exception:  # what had come can't be read: it is thrown away, as the rest would have been
            return Verdict(EndState.CANCELLED, ErrorType.CANCELLED, exchange.fault_text)

    def _unread(self, error: Exception, exchange: Exchange) -> Verdict:
        """A reply that reading it did not survive costs its request, not the run."""
        if isinstance(error, RecursionError):
            return Verdict(EndState.MALFORMED, ErrorType.MALFORMED, "the reply is nested too deeply to be read")
        facts = [f"status {exchange.status}, {exchange.body_bytes} bytes in {len(exchange.pieces)} reads"]
        with suppress(Exception):  # the reader of evidence may be what failed
            facts += [
                f"headers: {sorted(exchange.headers)!a:.1000}",
                ascii(self.redactor.evidence(exchange.edge())),
            ]
        report = self.bugs(error, "a reply that could not be read", *facts)
        message = (
            f"kvt failed to read the reply ({type(error).__name__}; a bug of kvt: see {report} beside the database)"
        )
        return Verdict(EndState.MALFORMED, ErrorType.MALFORMED, message)

    def _answered(
        self, exchange: Exchange, target: Target, verdict: Verdict, own: "_Own", expects: Json | None
    ) -> Attempt:
        transcript, marks = verdict.transcript, exchange.marks
        usage, evidence, effective = transcript.usage, None, None
        if expects:
            evidence, effective = read_evidence(expects, usage, exchange.headers)
        if transcript.timings is not None:
            usage = with_drafts(usage, transcript.timings)
        text, reasoning = transcript.text, transcript.reasoning_text
        finish_reason, redactor = transcript.finish_reason, self.redactor
        calls = transcript.tool_calls if transcript.tools else None
        if redactor.active and (
            finish_reason == "length" or redactor.holds(text, reasoning, finish_reason, usage, evidence, calls)
        ):
            text, reasoning = redactor.clipped(text), redactor.clipped(reasoning) if reasoning else reasoning
            finish_reason = redactor.clipped(finish_reason) if finish_reason else finish_reason
            usage, evidence = redactor.json(usage), redactor.json(evidence)
            calls = redactor.calls(calls) if calls else calls
        reply = Reply(text, reasoning, finish_reason, usage, evidence, effective, calls)
        return Attempt(
            own.attempt_idx,
            own.series_idx,
            own.started_at,
            target.public,
            exchange.status,
            verdict.end_state,
            None,
            None,
            None,
            None,
            _latency_s(marks, own),
            marks,
            reply,
        )

    def _failed(
        self, exchange: Exchange, target: Target, verdict: Verdict, retry_after_s: float | None, own: "_Own"
    ) -> Attempt:
        return Attempt(
            attempt_idx=own.attempt_idx,
            series_idx=own.series_idx,
            started_at=own.started_at,
            endpoint=target.public,
            http_status=exchange.status,
            end_state=verdict.end_state,
            error_type=verdict.error,
            error_message=self.redactor.text(verdict.message) if verdict.message else verdict.message,
            partial_text=self.redactor.clipped(verdict.transcript.text) or None,
            retry_after_s=retry_after_s,
            latency_s=_latency_s(exchange.marks, own),
            marks=exchange.marks,
        )

    async def get(self, url: str, known_as: str | None, timeout_s: float) -> tuple[int, dict[str, str], bytes]:
        """(status, headers in lower case, body) of a GET, secrets replaced.

        Raises aiohttp.ClientError (for a page of over MOST_PAGE_BYTES too), OSError or TimeoutError.

        `known_as`: the base URL whose credentials go with it; None: none do.
        """
        headers = self.headers(known_as) if known_as else CIMultiDict[str]()
        headers["Accept-Encoding"] = "identity"
        if (credentials := url_credentials(url)) is not None:
            headers["Authorization"] = basic(*credentials)
        limit = aiohttp.ClientTimeout(total=timeout_s, ceil_threshold=1e9)
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=limit,
                auto_decompress=False,  # it knows no bound
            ) as session,
            session.get(URL(bare_url(url)), headers=headers, allow_redirects=False) as reply,
        ):
            hide = self.redactor.document
            shown = {k.lower(): hide(v.encode("utf-8", "surrogateescape")) for k, v in reply.headers.items()}
            body = hide(await _page(reply))
            return reply.status, {k: v.decode("utf-8", "surrogateescape") for k, v in shown.items()}, body

    def _target(self, endpoint: str, path: str) -> Target:
        try:
            url = URL(url_under(bare_url(endpoint), path))
        except ValueError as error:
            raise ConfigError(f"not a valid URL: {error}", where="engine.base_url or kv.apply.endpoints") from None
        target = self._targets[endpoint, path] = Target(url, self.headers(endpoint), public_url(endpoint))
        return target

    def _learn(self, *secrets: str, private: str = "") -> None:
        self._secrets = self._secrets.and_also(*secrets)
        self._private.append(private)
        self.bugs.secrets = self._secrets
        self.redactor = Redactor(self._secrets, self._private)


async def _page(reply: aiohttp.ClientResponse) -> bytes:
    """The body of a reply, inflated where it came deflated. Raises ClientPayloadError for one that is too long."""
    encoding = reply.headers.get("Content-Encoding", "").strip().lower()
    inflate = zlib.decompressobj(47) if encoding in ("gzip", "x-gzip", "deflate") else None
    body = bytearray()
    async for data in reply.content.iter_any():
        try:
            body += data if inflate is None else inflate.decompress(data, MOST_PAGE_BYTES - len(body) + 1)
        except zlib.error as error:
            raise aiohttp.ClientPayloadError(f"the reply is encoded as {encoding!r}, and broken: {error}") from None
        if len(body) > MOST_PAGE_BYTES:
            raise aiohttp.ClientPayloadError(f"the reply is longer than {MOST_PAGE_BYTES >> 20} MiB")
    return bytes(body)


def _error_body(exchange: Exchange, verdict: Verdict) -> Any:
    """What the server's error says, parsed; None: it says nothing that could name a wait."""
    if verdict.transcript.error is not None:
        return verdict.transcript.error
    is_refusal = (exchange.status or 0) >= 400 and exchange.body_bytes <= LARGEST_ERROR
    return json_or_none(exchange.raw_body()) if is_refusal else None


class _Own(Struct, frozen=True, gc=False):
    """What an attempt is before anything of it has happened."""

    attempt_idx: int
    series_idx: int
    started_at: str
    began_ns: int


def _latency_s(marks: Marks, own: _Own) -> float:
    """The whole try: from the first byte written, or from when we began where none was."""
    return max(0, (marks.end_ns or time.perf_counter_ns()) - (marks.start_ns or own.began_ns)) / 1e9


def _transport(engine: EngineSettings, tls: ssl.SSLContext | bool) -> Transport:
    """Raises ConfigError for a header that the lean transport doesn't send."""
    if engine.transport == "lean":
        from kvt_async.engine.transport.lean import LeanTransport

        return LeanTransport(engine, tls)
    return AiohttpTransport(engine.timeouts.connect_s, tls)


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

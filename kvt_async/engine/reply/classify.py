"""An Exchange -> how it ended, in the words of contract/errors.py, and what it said."""

import zlib
from functools import lru_cache

from msgspec import Struct, field

from kvt_async.contract.errors import EndState, ErrorType
from kvt_async.engine.reply import error_types
from kvt_async.engine.reply.payload import UnreadableError, as_evidence, json_or_none, parse_json
from kvt_async.engine.reply.redact import Redactor
from kvt_async.engine.reply.stream_reader import Reading
from kvt_async.engine.reply.token_counts import token_counts
from kvt_async.engine.reply.transcript import Transcript
from kvt_async.engine.transport.exchange import MAX_REPLY_BYTES, Exchange

_TIMEOUTS = (ErrorType.CONNECT_TIMEOUT, ErrorType.TTFB_TIMEOUT, ErrorType.IDLE_TIMEOUT, ErrorType.TOTAL_TIMEOUT)
_FIELDS = (b"data:", b"event:", b"error:", b"id:", b"retry:", b":")  # of an event stream
_SNIFFED = ("", "text/plain", "application/octet-stream")  # content types that say nothing


class Verdict(Struct, frozen=True, gc=False):
    """`error` None: the attempt gave the reply in `transcript`."""

    end_state: EndState
    error: ErrorType | None = None
    message: str | None = None
    code: int | None = None  # HTTP status that an error object under status 200 claims
    transcript: Transcript = field(default_factory=Transcript)
    cause: error_types.Cause | None = None  # why the refusal says nothing about the request


def reading_of(exchange: Exchange) -> Reading | None:
    """What must be read to its end before `judge`; None: it was no stream."""
    status = exchange.status
    if status is None or status >= 300 or status < 200:
        return None
    if "content-encoding" in exchange.headers:
        exchange.undecodable = _decompress(exchange)
    return Reading(exchange) if exchange.undecodable is None and _kind(exchange) == "sse" else None


def judge(exchange: Exchange, reading: Reading | None, redactor: Redactor, *, store_chunks: bool) -> Verdict:
    """Fill the marks that needed reading, and say how the exchange ended. `reading`: of this exchange, done."""
    if reading is not None:
        return _stream(exchange, reading, redactor, store_chunks)
    if exchange.status is None:
        return _no_reply(exchange, redactor)
    if exchange.status >= 300 or exchange.status < 200:
        return _refused(exchange, redactor)
    if exchange.undecodable is not None:
        return Verdict(EndState.MALFORMED, ErrorType.MALFORMED, exchange.undecodable)
    if _kind(exchange) == "json":
        return _whole(exchange, redactor)
    if exchange.fault is not None and not exchange.body_bytes:
        return _broken(exchange, Transcript(), redactor)
    content_type = _media_type(exchange.headers.get("content-type", ""))
    what = f"status {exchange.status} with content type {content_type or 'none'!r}"
    return Verdict(
        EndState.MALFORMED,
        ErrorType.MALFORMED,
        _with_evidence(f"neither a stream nor JSON ({what})", exchange.raw_body(), redactor),
        cause="host",
    )


def _no_reply(exchange: Exchange, redactor: Redactor) -> Verdict:
    fault = exchange.fault or ErrorType.CONNECTION
    message = _with_evidence(redactor.evidence(exchange.fault_text or "no reply came"), exchange.head, redactor)
    if fault is ErrorType.CANCELLED:
        return Verdict(EndState.CANCELLED, fault, message)
    if fault in _TIMEOUTS:
        return Verdict(EndState.TIMEOUT, fault, message)
    if fault is ErrorType.MALFORMED:
        return Verdict(EndState.MALFORMED, fault, message)
    return Verdict(EndState.NOT_CONNECTED if exchange.marks.start_ns is None else EndState.CUT, fault, message)


def _refused(exchange: Exchange, redactor: Redactor) -> Verdict:
    assert exchange.status is not None
    if exchange.fault is ErrorType.CANCELLED:
        return Verdict(EndState.CANCELLED, ErrorType.CANCELLED, exchange.fault_text)
    _decompress(exchange)
    raw = exchange.raw_body()
    body = json_or_none(raw)
    text = raw[:4096].decode("utf-8", "replace")
    if 300 <= exchange.status < 400:
        target = redactor.evidence(exchange.headers.get("location", "nowhere"))
        message = f"HTTP {exchange.status}: redirect to {target} refused; write the final URL in engine.base_url"
        return Verdict(EndState.HTTP_ERROR, ErrorType.HTTP, message, cause="host")
    error = error_types.of_status(exchange.status, body, text)
    cause = error_types.cause_of(error, exchange.status, body, text)
    message = _with_evidence(f"HTTP {exchange.status}", raw, redactor)
    return Verdict(EndState.HTTP_ERROR, error, message, cause=cause)


def _whole(exchange: Exchange, redactor: Redactor) -> Verdict:
    transcript, raw = Transcript(), exchange.raw_body()
    if exchange.fault is not None:
        return _broken(exchange, transcript, redactor)
    try:
        transcript.add_whole(parse_json(raw))
    except UnreadableError as error:
        message = _with_evidence(str(error), raw, redactor)
        return Verdict(EndState.MALFORMED, ErrorType.MALFORMED, message, transcript=transcript)
    if transcript.error is not None:
        return _error_object(transcript, redactor)
    exchange.marks.n_events = 0
    return _accepted(EndState.JSON, exchange, transcript)


def _stream(exchange: Exchange, reading: Reading, redactor: Redactor, store_chunks: bool) -> Verdict:
    reading.fill(store_chunks=store_chunks)
    marks, transcript = exchange.marks, reading.transcript

    if exchange.fault is ErrorType.CANCELLED:
        return Verdict(EndState.CANCELLED, ErrorType.CANCELLED, exchange.fault_text, transcript=transcript)
    if transcript.error is not None:
        return _error_object(transcript, redactor)
    if (error := reading.unreadable) is not None:
        message = _with_evidence(str(error), error.payload, redactor)
        return Verdict(EndState.MALFORMED, ErrorType.MALFORMED, message, transcript=transcript)
    if transcript.complaint is not None and not transcript.ended:
        transcript.error = transcript.complaint
        return _error_object(transcript, redactor)
    if marks.done_ns is not None:
        if transcript.finish_reason is not None or transcript.n_chunks or transcript.tools:
            return _accepted(EndState.DONE, exchange, transcript)
        message = _with_evidence("[DONE] came, but no text and no finish_reason", exchange.edge(), redactor)
        return Verdict(EndState.MALFORMED, ErrorType.MALFORMED, message, transcript=transcript)
    if transcript.ended:
        return _accepted(EndState.EOF_FINISHED, exchange, transcript)
    if exchange.fault is not None:
        return _broken(exchange, transcript, redactor)
    what = "the stream ended with neither [DONE] nor a finish_reason that ends a reply"
    if transcript.last_word is not None:
        what += f" (the last was {redactor.evidence(transcript.last_word)!r})"
    message = _with_evidence(what, exchange.edge(last=True), redactor, last=True)
    return Verdict(EndState.EOF_NO_DONE, ErrorType.STREAM_CUT, message, transcript=transcript)


def _accepted(end_state: EndState, exchange: Exchange, transcript: Transcript) -> Verdict:
    if transcript.usage is not None:
        marks = exchange.marks
        marks.prompt_tokens, marks.completion_tokens, marks.cached_tokens = token_counts(transcript)
    return Verdict(end_state, transcript=transcript)


def _error_object(transcript: Transcript, redactor: Redactor) -> Verdict:
    error = transcript.error
    said = error if isinstance(error, str) else error_types.message_of(error) or ""
    raw = error if isinstance(error, str) else as_evidence(error).decode()
    message = f"the server reported an error inside its reply: {redactor.evidence(raw)}"
    kind, code = error_types.of_event(error, f"{said} {raw}"), error_types.code_of(error)
    return Verdict(EndState.ERROR_EVENT, kind, message, code, transcript, error_types.cause_of(kind, code, error, raw))


def _broken(exchange: Exchange, transcript: Transcript, redactor: Redactor) -> Verdict:
    fault = exchange.fault or ErrorType.STREAM_CUT
    text = redactor.evidence(exchange.fault_text)
    if fault in _TIMEOUTS:
        return Verdict(EndState.TIMEOUT, fault, text, transcript=transcript)
    if fault is ErrorType.CANCELLED:
        return Verdict(EndState.CANCELLED, fault, text, transcript=transcript)
    if fault is ErrorType.MALFORMED:
        message = _with_evidence(text, exchange.edge(), redactor)
        return Verdict(EndState.MALFORMED, fault, message, transcript=transcript)
    message = _with_evidence(f"the reply broke off ({text})", exchange.edge(last=True), redactor, last=True)
    return Verdict(EndState.CUT, ErrorType.STREAM_CUT, message, transcript=transcript)


def _kind(exchange: Exchange) -> str | None:
    content_type, body = _media_type(exchange.headers.get("content-type", "")), exchange.raw_body()
    if content_type == "text/event-stream" and body.startswith(b"data:"):
        return "sse"
    head = body[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if content_type == "text/event-stream":
        return "json" if head.startswith((b"{", b"[")) else "sse"  # an error object under the stream's content type
    is_json = content_type == "application/json" or content_type.endswith("+json")
    if (is_json or content_type in _SNIFFED) and head.startswith(_FIELDS):
        return "sse"
    if is_json or (content_type in _SNIFFED and head.startswith((b"{", b"["))):
        return "json"
    return None


@lru_cache(64)
def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _decompress(exchange: Exchange) -> str | None:
    """Undo a content encoding we did not ask for; the sentence to fail with where that can't be done."""
    encoding = exchange.headers.get("content-encoding")
    if encoding is None or (encoding := encoding.strip().lower()) in ("", "identity"):
        return None
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return f"the reply is encoded as {encoding!r}, though identity was asked for"
    inflate, size = zlib.decompressobj(47), 0
    pieces: list[bytes] = []
    try:
        for data in exchange.pieces:
            part = inflate.decompress(data, MAX_REPLY_BYTES - size + 1)
            size += len(part)
            if size > MAX_REPLY_BYTES:
                return "the reply inflates to more than 64 MiB"
            pieces.append(part)
    except zlib.error as error:
        return f"the reply is encoded as {encoding!r}, though identity was asked for, and broken: {error}"
    exchange.pieces, exchange.joined, exchange.body_bytes = pieces, None, size
    exchange.headers = {name: value for name, value in exchange.headers.items() if name != "content-encoding"}
    return None


def _with_evidence(what: str, raw: bytes, redactor: Redactor, *, last: bool = False) -> str:
    """`last`: the last bytes, which say more of a break than the first."""
    evidence = redactor.evidence(raw, last=last)
    return f"{what}: {evidence}" if evidence else what

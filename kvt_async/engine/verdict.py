"""An Exchange -> how it ended and what it said. The JSON of a reply is read here, after its last byte: work between the
bytes of one stream shows up in the latencies of all others."""

import asyncio
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from kvt_async.contract.chunks import encode_chunks
from kvt_async.contract.errors import EndState, ErrorType
from kvt_async.engine import faults
from kvt_async.engine.redact import Redactor
from kvt_async.engine.shape import Shape, learn, texts_of
from kvt_async.engine.sse import Event, SseDecoder
from kvt_async.engine.transcript import Transcript, UnreadableError, count, parse_json
from kvt_async.engine.wire import EVIDENCE_BYTES, MAX_REPLY_BYTES, Exchange

SLICE = 64  # events parsed before other streams get their turn: a fifth of a millisecond
LEARN_AFTER = 2  # text chunks; finding the shape of a stream costs as much as reading a few events whole
_TIMEOUTS = (ErrorType.CONNECT_TIMEOUT, ErrorType.TTFB_TIMEOUT, ErrorType.IDLE_TIMEOUT, ErrorType.TOTAL_TIMEOUT)
_SNIFFED = ("", "text/plain", "application/octet-stream")  # content types that say nothing


@dataclass(slots=True)
class Verdict:
    """`error` None: the attempt gave the reply in `transcript`."""

    end_state: EndState
    error: ErrorType | None = None
    message: str | None = None
    code: int | None = None  # HTTP status that an error object under status 200 claims
    transcript: Transcript = field(default_factory=Transcript)


async def judge(exchange: Exchange, redactor: Redactor, *, store_chunks: bool) -> Verdict:
    """Read what came, fill the marks that need reading, and say how it ended."""
    if exchange.status is None:
        return _no_reply(exchange, redactor)
    if exchange.status >= 300 or exchange.status < 200:
        return _refused(exchange, redactor)
    if (problem := _decompress(exchange)) is not None:
        return Verdict(EndState.MALFORMED, ErrorType.MALFORMED, problem)
    kind = _kind(exchange)
    if kind == "sse":
        return await _stream(exchange, redactor, store_chunks)
    if kind == "json":
        return _whole(exchange, redactor)
    if exchange.fault is not None and not exchange.body_bytes:
        return _broken(exchange, Transcript(), redactor)
    what = f"status {exchange.status} with content type {exchange.content_type() or 'none'!r}"
    return Verdict(
        EndState.MALFORMED,
        ErrorType.MALFORMED,
        _with_evidence(f"neither a stream nor JSON ({what})", exchange.raw_body(), redactor),
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
    body = _json_or_none(raw)
    text = raw[:4096].decode("utf-8", "replace")
    if 300 <= exchange.status < 400:
        target = redactor.evidence(exchange.headers.get("location", "nowhere"))
        message = f"HTTP {exchange.status}: redirect to {target} refused; write the final URL in engine.base_url"
        return Verdict(EndState.HTTP_ERROR, ErrorType.HTTP, message)
    error = faults.of_status(exchange.status, body, text)
    return Verdict(EndState.HTTP_ERROR, error, _with_evidence(f"HTTP {exchange.status}", raw, redactor))


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


async def _stream(exchange: Exchange, redactor: Redactor, store_chunks: bool) -> Verdict:
    marks, transcript, unreadable = exchange.marks, Transcript(), None
    reading = _Reading(transcript)
    try:
        for at_ns, events in _by_read(exchange):
            for start in range(0, len(events), SLICE):
                reading.take(events[start : start + SLICE], at_ns)
                if len(events) > SLICE or reading.since_yield >= SLICE:
                    reading.since_yield = 0
                    await asyncio.sleep(0)
            if reading.done_ns is not None:
                break
    except UnreadableError as error:
        unreadable = _with_evidence(str(error), error.payload, redactor)
    _fill(exchange, reading, store_chunks)

    if exchange.fault is ErrorType.CANCELLED:
        return Verdict(EndState.CANCELLED, ErrorType.CANCELLED, exchange.fault_text, transcript=transcript)
    if transcript.error is not None:
        return _error_object(transcript, redactor)
    if unreadable is not None:
        return Verdict(EndState.MALFORMED, ErrorType.MALFORMED, unreadable, transcript=transcript)
    if transcript.finish_reason == "error":
        transcript.error = "finish_reason: error"
        return _error_object(transcript, redactor)
    if marks.done_ns is not None:
        if transcript.finish_reason is not None or transcript.chunk_ns or transcript.tools:
            return _accepted(EndState.DONE, exchange, transcript)
        message = _with_evidence("[DONE] came, but no text and no finish_reason", exchange.raw_body(), redactor)
        return Verdict(EndState.MALFORMED, ErrorType.MALFORMED, message, transcript=transcript)
    if transcript.finish_reason is not None:
        return _accepted(EndState.EOF_FINISHED, exchange, transcript)
    if exchange.fault is not None:
        return _broken(exchange, transcript, redactor)
    message = _with_evidence("the stream ended with neither [DONE] nor finish_reason", _tail(exchange), redactor)
    return Verdict(EndState.EOF_NO_DONE, ErrorType.STREAM_CUT, message, transcript=transcript)


def _by_read(exchange: Exchange) -> Iterator[tuple[int, list[Event]]]:
    """(arrival ns, the events completed by that read)."""
    decoder = SseDecoder()
    for at_ns, data in exchange.reads:
        yield at_ns, decoder.feed(data)
    if exchange.complete:  # only a clean end completes an event that lacks its blank line
        yield exchange.arrived_ns, decoder.flush()


class _Reading:
    """Events of one stream into its transcript, up to [DONE]; nothing after it counts."""

    def __init__(self, transcript: Transcript) -> None:
        self.transcript = transcript
        self.done_ns: int | None = None
        self.first_event_ns: int | None = None
        self.n_events = self.since_yield = 0
        self.in_first_text_read = 0  # events in the read that brought the first text
        self._shape: Shape | None = None

    def take(self, events: list[Event], at_ns: int) -> None:
        """Events of one read. Raises UnreadableError."""
        if self.done_ns is not None or not events:
            return
        if self.first_event_ns is None:
            self.first_event_ns = at_ns
        arrivals = self.transcript.chunk_ns
        had_text = bool(arrivals)
        self.since_yield += len(events)
        self.n_events += len(events)
        run: list[bytes] = []  # JSON strings of neighbouring events of the known shape
        try:
            shape = self._shape
            for payload, name in events:
                if (
                    shape is not None
                    and payload.startswith(shape.before)
                    and payload.endswith(shape.after)
                    and len(payload) >= shape.least
                    and not name
                ):
                    run.append(payload[len(shape.before) : shape.text_ends])
                    continue
                self._run(run, at_ns)
                if self._whole(payload, name, at_ns):
                    return
                shape = self._shape
            self._run(run, at_ns)
        finally:
            if arrivals and (not had_text or arrivals[0] == at_ns):
                self.in_first_text_read += len(events)

    def _run(self, strings: list[bytes], at_ns: int) -> None:
        if not strings:
            return
        texts, shape = texts_of(strings), self._shape
        assert shape is not None
        if texts is not None:
            self.transcript.add_texts(texts, at_ns)
        else:  # one of them is not what it looked like: read each whole
            for string in strings:
                self._whole(shape.before + string + shape.after, b"", at_ns)
        strings.clear()

    def _whole(self, payload: bytes, name: bytes, at_ns: int) -> bool:
        """Read all of an event; True: it was [DONE]."""
        if name == b"error":
            error = _json_or_none(payload) or payload.decode("utf-8", "replace")
            self.transcript.error = self.transcript.error or error
            return False
        bare = payload.strip()
        if bare == b"[DONE]":
            self.done_ns = at_ns
            return True
        if bare:
            event = parse_json(bare)
            self.transcript.add(event, at_ns)
            if self._shape is None and len(self.transcript.chunk_ns) >= LEARN_AFTER and payload is bare:
                self._shape = learn(payload, event)
        return False


def _fill(exchange: Exchange, reading: _Reading, store_chunks: bool) -> None:
    marks, transcript = exchange.marks, reading.transcript
    marks.n_events, marks.done_ns = reading.n_events, reading.done_ns
    marks.first_event_ns = reading.first_event_ns
    marks.first_reasoning_ns = transcript.first_reasoning_ns
    marks.first_content_ns = transcript.first_content_ns
    marks.first_tool_ns = transcript.first_tool_ns
    marks.last_delta_ns = transcript.last_delta_ns
    marks.finish_ns, marks.usage_ns = transcript.finish_ns, transcript.usage_ns
    arrivals = transcript.chunk_ns
    marks.n_text_chunks = len(arrivals)
    if arrivals:
        marks.first_text_coalesced = int(reading.in_first_text_read > 1)
        marks.first_text_kernel_ns = exchange.kernel_stamp_of(arrivals[0])
        start = marks.start_ns
        if store_chunks and start is not None:
            offsets = [(at_ns - start) // 1000 for at_ns in arrivals]
            marks.chunks = encode_chunks(zip(offsets, transcript.chunk_chars, strict=True))


def _accepted(end_state: EndState, exchange: Exchange, transcript: Transcript) -> Verdict:
    marks, usage = exchange.marks, transcript.usage
    marks.prompt_tokens = count(usage, "prompt_tokens")
    marks.completion_tokens = count(usage, "completion_tokens")
    marks.cached_tokens = count(usage, "prompt_tokens_details", "cached_tokens")
    return Verdict(end_state, transcript=transcript)


def _error_object(transcript: Transcript, redactor: Redactor) -> Verdict:
    error = transcript.error
    said = error if isinstance(error, str) else faults.message_of(error) or ""
    raw = error if isinstance(error, str) else orjson.dumps(error, default=str).decode()
    message = f"the server reported an error inside its reply: {redactor.evidence(raw)}"
    kind, code = faults.of_event(error, said), faults.code_of(error)
    return Verdict(EndState.ERROR_EVENT, kind, message, code, transcript)


def _broken(exchange: Exchange, transcript: Transcript, redactor: Redactor) -> Verdict:
    fault = exchange.fault or ErrorType.STREAM_CUT
    text = redactor.evidence(exchange.fault_text)
    if fault in _TIMEOUTS:
        return Verdict(EndState.TIMEOUT, fault, text, transcript=transcript)
    if fault is ErrorType.CANCELLED:
        return Verdict(EndState.CANCELLED, fault, text, transcript=transcript)
    if fault is ErrorType.MALFORMED:
        message = _with_evidence(text, exchange.raw_body(), redactor)
        return Verdict(EndState.MALFORMED, fault, message, transcript=transcript)
    message = _with_evidence(f"the reply broke off ({text})", _tail(exchange), redactor)
    return Verdict(EndState.CUT, ErrorType.STREAM_CUT, message, transcript=transcript)


def _kind(exchange: Exchange) -> str | None:
    content_type = exchange.content_type()
    first = next((data for _, data in exchange.reads if data), b"")
    head = first[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if content_type == "text/event-stream":
        return "json" if head.startswith(b"{") else "sse"  # an error object under the stream's content type
    is_json = content_type == "application/json" or content_type.endswith("+json")
    if (is_json or content_type in _SNIFFED) and head.startswith((b"data:", b"event:", b":")):
        return "sse"
    if is_json or (content_type in _SNIFFED and head.startswith((b"{", b"["))):
        return "json"
    return None


def _decompress(exchange: Exchange) -> str | None:
    """Undo a content encoding we did not ask for; the sentence to fail with where that can't be done."""
    encoding = exchange.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return f"the reply is encoded as {encoding!r}, though identity was asked for"
    inflate, size = zlib.decompressobj(47), 0
    reads: list[tuple[int, bytes]] = []
    try:
        for at_ns, data in exchange.reads:
            part = inflate.decompress(data, MAX_REPLY_BYTES - size + 1)
            size += len(part)
            if size > MAX_REPLY_BYTES:
                return "the reply inflates to more than 64 MiB"
            reads.append((at_ns, part))
    except zlib.error as error:
        return f"the reply is encoded as {encoding!r}, though identity was asked for, and broken: {error}"
    exchange.reads = reads
    return None


def _json_or_none(raw: bytes) -> Any:
    try:
        return parse_json(raw)
    except UnreadableError:
        return None


def _tail(exchange: Exchange) -> bytes:
    """The last bytes before a break say more than the first."""
    return b"".join(data for _, data in exchange.reads[-8:])[-EVIDENCE_BYTES:]


def _with_evidence(what: str, raw: bytes, redactor: Redactor) -> str:
    evidence = redactor.evidence(raw)
    return f"{what}: {evidence}" if evidence else what

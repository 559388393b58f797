"""Every way a stream can look and end, on a real socket: the attempt says which, and keeps what had come."""

import asyncio
import zlib
from typing import Any

import pytest

from kvt_async.contract.errors import EndState, ErrorType
from kvt_async.records import Attempt
from tests.engine.sending import try_once
from tests.servers.fault_server import chunk, cut, delta, error, event, head, paced, raw, reply, status, stream, usage

pytestmark = pytest.mark.usefixtures("every_transport")

BODY = reply("Par", "is é", "\u2028!")


def text_of(attempt: Attempt) -> str:
    assert attempt.reply is not None, attempt
    return attempt.reply.text


async def test_a_normal_stream_is_done() -> None:
    got = await try_once(stream(BODY))
    assert (got.end_state, got.error_type, got.http_status) == (EndState.DONE, None, 200)
    assert text_of(got) == "Paris é\u2028!"
    assert got.reply is not None
    assert got.reply.finish_reason == "stop"
    assert (got.marks.prompt_tokens, got.marks.completion_tokens, got.marks.n_text_chunks) == (7, 3, 3)


@pytest.mark.parametrize("every", [1, 2, 7, 64])
async def test_a_stream_is_the_same_however_it_is_cut(every: int) -> None:
    got = await try_once(stream(BODY, every=every))
    assert text_of(got) == "Paris é\u2028!"
    assert got.marks.n_events == 7


@pytest.mark.parametrize("eol", [b"\n", b"\r", b"\r\n"])
async def test_any_line_end_will_do(eol: bytes) -> None:
    body = (
        b": keep-alive" + eol + eol + b"".join(event(p, eol=eol) for p in (delta("a"), delta(finish="stop"), "[DONE]"))
    )
    assert text_of(await try_once(stream(body, every=5))) == "a"


async def test_comments_names_and_missing_spaces_are_understood() -> None:
    body = (
        b': ping\n\nid: 1\nevent: message\ndata:{"choices":[{"index":0,\ndata: "delta":{"content":"a"}}]}\n\n'
        b"event: ping\ndata: {}\n\n" + event(delta(finish="stop")) + b"data:[DONE]"
    )
    got = await try_once(stream(body))
    assert (text_of(got), got.end_state) == ("a", EndState.DONE)


async def test_an_event_of_five_megabytes_is_an_event() -> None:
    big = "x" * 5_000_000
    got = await try_once(raw(head(chunked=True) + chunk(reply(big)) + chunk(b""), every=65_536, then="keep"))
    assert len(text_of(got)) == 5_000_000


async def test_reasoning_is_kept_beside_the_answer() -> None:
    body = event(delta(reasoning_content="hm")) + event(delta("a")) + event(delta(finish="stop")) + event("[DONE]")
    got = await try_once(stream(body))
    assert got.reply is not None
    assert (got.reply.text, got.reply.reasoning) == ("a", "hm")
    assert got.marks.first_reasoning_ns is not None


async def test_text_is_the_same_whichever_way_its_events_are_read() -> None:
    texts = ["a", 'q"\\', "\u2028", "é", "", " 😀", "\n", '","content":"x']
    like = [event(delta(text)) for text in texts]
    odd = [
        event(delta("b", role="assistant")),
        event(delta("c", logprobs=None)),
        event(delta("d", content_type="text")),
    ]
    mixed = b"".join([*like, odd[0], *like, odd[1], odd[2], *like]) + event(delta(finish="stop")) + event("[DONE]")
    whole, one_by_one = await try_once(stream(mixed)), await try_once(stream(mixed, every=11))
    once = "".join(texts)
    assert text_of(whole) == text_of(one_by_one) == f"{once}b{once}cd{once}"
    assert whole.marks.n_text_chunks == one_by_one.marks.n_text_chunks == 3 * (len(texts) - 1) + 3


# ------------------------------------------------------------------ how a stream may end


async def test_no_done_is_accepted_after_a_finish_reason() -> None:
    got = await try_once(stream(reply("a", done=False)))
    assert (text_of(got), got.end_state) == ("a", EndState.EOF_FINISHED)


async def test_no_done_and_no_finish_reason_is_a_cut_stream_with_its_partial_text() -> None:
    got = await try_once(stream(reply("a", "b", done=False, finish=None)))
    assert (got.end_state, got.error_type, got.reply) == (EndState.EOF_NO_DONE, ErrorType.STREAM_CUT, None)
    assert got.partial_text == "ab"


async def test_a_body_that_ends_with_the_connection_is_read_to_its_end() -> None:
    assert (await try_once(raw(head() + BODY))).end_state is EndState.DONE
    got = await try_once(raw(head() + reply("a", done=False, finish=None)))
    assert got.error_type is ErrorType.STREAM_CUT


async def test_done_without_a_finish_reason_is_done_if_there_was_text() -> None:
    got = await try_once(stream(reply("a", finish=None)))
    assert (text_of(got), got.end_state) == ("a", EndState.DONE)


async def test_done_with_nothing_before_it_is_malformed() -> None:
    got = await try_once(stream(event("[DONE]")))
    assert (got.end_state, got.error_type) == (EndState.MALFORMED, ErrorType.MALFORMED)


async def test_an_empty_answer_is_an_answer() -> None:
    got = await try_once(stream(reply()))
    assert (text_of(got), got.end_state) == ("", EndState.DONE)
    assert got.marks.first_content_ns is None


async def test_what_comes_after_done_does_not_count() -> None:
    got = await try_once(stream(reply("a") + event(delta("late")) + event({"error": "late"})))
    assert text_of(got) == "a"


async def test_a_server_that_forgets_to_end_its_body_after_done_is_not_waited_for() -> None:
    began = asyncio.get_running_loop().time()
    got = await try_once(paced([(0, reply("a")), (60, b"")]))
    assert (text_of(got), got.end_state) == ("a", EndState.DONE)
    assert asyncio.get_running_loop().time() - began < 5


@pytest.mark.parametrize("at", [0, 1, 60, 150, 250])
@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_stream_cut_before_its_end_is_typed_and_keeps_partial_text_and_marks(at: int, then: str) -> None:
    body = reply("Paris", "!", done=False, finish=None)
    got = await try_once(cut(body, at, then=then))
    assert (got.end_state, got.error_type, got.reply) == (EndState.CUT, ErrorType.STREAM_CUT, None)
    came = at >= len(event(delta("", role="assistant")) + event(delta("Paris")))
    assert got.partial_text == ("Paris" if came else None)
    assert (got.marks.first_content_ns is not None) is came
    assert (got.marks.first_byte_ns is not None) is (at > 0)


async def test_a_reset_of_a_body_that_would_end_with_the_connection_is_a_cut() -> None:
    got = await try_once(raw(head() + event(delta("a")), then="reset"))
    assert (got.end_state, got.error_type, got.partial_text) == (EndState.CUT, ErrorType.STREAM_CUT, "a")


async def test_a_break_after_the_finish_reason_loses_nothing() -> None:
    got = await try_once(cut(reply("a"), len(reply("a", done=False)), then="reset"))
    assert (text_of(got), got.end_state) == ("a", EndState.EOF_FINISHED)


async def test_a_chunk_size_that_is_none_is_a_broken_reply() -> None:
    got = await try_once(raw(head(chunked=True) + chunk(event(delta("a"))) + b"zz\r\nxx"))
    assert got.error_type in (ErrorType.STREAM_CUT, ErrorType.MALFORMED)
    assert got.reply is None


# ------------------------------------------------------------------ errors under status 200


@pytest.mark.parametrize(
    "payload", [{"error": {"message": "out of memory", "code": 500}}, {"object": "error", "message": "out of memory"}]
)
async def test_an_error_object_inside_the_stream_fails_the_attempt(payload: object) -> None:
    got = await try_once(stream(event(delta("a")) + event(payload) + event("[DONE]")))
    assert (got.end_state, got.error_type, got.partial_text) == (EndState.ERROR_EVENT, ErrorType.STREAM_ERROR, "a")
    assert "out of memory" in (got.error_message or "")


@pytest.mark.parametrize("data", [b'{"message":"overloaded"}', b"overloaded"])
async def test_an_event_named_error_fails_the_attempt(data: bytes) -> None:
    got = await try_once(stream(event(delta("a")) + b"event: error\ndata: " + data + b"\n\n"))
    assert (got.end_state, got.error_type) == (EndState.ERROR_EVENT, ErrorType.STREAM_ERROR)
    assert "overloaded" in (got.error_message or "")


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "text/plain"])
async def test_a_json_error_under_status_200_fails_the_attempt(content_type: str) -> None:
    got = await try_once(status(200, {"error": {"message": "no such model"}}, content_type=content_type))
    assert (got.end_state, got.error_type) == (EndState.ERROR_EVENT, ErrorType.STREAM_ERROR)
    assert "no such model" in (got.error_message or "")


async def test_an_over_long_context_inside_a_stream_is_one() -> None:
    payload = {"error": {"message": "This model's maximum context length is 2048 tokens", "code": 400}}
    assert (await try_once(stream(event(payload)))).error_type is ErrorType.CONTEXT_OVERFLOW


# ------------------------------------------------------------------ what is no stream at all


async def test_html_from_a_proxy_is_malformed_and_shows_its_first_bytes() -> None:
    page = b"<html><body>" + b"504 gateway " * 100
    got = await try_once(status(200, page, content_type="text/html"))
    assert (got.end_state, got.error_type) == (EndState.MALFORMED, ErrorType.MALFORMED)
    assert "<html><body>504 gateway" in (got.error_message or "")
    assert len((got.error_message or "").split(": ", 1)[1]) <= 200


@pytest.mark.parametrize("data", [b"{not json", b'"text"', b"12", b'{"choices":7}', b"\xff\xfe"])
async def test_an_event_that_cannot_be_read_is_malformed_and_keeps_what_came_before(data: bytes) -> None:
    got = await try_once(stream(event(delta("a")) + event(data) + event(delta("b"))))
    assert (got.end_state, got.error_type, got.partial_text) == (EndState.MALFORMED, ErrorType.MALFORMED, "a")


async def test_a_json_reply_to_a_streaming_request_is_taken() -> None:
    body = {"choices": [{"message": {"content": "Paris"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
    got = await try_once(status(200, body))
    assert (text_of(got), got.end_state, got.marks.prompt_tokens) == ("Paris", EndState.JSON, 3)
    assert got.marks.first_content_ns is None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"choices":[]}', b'{"id":"x"}'])
async def test_a_json_reply_without_an_answer_is_malformed(body: bytes) -> None:
    assert (await try_once(status(200, body))).error_type is ErrorType.MALFORMED


async def test_a_json_reply_that_breaks_off_is_cut() -> None:
    got = await try_once(raw(head(content_type="application/json", length=100) + b'{"choices"'))
    assert (got.end_state, got.error_type) == (EndState.CUT, ErrorType.STREAM_CUT)


async def test_a_stream_without_a_content_type_is_recognised() -> None:
    assert text_of(await try_once(raw(head(content_type=None) + BODY))) == "Paris é\u2028!"
    assert text_of(await try_once(raw(head(content_type="text/plain") + BODY))) == "Paris é\u2028!"


async def test_what_is_not_http_is_malformed() -> None:
    got = await try_once(raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"))
    assert (got.error_type, got.http_status) == (ErrorType.MALFORMED, None)
    assert "SSH-2.0" in (got.error_message or "")


async def test_gzip_though_refused_is_undone_and_what_cannot_be_is_said() -> None:
    packed = zlib.compressobj(wbits=31)
    body = packed.compress(BODY) + packed.flush()
    extra = {"Content-Encoding": "gzip"}
    assert text_of(await try_once(raw(head(headers=extra) + body))) == "Paris é\u2028!"
    got = await try_once(raw(head(headers={"Content-Encoding": "br"}) + body))
    assert (got.error_type, got.end_state) == (ErrorType.MALFORMED, EndState.MALFORMED)
    assert "'br', though identity was asked for" in (got.error_message or "")
    assert (await try_once(raw(head(headers=extra) + b"no gzip"))).error_type is ErrorType.MALFORMED


# ------------------------------------------------------------------ statuses


async def test_informational_replies_are_passed_over() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    got = await try_once(raw(early + head(chunked=True) + chunk(BODY) + chunk(b""), then="keep"))
    assert text_of(got) == "Paris é\u2028!"


@pytest.mark.parametrize("code", [301, 302, 307, 308])
async def test_redirects_are_refused(code: int) -> None:
    got = await try_once(status(code, headers={"Location": "http://user:hunter22@elsewhere/"}))
    assert (got.end_state, got.error_type, got.http_status) == (EndState.HTTP_ERROR, ErrorType.HTTP, code)
    assert "elsewhere" in (got.error_message or "")
    assert "hunter22" not in (got.error_message or "")


@pytest.mark.parametrize(
    ("code", "fields", "kind"),
    [
        (500, {}, ErrorType.HTTP),
        (401, {}, ErrorType.HTTP),
        (404, {}, ErrorType.HTTP),
        (429, {}, ErrorType.RATE_LIMITED),
        (429, {"code": "insufficient_quota"}, ErrorType.QUOTA),
        (429, {"type": "insufficient_quota"}, ErrorType.QUOTA),
        (400, {}, ErrorType.HTTP),
        (400, {"code": "context_length_exceeded"}, ErrorType.CONTEXT_OVERFLOW),
    ],
)
async def test_an_http_error_is_typed_and_shows_what_the_server_said(
    code: int, fields: dict[str, Any], kind: ErrorType
) -> None:
    got = await try_once(error(code, "because", **fields))
    assert (got.end_state, got.error_type, got.http_status) == (EndState.HTTP_ERROR, kind, code)
    assert "because" in (got.error_message or "")


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens",
        "The input (3000 tokens) is longer than the model's context length (2048 tokens).",
        "the request exceeds the available context size. try increasing the context size",
        "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000",
        "Prompt is too long: 3000 tokens > 2048 maximum",
    ],
)
async def test_every_servers_way_to_say_over_long_is_understood(message: str) -> None:
    assert (await try_once(error(400, message))).error_type is ErrorType.CONTEXT_OVERFLOW


async def test_usage_that_no_database_can_hold_is_not_believed() -> None:
    body = event(delta("a")) + event(usage(prompt=2**70, completion=-1)) + event("[DONE]")
    got = await try_once(stream(body))
    assert (text_of(got), got.marks.prompt_tokens, got.marks.completion_tokens) == ("a", None, None)


@pytest.mark.parametrize("every", [None, 9])
@pytest.mark.parametrize(
    "odd_head",
    [
        head().replace(b"\r\n", b"\n"),
        head(length=len(BODY)).replace(b"\r\n", b"\n"),
        head(length=len(BODY)).replace(b"\r\n\r\n", b"\r\n\n"),
    ],
)
async def test_a_head_whose_lines_end_in_lf_alone_is_a_head(odd_head: bytes, every: int | None) -> None:
    assert text_of(await try_once(raw(odd_head + BODY, every=every))) == "Paris é\u2028!"


@pytest.mark.parametrize(
    "said_twice",
    [{"Transfer-Encoding": "chunked, chunked"}, {"Transfer-Encoding": "chunked", "transfer-encoding": "chunked"}],
)
async def test_chunked_said_by_two_proxies_is_chunked(said_twice: dict[str, str]) -> None:
    got = await try_once(raw(head(headers=said_twice) + chunk(BODY) + chunk(b""), then="keep"))
    assert text_of(got) == "Paris é\u2028!"

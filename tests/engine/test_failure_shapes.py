"""A failure is a failure in whatever shape a server tells it: field, event, code, reason; streamed or not."""

import json
from typing import Any

import pytest

from kvt_async.contract.errors import EndState, ErrorType
from kvt_async.engine.reply.error_types import cause_of, code_of, message_of, of_event, of_status
from kvt_async.engine.reply.failure_shapes import complaint
from tests.engine.sending import try_once
from tests.servers.fault_server import delta, event, raw, reply, status, stream, usage

pytestmark = pytest.mark.usefixtures("every_transport")

TEXT = event(delta("a")) + event(delta("b"))
CHOICE = {"index": 0, "delta": {}, "finish_reason": None}
OBJECTS: dict[str, dict[str, Any]] = {
    "error": {"error": {"message": "worker died"}},
    "a bare error": {"error": "worker died"},
    "error: true": {"error": True, "message": "worker died"},
    "a list of errors": {"error": [{"message": "worker died"}]},
    "object: error": {"object": "error", "message": "worker died"},
    "code and message": {"code": "InternalError", "message": "worker died"},
    "a numeric code": {"code": 500, "message": "worker died"},
    "message": {"message": "worker died"},
    "detail": {"detail": "worker died"},
    "a list of details": {"detail": [{"msg": "worker died"}]},
    "errors": {"errors": [{"message": "worker died"}]},
    "type: error": {"type": "error", "message": "worker died"},
    "type: response.failed": {"type": "response.failed", "response": {"reason": "worker died"}},
    "status_code": {"status_code": 503, "msg": "worker died"},
    "error_code": {"error_code": 336003, "error_msg": "worker died"},
    "an exception by name": {"internalServerException": {"message": "worker died"}},
    "success: false": {"success": False, "msg": "worker died"},
    "status: failed": {"status": "failed", "reason": "worker died"},
    "err": {"err": "worker died"},
    "errmsg": {"errno": 3, "errmsg": "worker died"},
    "an object of details": {"detail": {"msg": "worker died"}},
    "an error in an envelope": {"response": {"error": {"message": "worker died"}}},
    "state: failed": {"state": "failed", "description": "worker died"},
    "http_status": {"http_status": 502, "description": "worker died"},
    "beside a usage": {"code": 500, "message": "worker died", "usage": {"prompt_tokens": 9}},
    "x_groq": {"x_groq": {"error": "worker died"}},
    "base_resp": {"choices": None, "base_resp": {"status_code": 1000, "status_msg": "worker died"}},
}
BESIDE: dict[str, dict[str, Any]] = {
    "error": {"choices": [CHOICE], "error": {"message": "worker died"}},
    "x_groq": {"choices": [CHOICE], "x_groq": {"error": "worker died"}},
    "base_resp": {"choices": [CHOICE], "base_resp": {"status_code": 1000, "status_msg": "worker died"}},
    "the choice": {"choices": [{**CHOICE, "error": {"message": "worker died"}}]},
    "the delta": {"choices": [{**CHOICE, "delta": {"error": "worker died"}}]},
}
EVENTS = {
    "the field error": b'error: {"code":500,"message":"worker died"}\n\n',
    "an event named error": b'event: error\ndata: {"message": "worker died"}\n\n',
    "an event named exception": b"event: exception\ndata: worker died\n\n",
    "an event named failed": b'event: response.failed\ndata: {"reason": "worker died"}\n\n',
}
SHAPES = {name: event(said) for name, said in OBJECTS.items()} | EVENTS
SHAPES |= {f"beside choices: {name}": event(said) for name, said in BESIDE.items()}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_stream_that_says_that_it_failed_is_no_answer_though_text_and_done_came(shape: str) -> None:
    for body in (TEXT + SHAPES[shape] + event("[DONE]"), SHAPES[shape], SHAPES[shape] + TEXT + event("[DONE]")):
        got = await try_once(stream(body))
        assert (got.reply, got.end_state, got.error_type) == (None, EndState.ERROR_EVENT, ErrorType.STREAM_ERROR)
        assert "worker died" in (got.error_message or "")
    assert got.partial_text == "ab"


@pytest.mark.parametrize("shape", OBJECTS)
async def test_a_body_that_says_that_it_failed_is_no_answer(shape: str) -> None:
    got = await try_once(status(200, OBJECTS[shape]))
    assert (got.reply, got.end_state, got.error_type) == (None, EndState.ERROR_EVENT, ErrorType.STREAM_ERROR)
    assert "worker died" in (got.error_message or "")


async def test_a_failure_in_a_list_of_one_is_read() -> None:
    for content_type in ("application/json", "text/event-stream"):
        got = await try_once(status(200, [OBJECTS["error"]], content_type=content_type))
        assert got.error_type is ErrorType.STREAM_ERROR
        assert "worker died" in (got.error_message or "")


OVERFLOW = "This model's maximum context length is 2048 tokens"


@pytest.mark.parametrize(
    "body",
    [
        b'error: {"code":400,"message":"%s"}\n\n' % OVERFLOW.encode(),
        event({"code": "BadRequest", "message": OVERFLOW}),
        event({"detail": OVERFLOW}),
        event({"errors": [{"message": OVERFLOW}]}),
        event({"choices": [CHOICE], "x_groq": {"error": OVERFLOW}}),
        event({"error": {"code": 400, "type": "exceed_context_size_error"}}),
        event(delta(finish="context_length_exceeded")),
        b"event: exception\ndata: %s\n\n" % OVERFLOW.encode(),
    ],
)
async def test_an_over_long_context_is_one_in_every_shape(body: bytes) -> None:
    assert (await try_once(stream(body + event("[DONE]")))).error_type is ErrorType.CONTEXT_OVERFLOW
    assert (await try_once(raw(b"HTTP/1.1 200 X\r\n\r\n" + body))).error_type is ErrorType.CONTEXT_OVERFLOW


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"type": "ping"},
        {"status": "in_progress"},
        {"data": {"status": "ok"}},
        {"usage": {"prompt_tokens": 9, "completion_tokens": 2}, "reason": "eos", "details": "cached"},
        {"response": {"code": 200, "message": "ok"}, "result": "success"},
        {"code": 0, "message": "ok"},
        {"code": 200, "message": "success"},
        {"error": None, "choices": []},
        {"error": {"code": 0, "message": ""}},
        {"choices": [], "prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": False}}}]},
        {"choices": [], "base_resp": {"status_code": 0, "status_msg": "success"}},
        {"choices": [{**CHOICE, "error": None}], "x_groq": {"id": "req_1"}, "base_resp": {"status_code": 0}},
        usage(),
    ],
)
async def test_what_says_that_all_is_well_or_nothing_is_no_failure(said: dict[str, Any]) -> None:
    got = await try_once(stream(TEXT + event(said) + event(delta(finish="stop")) + event("[DONE]")))
    assert got.reply is not None, got.error_message
    assert got.reply.text == "ab"
    assert (await try_once(stream(TEXT + event(said) + event("[DONE]")))).reply is not None


async def test_a_message_after_the_end_of_a_reply_takes_nothing_back() -> None:
    got = await try_once(stream(reply("a", done=False) + event({"message": "bye", "code": "x"}) + event("[DONE]")))
    assert got.reply is not None
    assert (await try_once(stream(reply("a", done=False) + event({"error": "late"})))).reply is None


def test_codes_and_sentences_are_found_in_every_shape() -> None:
    assert message_of([{"errors": [{"message": "m"}]}]) == "m"
    assert message_of({"detail": [{"msg": "m"}]}) == "m"
    assert [code_of(body) for body in ({"code": "503"}, {"error": {"status": 401}}, {"errors": [{"code": 429}]})] == [
        503,
        401,
        429,
    ]
    assert [code_of({"code": odd}) for odd in ("²²²", "9" * 5000, 2**70, None, "x")] == [None] * 5
    assert complaint({"id": "x", "object": "chat.completion.chunk", "created": 1}) is None


@pytest.mark.parametrize(
    ("code", "body", "text", "kind"),
    [
        (402, None, "", ErrorType.QUOTA),
        (403, {"error": {"code": "insufficient_quota"}}, "", ErrorType.QUOTA),
        (400, None, "Your credit balance is too low to use this API", ErrorType.QUOTA),
        (429, {"code": "insufficient_quota"}, "", ErrorType.QUOTA),
        (429, None, "You exceeded your current quota, retry in 2 s", ErrorType.RATE_LIMITED),
        (500, {"error": {"code": "insufficient_quota"}}, "", ErrorType.HTTP),
    ],
)
def test_an_empty_purse_is_one_under_whichever_status(code: int, body: Any, text: str, kind: ErrorType) -> None:
    assert of_status(code, body, text) is kind
    if code != 500:
        assert of_event({"error": {"code": code, **((body or {}).get("error") or body or {})}}, text) is kind


@pytest.mark.parametrize(
    ("code", "body", "cause"),
    [
        (498, {}, "key"),
        (440, {}, "key"),
        (400, {"detail": "Unauthorized"}, "key"),
        (400, {"error": {"message": "Incorrect API key provided"}}, "key"),
        (400, {"error": {"message": "The token has expired"}}, "key"),
        (400, {"error": {"code": "AccessDenied"}}, "key"),
        (None, {"error": {"message": "Invalid API key"}}, "key"),
        (None, {"message": "Authentication failed"}, "key"),
        (429, {"error": {"message": "Monthly spending limit reached"}}, "purse"),
        (403, {"error": {"message": "You have run out of credits"}}, "purse"),
        (400, {"error": {"code": "1113", "message": "账户余额不足"}}, "purse"),
        (400, {"error": {"message": "max_tokens must be positive"}}, None),
        (500, {"error": {"message": "worker died"}}, None),
    ],
)
def test_why_a_refusal_says_nothing_about_its_request(code: int | None, body: Any, cause: str | None) -> None:
    text = json.dumps(body, ensure_ascii=False)
    kind = of_event(body, text) if code is None else of_status(code, body, text)
    assert cause_of(kind, code, body, text) == cause


@pytest.mark.parametrize("deep", [{"a": "\ud83d"}, "[" * 5])
async def test_an_error_that_no_json_encoder_takes_is_shown_as_far_as_it_goes(deep: Any) -> None:
    got = await try_once(stream(event(b'{"error":{"message":"half \\ud83d","more":%s}}' % (b"[" * 300 + b"]" * 300))))
    assert (got.reply, got.error_type) == (None, ErrorType.STREAM_ERROR)

"""Which choice of a stream is the answer."""

from typing import Any

import pytest

from kvt_async.contract.errors import EndState
from tests.engine.sending import try_once
from tests.servers.fault_server import event, status, stream, usage

pytestmark = pytest.mark.usefixtures("every_transport")

DONE = event("[DONE]")


def one(index: Any, text: str | None = None, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    said = delta if text is None else {"content": text, **delta}
    return {"index": index, "delta": said, "finish_reason": finish}


def events(*choices: dict[str, Any]) -> bytes:
    """Each choice in an event of its own."""
    return b"".join(event({"choices": [choice]}) for choice in choices)


async def text_of(body: bytes) -> str | None:
    got = await try_once(stream(body))
    return got.reply.text if got.reply else got.error_message


@pytest.mark.parametrize("first", [0, 1, 5])
async def test_an_index_that_counts_tokens_loses_none(first: int) -> None:
    tokens = [one(first + n, f"w{n} ") for n in range(4)]
    body = events(*tokens, one(first + 4, finish="length"))
    assert await text_of(body + event(usage()) + DONE) == "w0 w1 w2 w3 "
    assert await text_of(body) == "w0 w1 w2 w3 "  # its end is the reply's end
    assert await text_of(events(*tokens, one(0, finish="length"))) == "w0 w1 w2 w3 "
    assert await text_of(events(one(0, "", role="assistant"), *tokens, one(0, finish="stop"))) == "w0 w1 w2 w3 "
    cut = await try_once(stream(events(*tokens)))
    assert (cut.reply, cut.partial_text) == (None, "w0 w1 w2 w3 ")


@pytest.mark.parametrize("index", [0, "0", 0.0, None, 1, "1", 1.0, 7, -1, "a", True, [1]])
async def test_the_only_choice_is_ours_whatever_its_index(index: Any) -> None:
    body = events(one(index, "a"), one(index, "b"), one(index, finish="stop"))
    assert await text_of(body) == "ab"
    assert await text_of(body + DONE) == "ab"


async def test_marks_of_a_choice_with_another_index_are_those_of_its_events() -> None:
    got = await try_once(stream(events(one(1, "a"), one(1, "b"), one(1, finish="stop")) + event(usage()) + DONE))
    marks = got.marks
    assert (marks.n_text_chunks, marks.completion_tokens) == (2, 3)
    assert marks.first_content_ns is not None
    assert marks.finish_ns is not None


async def test_of_several_choices_in_an_event_that_of_index_0_is_ours() -> None:
    body = b"".join(event({"choices": [one(1, "no "), one(0, f"w{n} ")]}) for n in range(4))
    body += event({"choices": [one(1, finish="stop")]}) + event({"choices": [one(0, finish="stop")]})
    assert await text_of(body + DONE) == "w0 w1 w2 w3 "
    assert await text_of(b"".join(event({"choices": [one("1", "no"), one("0", "yes")]}) for _ in "a") + DONE) == "yes"


@pytest.mark.parametrize(
    "choices",
    [
        [one(0, "a"), one(1, "x"), one(0, "b"), one(1, "y"), one(0, finish="stop"), one(1, finish="stop")],
        [one(1, "x"), one(1, "y"), one(1, finish="stop"), one(0, "a"), one(0, "b", "stop")],
        [one(0, "a"), one(0, "b", "stop"), one(1, "x", "stop")],
        [one(0, "ab", "stop"), one(1, "x", "stop")],
        [one(0, "ab"), one(1, "x"), one(0, finish="stop"), one(1, finish="stop")],
    ],
)
async def test_of_choices_in_turns_the_other_is_never_mixed_in(choices: list[dict[str, Any]]) -> None:
    got = await try_once(stream(events(*choices) + event(usage(completion=4)) + DONE))
    assert got.reply is not None
    assert (got.reply.text, got.reply.finish_reason) == ("ab", "stop")
    assert got.marks.completion_tokens is None  # of both answers together: nobody knows how many are ours


async def test_the_end_of_another_choice_is_not_ours() -> None:
    got = await try_once(stream(events(one(0, "a"), one(1, "x"), one(0, "b"), one(1, "y", "stop"))))
    assert (got.reply, got.end_state, got.partial_text) == (None, EndState.EOF_NO_DONE, "ab")


async def test_text_completions_follow_the_same_rules() -> None:
    tokens = [{"index": n, "text": f"w{n} ", "finish_reason": None} for n in range(3)]
    assert await text_of(events(*tokens) + DONE) == "w0 w1 w2 "


async def test_of_several_choices_of_a_whole_reply_that_of_index_0_is_ours() -> None:
    other, ours = ({"index": n, "message": {"content": f"{n}"}, "finish_reason": "stop"} for n in (1, 0))
    got = await try_once(status(200, {"choices": [other, ours], "usage": {"completion_tokens": 2}}))
    assert got.reply is not None
    assert (got.reply.text, got.marks.completion_tokens) == ("0", None)
    got = await try_once(status(200, {"choices": [other]}))
    assert got.reply is not None
    assert got.reply.text == "1"

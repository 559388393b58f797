"""Server events -> one transcript: what is text, what is a mark, what is unreadable."""

import json
from typing import Any

import pytest

from kvt_async.engine.reply.event_template import learn, texts_of
from kvt_async.engine.reply.payload import UnreadableError, parse_json
from kvt_async.engine.reply.token_counts import as_count
from kvt_async.engine.reply.transcript import Transcript
from tests.servers.fault_server import delta, usage


def read(*events: Any) -> Transcript:
    transcript = Transcript()
    transcript.add(events, range(len(events)))
    return transcript


def test_role_only_empty_and_usage_only_events_are_no_text() -> None:
    got = read(delta("", role="assistant"), delta(None), delta(""), usage(), delta("hi"), delta(finish="stop"))
    assert (got.text, got.finish_reason, len(got.chunk_ns)) == ("hi", "stop", 1)
    assert (got.first_content_ns, got.last_delta_ns, got.usage_ns, got.finish_ns) == (4, 4, 3, 5)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_apart_from_the_answer(field: str) -> None:
    got = read(delta(**{field: "hm"}), delta("a"))
    assert (got.text, got.reasoning_text) == ("a", "hm")
    assert (got.first_reasoning_ns, got.first_content_ns) == (0, 1)


def test_text_completions_and_tool_calls_are_read() -> None:
    got = read({"choices": [{"text": "a", "index": 0}]}, delta(tool_calls=[{"id": "t"}]))
    assert (got.text, got.tools is not None, got.tool_calls, got.first_tool_ns) == ("a", True, None, 1)


def test_text_in_a_message_instead_of_a_delta_is_read_and_only_once() -> None:
    messages = [{"choices": [{"index": 0, "message": {"content": text}}]} for text in ("a", "b", "ab")]
    assert read(*messages).text == "ab"
    assert read(delta("a"), delta("b"), messages[2]).text == "ab"
    whole = {"choices": [{"index": 0, "message": {"content": "a", "reasoning_content": "r"}}]}
    assert read(delta(reasoning_content="r"), delta("a"), whole).reasoning_text == "r"


@pytest.mark.parametrize(
    "choice", [{}, {"index": 0}, {"message": {"content": None}}, {"message": {}, "finish_reason": ""}]
)
def test_a_whole_reply_that_holds_nothing_and_does_not_say_that_it_ended_is_no_answer(choice: Any) -> None:
    with pytest.raises(UnreadableError, match="no text"):
        Transcript().add_whole({"choices": [choice]})
    ended = Transcript()
    ended.add_whole({"choices": [{**choice, "finish_reason": "stop"}]})
    assert ended.text == ""


def test_a_refusal_is_an_answer() -> None:
    assert read(delta(refusal="I can't")).text == "I can't"


@pytest.mark.parametrize(
    "event",
    [{"error": {"message": "m"}}, {"object": "error", "message": "m"}, {"error": "m"}, {"choices": [], "error": 1}],
)
def test_an_error_object_is_an_error_in_every_shape(event: Any) -> None:
    assert read(event).error


def test_an_error_inside_a_choice_is_an_error() -> None:
    assert read({"choices": [{"delta": {}, "error": {"message": "m"}}]}).error


@pytest.mark.parametrize(
    "event",
    [3, "x", [1], {"choices": {"a": 1}}, {"choices": ["a"]}, {"choices": [{"delta": 3}]}, delta(3)],  # type: ignore[arg-type]
)
def test_a_shape_that_no_server_sends_is_unreadable(event: Any) -> None:
    with pytest.raises(UnreadableError):
        read(event)


def test_a_reply_that_was_not_streamed_is_read_whole() -> None:
    got = Transcript()
    message = {"content": [{"type": "text", "text": "a"}], "reasoning_content": "r"}
    got.add_whole({"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}})
    assert (got.text, got.reasoning_text, got.finish_reason, got.usage) == ("a", "r", "stop", {"prompt_tokens": 1})
    assert got.first_content_ns is None  # nobody saw when its first token came


def test_halves_of_a_surrogate_pair_in_two_deltas_are_one_character() -> None:
    halves = [
        parse_json(b'{"choices":[{"delta":{"content":"\\ud83d"}}]}'),
        parse_json(b'{"choices":[{"delta":{"content":"\\ude00"}}]}'),
    ]
    assert read(*halves).text == "😀"
    assert read(halves[0]).text == "\ufffd"
    assert read(halves[0]).text.encode()


PLAIN = (
    b'{"id":"a \\"content\\":\\"x\\"",'
    b'"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}],"usage":null}'
)


TEXTS = ["", "a", 'q"\\\n', "é\u2028😀", "hi"]


def test_the_text_of_an_event_is_found_by_what_stands_around_it() -> None:
    shape = learn(PLAIN, json.loads(PLAIN))
    assert shape is not None
    assert shape.before + b'"hi"' + shape.after == PLAIN
    for ascii_only in (True, False):
        assert texts_of([json.dumps(text, ensure_ascii=ascii_only).encode() for text in TEXTS]) == TEXTS


@pytest.mark.parametrize(
    "strings",
    [
        [b'"a","role":"x"'],
        [b'"a","x"', b'"b'],
        [b'"a","x"', b'"b', b'c"'],
        [b'"a', b'b"'],
        [b'"a",0,"b"'],
        [b"null"],
        [b"3"],
        [b'"a"', b"0"],
        [b'["a"]'],
        [b""],
        [b'"a\tb"'],
        [b'"\xff"'],
        [b'"a"', b"[0]", b'"b"'],
    ],
)
def test_what_is_not_one_string_each_is_not_taken_for_text(strings: list[bytes]) -> None:
    assert texts_of(strings) is None


@pytest.mark.parametrize(
    "event",
    [
        delta("a", finish="stop"),
        delta("a", role="assistant"),
        delta("a", reasoning_content="r"),
        delta(None),
        {**delta("a"), "usage": {"prompt_tokens": 1}},
        {"choices": [{"index": 1, "delta": {"content": "a"}}]},
        {"choices": [{"delta": {"content": "a"}, "error": {"m": 1}}]},
        {"choices": []},
        {"content": "a"},
        3,
    ],
)
def test_an_event_that_says_more_than_its_text_has_no_shape(event: Any) -> None:
    assert learn(json.dumps(event).encode(), event) is None


def test_text_completions_have_a_shape_too() -> None:
    event = {"choices": [{"index": 0, "text": "a", "logprobs": None}]}
    shape = learn(json.dumps(event).encode(), event)
    assert shape is not None
    assert shape.before.endswith(b'"text": ')


@pytest.mark.parametrize("value", [-1, 1.5, "7.5", "-7", "x", True, None, 2**63 - 1, 2**70, "9" * 40])
def test_a_token_count_that_is_no_count_is_unknown(value: Any) -> None:
    assert as_count(value) is None


@pytest.mark.parametrize("value", [7, 7.0, "7"])
def test_a_token_count_is_read_from_whatever_type_holds_one(value: Any) -> None:
    assert as_count(value) == 7


@pytest.mark.parametrize(
    ("texts", "whole", "sizes"),
    [
        (["w0 ", "w0 w1 ", "w0 w1 w2"], "w0 w1 w2", [3, 3, 2]),
        (["你", "你好", "你好吗", "你好吗我很好"], "你好吗我很好", [1, 1, 1, 3]),
        (["-", "--", "---"], "------", [1, 2, 3]),
        (["1", "12", "123"], "112123", [1, 2, 3]),
        (["  ", "    ", "        "], " " * 14, [2, 4, 8]),
        (["* ", "* * ", "* * * "], "* * * * * * ", [2, 4, 6]),
        (["\n1", "\n1 2", "\n1 2 3"], "\n1\n1 2\n1 2 3", [2, 4, 6]),
        (["a", "ab"], "aab", [1, 2]),  # two chunks may be that by chance
        (["ha", "ha", "ha"], "hahaha", [2, 2, 2]),
        (["a", "ab", "abc", "d"], "aababcd", [1, 2, 3, 1]),
        (["a", "b", "bc"], "abbc", [1, 1, 2]),
    ],
)
def test_chunks_that_repeat_all_that_came_before_are_read_once(texts: list[str], whole: str, sizes: list[int]) -> None:
    got = read(*map(delta, texts))
    got.settle()
    assert (got.text, got.chunk_chars, len(got.chunk_ns)) == (whole, sizes, len(texts))

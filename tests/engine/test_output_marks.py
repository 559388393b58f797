"""Text, reasoning and tool calls are output alike: each has its marks, and the last of any kind is the last."""

from typing import Any

import pytest

from analyzer.metrics.single import scorer
from kvt_async.engine.reply.transcript import Transcript
from tests.engine.sending import try_once
from tests.servers.fault_server import delta, event, paced, status, stream

REASONING: list[dict[str, Any]] = [
    {"reasoning_content": "hm"},
    {"reasoning": "hm"},
    {"thinking": "hm"},
    {"reasoning_text": "hm"},
    {"reasoning": {"text": "hm"}},
    {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
    {"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]},
    {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
    {"content": [{"type": "reasoning", "text": "hm"}]},
    {"content": [{"type": "reasoning", "reasoning": "hm"}]},
    {"content": [{"text": "hm", "thought": True}]},
    {"content": [{"reasoningContent": {"reasoningText": {"text": "hm"}}}]},
    {"content": [{"thinking": "hm"}]},
    {"reasoning_summary": "hm"},
    {"cot_summary": "hm"},
]


def read(*events: Any) -> Transcript:
    transcript = Transcript()
    transcript.add(events, range(len(events)))
    return transcript


@pytest.mark.parametrize("fields", REASONING)
def test_reasoning_is_reasoning_under_whichever_name(fields: dict[str, Any]) -> None:
    got = read(delta(**fields), delta("a"))
    assert (got.text, got.reasoning_text) == ("a", "hm")
    assert (got.first_reasoning_ns, got.first_content_ns, got.last_delta_ns) == (0, 1, 1)
    assert (got.chunk_ns, got.chunk_chars) == ([0, 1], [2, 1])


@pytest.mark.parametrize("fields", REASONING)
def test_reasoning_of_a_whole_reply_is_kept_apart_too(fields: dict[str, Any]) -> None:
    got = Transcript()
    answer = {"content": "a"} if "content" not in fields else {}
    parts = {"content": [*fields["content"], {"type": "text", "text": "a"}]} if "content" in fields else fields
    got.add_whole({"choices": [{"message": {**answer, **parts}, "finish_reason": "stop"}]})
    assert (got.text, got.reasoning_text) == ("a", "hm")


@pytest.mark.parametrize("odd", [True, 3, {"effort": "high"}, [{"type": "reasoning.encrypted", "data": "x"}], None])
def test_a_reasoning_field_without_text_is_not_looked_at(odd: Any) -> None:
    got = read(delta("a", reasoning=odd))
    assert (got.text, got.reasoning_text) == ("a", None)


def test_content_parts_of_both_kinds_go_their_own_ways() -> None:
    parts = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "a"},
        {"type": "output_text", "text": "b"},
    ]
    got = read({"choices": [{"delta": {"content": parts}}]})
    assert (got.text, got.reasoning_text, got.chunk_chars) == ("ab", "hm", [2, 2])


@pytest.mark.parametrize(
    "call",
    [
        {"tool_calls": [{"index": 0, "function": {"arguments": "abcd"}}]},
        {"tool_calls": {"function": {"name": "ab", "arguments": "cd"}}},
        {"function_call": {"name": "ab", "arguments": "cd"}},
        {"tool_calls": [{"function": {"arguments": "ab"}}, {"function": {"arguments": "cd"}}]},
    ],
)
def test_tool_calls_are_output_with_a_length(call: dict[str, Any]) -> None:
    got = read(delta("a"), delta(**call), delta(**call), delta(finish="tool_calls"))
    assert (got.first_content_ns, got.first_tool_ns, got.last_delta_ns) == (0, 1, 2)
    assert (got.chunk_ns, got.chunk_chars) == ([0, 1, 2], [1, 4, 4])


@pytest.mark.parametrize(
    "nothing",
    [{"tool_calls": []}, {"tool_calls": None}, {"tool_calls": [{"index": 0, "function": {"arguments": ""}}]},
     {"function_call": None}, {"tool_calls": 7}, {"tool_calls": [3]}],
)  # fmt: skip
def test_a_tool_delta_without_a_word_is_no_output(nothing: dict[str, Any]) -> None:
    got = read(delta("a"), delta(**nothing))
    assert (got.chunk_ns, got.last_delta_ns, got.first_tool_ns) == ([0], 0, None)


async def test_a_tool_call_that_is_no_object_spoils_no_whole_reply() -> None:
    message = {"content": "a", "tool_calls": 7}
    got = await try_once(status(200, {"choices": [{"message": message, "finish_reason": "stop"}]}))
    assert got.reply is not None
    assert got.reply.text == "a"


@pytest.mark.usefixtures("every_transport")
async def test_only_text_events_of_the_first_read_make_its_stamp_an_upper_bound() -> None:
    role, text, end = event(delta("", role="assistant")), event(delta("a")), event(delta(finish="stop"))
    for pieces, coalesced in (
        ([role + text, end], 0),
        ([text + end], 0),
        ([role + text + text, end], 1),
        ([event(delta(reasoning_content="r")) + text, end], 1),
        ([text, text + text + end], 0),
    ):
        got = await try_once(paced([(0.01, piece) for piece in pieces]))
        assert got.marks.first_text_coalesced == coalesced


@pytest.mark.usefixtures("every_transport")
async def test_events_that_no_blank_line_parts_are_read_one_by_one() -> None:
    lines = [event(delta("a"))[:-1], event(delta("b"))[:-1], event(delta(finish="stop"))[:-1], b"data: [DONE]\n\n"]
    got = await try_once(stream(b"".join(lines)))
    assert got.reply is not None
    assert got.reply.text == "ab"


@pytest.mark.usefixtures("every_transport")
async def test_numbers_that_json_does_not_know_cost_no_text() -> None:
    choice = (
        b'{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"logprob":-Infinity}]},"finish_reason":"stop"}'
    )
    got = await try_once(stream(event(b'{"choices":[%s]}' % choice) + event("[DONE]")))
    assert got.reply is not None
    assert got.reply.text == "a"


FINAL = "assistant<|channel|>final<|message|>"
WIRE: dict[str, list[dict[str, Any]]] = {
    "a field": [delta(reasoning_content="is it 6?"), delta("7")],
    "content parts": [{"choices": [{"delta": {"content": [{"type": "thinking", "thinking": "6?"}]}}]}, delta("7")],
    "opened by the template": [delta("is it "), delta("6?</th"), delta("ink>7")],
    "[THINK]": [delta("[TH"), delta("INK]6?[/THINK]7")],
    "harmony": [delta("<|channel|>analysis<|message|>6?<|end|><|sta"), delta(f"rt|>{FINAL}7")],
    "harmony without its marks": [delta("analysisis it 6?assist"), delta("antfinal7")],
}  # fmt: skip


@pytest.mark.parametrize("way", WIRE)
@pytest.mark.parametrize("is_streamed", [True, False])
def test_whichever_way_reasoning_comes_the_answer_alone_is_scored(way: str, is_streamed: bool) -> None:
    if is_streamed:
        got = read(*WIRE[way])
    else:
        contents = [event["choices"][0]["delta"] for event in WIRE[way]]
        message = {key: value for one in contents for key, value in one.items() if key != "content"}
        parts = [one["content"] for one in contents if one.get("content")]
        whole = "".join(parts) if all(isinstance(part, str) for part in parts) else [*parts[0], *parts[1:]]
        got = Transcript()
        got.add_whole({"choices": [{"message": {**message, "content": whole}, "finish_reason": "stop"}]})
    assert scorer("em")(got.text, ("7",), {}) == 1

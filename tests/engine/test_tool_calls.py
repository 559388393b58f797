"""Whatever pieces a server sends a tool call in, one call comes of it: its name, its arguments as text, its id."""

import json
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.secrets import Secrets
from kvt_async.engine.reply.redact import Redactor
from kvt_async.engine.reply.transcript import Transcript
from kvt_async.records import Json, Reply
from tests.engine.sending import try_once
from tests.servers.fault_server import delta, event, status, stream

CITY = '{"city": "Paris", "days": 3}'


def piece(name: Any = None, arguments: Any = None, **more: Any) -> Json:
    inner = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**more, "function": inner} if inner else more


def streamed(*deltas: Sequence[Json] | Json) -> list[Json] | None:
    """The calls of a stream, each delta a list of pieces or the delta itself."""
    transcript = Transcript()
    events = [delta(**(one if isinstance(one, dict) else {"tool_calls": one})) for one in deltas]
    transcript.add(events, range(len(events)))
    transcript.settle()
    return transcript.tool_calls


def whole(**message: Any) -> list[Json] | None:
    transcript = Transcript()
    transcript.add_whole({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    return transcript.tool_calls


WEATHER = [{"name": "weather", "arguments": CITY, "id": "a"}]
WAYS: dict[str, list[Any]] = {
    "arguments in pieces": [
        [piece("weather", "", index=0, id="a")], *([piece(None, c, index=0)] for c in CITY)
    ],
    "the name in pieces": [
        [piece("wea", None, index=0, id="a")], [piece("ther", None, index=0)], [piece(None, CITY, index=0)]
    ],
    "the name repeated": [[piece("weather", c, index=0, id="a")] for c in CITY],
    "the name repeated once all of it came": [
        [piece("wea", None, index=0, id="a")], [piece("ther", CITY[:9], index=0)], [piece("weather", CITY[9:], index=0)]
    ],
    "a new id in every piece": [
        [piece("weather", None, index=0, id="a")], *([piece(None, c, index=0, id=f"r{n}")] for n, c in enumerate(CITY))
    ],
    "no index": [[piece("weather", CITY[:5], id="a")], [piece(None, CITY[5:])]],
    "an index of another type": [[piece("weather", CITY[:5], index="0", id="a")], [piece(None, CITY[5:], index=0.0)]],
    "an index of null": [[piece("weather", CITY[:5], index=None, id="a")], [piece(None, CITY[5:], index=None)]],
    "arguments that grow": [[piece("weather", CITY[:n], index=0, id="a")] for n in (1, 9, 20, len(CITY))],
    "arguments once more at the end": [[piece("weather", CITY, index=0, id="a")], [piece(None, CITY, index=0)]],
    "a call alone, without a list": [{"tool_calls": piece("weather", CITY, index=0, id="a")}],
    "without `function`": [[{"index": 0, "id": "a", "name": "weather", "arguments": CITY}]],
    "a custom tool": [[{"index": 0, "id": "a", "custom": {"name": "weather", "input": CITY}}]],
    "beside the older form of it": [
        {"tool_calls": [piece("weather", CITY, index=0, id="a")],
         "function_call": {"name": "weather", "arguments": CITY}}
    ],
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_one_call_comes_of_its_pieces(way: str) -> None:
    assert streamed(*WAYS[way]) == WEATHER


def test_the_older_form_has_no_id() -> None:
    pieces = [{"function_call": part} for part in ({"name": "f", "arguments": ""}, {"arguments": '{"a":'})]
    assert streamed(*pieces, {"function_call": {"arguments": " 1}"}}) == [{"name": "f", "arguments": '{"a": 1}'}]


TWO = [{"name": "f", "arguments": '{"a":1}'}, {"name": "g", "arguments": "{}"}]


@pytest.mark.parametrize(
    "deltas",
    [
        [[piece("f", None, index=0)], [piece("g", None, index=1)], [piece(None, "{}", index=1)],
         [piece(None, '{"a"', index=0)], [piece(None, ":1}", index=0)]],
        [[piece("f", '{"a":1}', index=0), piece("g", "{}", index=1)]],
        [[piece("f", '{"a":1}'), piece("g", "{}")]],
        [[piece("f"), piece("g")], [piece(None, '{"a"'), piece(None, "{")], [piece(None, ":1}"), piece(None, "}")]],
        [[piece("f", '{"a":1}')], [piece("g", "{}")]],
        [[piece("f", '{"a":1}', index=0)], [piece("g", "{}", index=0)]],
        [[piece("f", {"a": 1}, index=7)], [piece("g", {}, index=10**18)]],
    ],
)  # fmt: skip
def test_two_calls_are_two_however_they_are_numbered(deltas: Sequence[Sequence[Json]]) -> None:
    calls = streamed(*deltas)
    assert calls is not None
    assert [call["name"] for call in calls] == ["f", "g"]
    assert [json.loads(call["arguments"]) for call in calls] == [{"a": 1}, {}]


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    pieces = [piece(id="a"), piece("f", "{", id="a"), piece(id="b"), piece("g", "{", id="b")]
    ends = [piece(None, '"a":1}', id="a"), piece(None, "}", id="b")]
    assert streamed(*([one] for one in (*pieces, *ends))) == [
        {**call, "id": call_id} for call, call_id in zip(TWO, "ab", strict=True)
    ]


def test_calls_under_one_index_with_ids_of_their_own_are_two() -> None:
    calls = streamed([piece("f", "{}", index=0, id="a")], [piece("f", "{}", index=0, id="b")])
    assert calls == [{"name": "f", "arguments": "{}", "id": call_id} for call_id in "ab"]


def test_arguments_are_kept_as_they_were_sent_right_or_wrong() -> None:
    for text in ('{"a": 1,}', '{"a": "\n"}', "", "no JSON", '{"a":1}{"a":1} ', " { } "):
        assert streamed([piece("f", text[:3], index=0)], [piece(None, text[3:], index=0)]) == [
            {"name": "f", "arguments": text}
        ]
    assert streamed([piece("f", {"é": [1, 2.5, None]}, index=0)]) == [
        {"name": "f", "arguments": '{"é": [1, 2.5, null]}'}
    ]


def test_half_an_emoji_in_each_of_two_pieces_is_one_and_alone_it_can_be_stored() -> None:
    calls = streamed([piece("f", '"\ud83d', index=0)], [piece(None, '\ude00"', index=0)])
    assert calls == [{"name": "f", "arguments": '"😀"'}]
    calls = streamed([piece("f", "\ud83d", index=0)])
    assert calls is not None
    assert calls[0]["arguments"].encode()


@pytest.mark.parametrize(
    "nothing", [7, None, [], [3], {}, [{}], [{"index": 0}], [{"index": 0, "id": "a"}], [{"function": "f"}], "f"]
)
def test_what_is_no_call_is_none(nothing: Any) -> None:
    assert streamed({"tool_calls": nothing}) is None
    assert whole(content="a", tool_calls=nothing) is None


def test_a_reply_that_is_not_streamed_has_one_call_an_entry() -> None:
    calls = [{"id": "", "type": "function", "index": 0, **piece("f", '{"a":1}')}, piece("g", {})]
    assert whole(content=None, tool_calls=calls) == TWO
    assert whole(content=None, tool_calls=[calls[1], calls[1]]) == [TWO[1], TWO[1]]
    assert whole(content=None, function_call={"name": "g", "arguments": "{}"}) == [TWO[1]]


def test_many_pieces_take_time_and_memory_by_their_length() -> None:
    """Were each piece compared or joined with all before it, these would take minutes."""
    names = [f"n{n}" for n in range(30_000)]
    assert streamed(*([piece(name, "}", index=0)] for name in names)) == [
        {"name": "".join(names), "arguments": "}" * len(names)}
    ]
    calls = streamed([piece("f", "{}", index=n) for n in range(20_000)])
    assert calls is not None
    assert len(calls) == 20_000


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["{", "}", "{}"]),
    lambda kids: st.lists(kids, max_size=3) | st.dictionaries(st.text(max_size=3), kids, max_size=2), max_leaves=6,
)  # fmt: skip
PIECES = st.fixed_dictionaries(
    {}, optional={
        "index": st.sampled_from([0, 1, None, "0", 1.0, -1, True, 10**30]) | VALUES,
        "id": st.sampled_from(["a", "b"]) | VALUES,
        "function": st.fixed_dictionaries(
            {}, optional={"name": st.sampled_from(["f", "g", ""]) | VALUES, "arguments": VALUES}
        ) | VALUES,
        "custom": VALUES, "name": VALUES, "arguments": VALUES,
    },
)  # fmt: skip


@given(deltas=st.lists(st.lists(PIECES, max_size=3) | PIECES | VALUES, max_size=8))
def test_whatever_comes_is_calls_of_texts_or_none(deltas: list[Any]) -> None:
    for calls in (streamed(*({"tool_calls": one} for one in deltas)), whole(tool_calls=deltas)):
        for call in calls or []:
            assert {"name", "arguments"} <= call.keys() <= {"name", "arguments", "id"}
            assert all(isinstance(text, str) and text.encode() is not None for text in call.values())
            assert call["name"] or call["arguments"]


@given(cuts=st.lists(st.integers(0, 60), max_size=6), names=st.booleans(), ids=st.booleans(), index=st.booleans())
def test_a_call_is_the_same_wherever_it_is_cut(cuts: list[int], names: bool, ids: bool, index: bool) -> None:
    """Names and ids in every piece or in the first alone; numbered or not."""
    text = '{"city": "Paris {\\"} {", "legs": [{"km": 1}, {"km": 2}]}'
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    deltas = []
    for n, (start, end) in enumerate(pairwise(edges)):
        more = ({"index": 3} if index else {}) | ({"id": "a"} if ids or not n else {})
        deltas.append([piece("f" if names or not n else None, text[start:end], **more)])
    assert streamed(*deltas) == [{"name": "f", "arguments": text, "id": "a"}]


@pytest.mark.usefixtures("every_transport")
async def test_a_reply_of_calls_alone_is_an_answer() -> None:
    body = b"".join(event(delta(tool_calls=pieces)) for pieces in WAYS["arguments in pieces"])
    got = await try_once(stream(body + event(delta(finish="tool_calls")) + event("[DONE]")))
    assert got.reply is not None
    assert (got.reply.text, got.reply.tool_calls, got.reply.finish_reason) == ("", WEATHER, "tool_calls")
    message = {"role": "assistant", "content": None, "tool_calls": [piece("weather", CITY, id="a")]}
    data = json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    got = await try_once(status(200, data.encode(), content_type="application/json"))
    assert got.reply is not None
    assert got.reply.tool_calls == WEATHER


def test_replies_with_the_same_calls_say_the_same_whatever_their_ids() -> None:
    one, other = (Reply("a", None, None, None, None, None, [{**TWO[0], "id": call_id}, TWO[1]]) for call_id in "xy")
    assert one.answer == other.answer
    differ = {
        Reply(text, None, None, None, None, None, calls).answer
        for text, calls in (("a", None), ("", TWO), ("a", TWO), ("a", TWO[:1]), ("a", TWO[::-1]))
    }
    assert len(differ) == 5


def test_secrets_are_masked_in_every_text_of_a_call() -> None:
    secret = 'kv-secret-"0123456789'
    calls = [{"name": "f", "arguments": json.dumps({"key": secret}), "id": "a"}, {"name": secret, "arguments": "{}"}]
    redactor = Redactor(Secrets([secret]))
    assert redactor.holds("", None, None, None, None, calls)
    assert not redactor.holds("", None, None, None, None, TWO)
    masked = redactor.calls(calls)
    assert masked == [{"name": "f", "arguments": '{"key": "***"}', "id": "a"}, {"name": "***", "arguments": "{}"}]
    cut = [{"name": "f", "arguments": '{"key": "kv-secret-'}]
    assert redactor.calls(cut)[0]["arguments"] == '{"key": "***'


def test_pieces_in_any_order_of_indexes_give_each_call_its_own_text() -> None:
    rng = random.Random(7)
    for _ in range(200):
        texts = [json.dumps({"n": rng.randrange(10**6), "s": "x" * rng.randrange(9)}) for _ in range(3)]
        rest = {n: f"{text}" for n, text in enumerate(texts)}
        deltas: list[list[Json]] = [[piece(f"f{n}", "", index=n)] for n in range(3)]
        while any(rest.values()):
            n = rng.choice([n for n, text in rest.items() if text])
            cut = rng.randrange(1, 6)
            deltas.append([piece(None, rest[n][:cut], index=n)])
            rest[n] = rest[n][cut:]
        assert streamed(*deltas) == [{"name": f"f{n}", "arguments": text} for n, text in enumerate(texts)]

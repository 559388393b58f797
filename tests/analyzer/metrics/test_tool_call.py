"""Which tool calls an answer makes, and whether they are the right ones."""

import json
import socket
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.metrics.call_score import CallScore
from analyzer.metrics.calls_in_text import Call, calls_of
from analyzer.metrics.single import scorer
from analyzer.metrics.tool_call import fault_of_gold, judged, tools_of
from tests.worlds import metric_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "default": 1},
        "unit": {"enum": ["C", "F"], "default": "C"},
        "at": {"type": "object", "properties": {"hour": {"type": "number", "default": 12}, "zone": {"type": "string"}}},
        "legs": {"type": "array", "items": {"type": "object", "properties": {"km": {"type": "number", "default": 0}}}},
        "note": {"type": ["string", "null"]},
    },
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "stop"}},
]
META = {"tools": TOOLS}
PARIS = {"name": "weather", "arguments": {"city": "Paris"}}


def stored(*calls: tuple[str, Any]) -> str:
    """As `responses.tool_calls_json` has them: arguments are text."""
    return json.dumps(
        [
            {"name": name, "arguments": a if isinstance(a, str) else json.dumps(a), "id": f"c{n}"}
            for n, (name, a) in enumerate(calls)
        ]
    )


def score(prediction: str, *golds: Any, meta: Any = META) -> float:
    texts = [gold if isinstance(gold, str) else json.dumps(gold) for gold in golds]
    return metric_of("tool_call").score(prediction, texts, meta)


def is_formed(prediction: str, meta: Any = META) -> bool:
    form = metric_of("tool_call").format_ok
    assert form is not None
    return form(prediction, meta)


@pytest.mark.parametrize(
    ("given", "wanted", "same"),
    [
        ({"city": "Paris"}, {"city": "Paris"}, True),
        ({"days": 2, "city": "Paris"}, {"city": "Paris", "days": 2}, True),
        ({"city": "Paris", "days": 2.0}, {"city": "Paris", "days": 2}, True),
        ({"city": "Paris", "days": 1}, {"city": "Paris"}, True),
        ({"city": "Paris"}, {"city": "Paris", "days": 1, "unit": "C"}, True),
        ({"city": "Paris", "unit": "F"}, {"city": "Paris"}, False),
        ({"city": "Paris", "at": {}}, {"city": "Paris", "at": {"hour": 12.0}}, True),
        ({"city": "Paris", "legs": [{}, {"km": 1}]}, {"city": "Paris", "legs": [{"km": 0}, {"km": 1.0}]}, True),
        ({"city": "Paris", "legs": [{"km": 1}, {}]}, {"city": "Paris", "legs": [{}, {"km": 1}]}, False),
        ({"city": "Paris", "note": None}, {"city": "Paris"}, False),  # it has no default
        ({"city": " Orle\u0301ans\n"}, {"city": "Orléans"}, True),
        ({"city": "paris"}, {"city": "Paris"}, False),
        ({"city": "Paris."}, {"city": "Paris"}, False),
    ],
)  # fmt: skip
def test_arguments_are_compared_as_values(given: Any, wanted: Any, same: bool) -> None:
    gold = {"name": "weather", "arguments": wanted}
    assert score(stored(("weather", given)), gold) == float(same)
    assert score(stored(("weather", wanted)), {"name": "weather", "arguments": given}) == float(same)


@pytest.mark.parametrize(
    ("a", "b"), [(True, 1), (False, 0), (None, False), (None, 0), ("1", 1), ([], {}), ([1], 1), (0.1 + 0.2, 0.3)]
)
def test_values_of_other_kinds_are_not_the_same(a: Any, b: Any) -> None:
    assert score(stored(("f", {"x": a})), {"name": "f", "arguments": {"x": b}}, meta={}) == 0
    assert score(stored(("f", {"x": a})), {"name": "f", "arguments": {"x": a}}, meta={}) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda kids: st.lists(kids, max_size=3) | st.dictionaries(st.text(max_size=5), kids, max_size=3), max_leaves=12,
)  # fmt: skip


@given(arguments=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), JSON, max_size=4))
def test_any_arguments_are_those_that_they_are_however_they_are_written(arguments: Any) -> None:
    gold = json.dumps({"name": "f", "arguments": arguments})
    written = json.dumps(dict(reversed(arguments.items())), indent=2, ensure_ascii=False)
    for meta in ({}, {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}):
        assert score(stored(("f", written)), gold, meta=meta) == 1
        assert score(gold, gold, meta=meta) == 1  # as a text
        assert score(stored(("f", {**arguments, "other": "x" * 9})), gold, meta=meta) == 0


def test_a_tool_that_was_not_offered_is_never_right() -> None:
    assert score(stored(("nosuch", {})), {"name": "nosuch", "arguments": {}}) == 0
    assert score(stored(("nosuch", {})), {"name": "nosuch", "arguments": {}}, meta={}) == 1


def test_one_answer_is_scored_with_its_marks() -> None:
    assert scorer("tool_call")(WRITTEN["harmony"], [json.dumps(PARIS)], META) == 1


def test_calls_that_belong_together_are_all_made_in_any_order_and_no_others() -> None:
    rome = {"name": "weather", "arguments": {"city": "Rome"}}
    both = [PARIS, rome]
    assert score(stored(("weather", {"city": "Rome"}), ("weather", {"city": "Paris"})), both) == 1
    assert score(stored(("weather", {"city": "Rome"}), ("weather", {"city": "Rome"})), both) == 0
    assert score(stored(("weather", {"city": "Rome"})), both) == 0
    assert score(stored(*[("weather", {"city": city}) for city in ("Rome", "Paris", "Rome")]), both) == 0
    assert score(stored(("weather", {"city": "Rome"})), PARIS, rome) == 1  # two golds: either
    assert score(stored(("stop", "")), both, {"name": "stop", "arguments": {}}) == 1


def test_where_no_call_is_right_any_call_is_wrong_and_any_text_is_right() -> None:
    for golds in ((), ("",), ("[]",)):
        assert (score("", *golds), score("I can't do that.", *golds)) == (1, 1)
        assert score(stored(("stop", {})), *golds) == 0
    assert (score("", PARIS), score("", PARIS, "[]"), score(stored(("stop", {})), PARIS, "[]")) == (0, 1, 0)


PARTS = [
    (stored(("weather", {"city": "Paris"})), CallScore(True, True, True, True), True),
    (stored(("weather", {"city": "Rome"})), CallScore(True, True, True, False), True),
    (stored(("stop", {})), CallScore(True, True, False, False), True),
    (stored(("nosuch", {"city": "Paris"})), CallScore(True, True, False, False), True),
    (stored(("weather", {"town": "Paris"})), CallScore(True, False, False, False), False),
    (stored(("weather", {"city": "Paris", "days": "2"})), CallScore(True, False, False, False), False),
    (stored(("weather", "")), CallScore(True, False, False, False), False),  # no arguments, and city is required
    (stored(("weather", '{"city": "Paris"')), CallScore(False, False, False, False), False),
    (stored(("weather", "Paris")), CallScore(False, False, False, False), False),
    (stored(("weather", '"{}"')), CallScore(False, False, False, False), False),
    (stored(("weather", '{"city": NaN}')), CallScore(False, False, False, False), False),
    (stored(("weather", '{"a":' * 100_000)), CallScore(False, False, False, False), False),
    ('<tool_call>{"name": "weather", "arguments": {"city": </tool_call>', CallScore(False, False, False, False), False),
    ("It is sunny in Paris.", CallScore(True, True, False, False), True),
]


@pytest.mark.parametrize(("prediction", "parts", "formed"), PARTS)
def test_each_part_of_a_score_can_be_told(prediction: str, parts: CallScore, formed: bool) -> None:
    assert judged(prediction, [json.dumps(PARIS)], META) == parts
    assert score(prediction, PARIS) == float(parts.is_right)
    assert is_formed(prediction) == formed


WRITTEN = {
    "JSON": '{"name": "weather", "arguments": {"city": "Paris"}}',
    "a list, with white space": '\n [{"name": "weather", "arguments": {"city": "Paris"}}] \n',
    "parameters (Llama)": '{"name": "weather", "parameters": {"city": "Paris"}}',
    "a wrapper": '{"tool_calls": [{"function": {"name": "weather", "arguments": "{\\"city\\": \\"Paris\\"}"}}]}',
    "a python tag": '<|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}',
    "a function tag": '<function=weather>{"city": "Paris"}</function>',
    "Hermes": 'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>',
    "Hermes, not closed": '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}',
    "Mistral": '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}]',
    "Mistral, newer": '[TOOL_CALLS]weather[CALL_ID]a1[ARGS]{"city": "Paris"}',
    "Mistral, shorter": '[TOOL_CALLS]weather{"city": "Paris"}',
    "a fence": 'The call is\n```json\n{"name": "weather", "arguments": {"city": "Paris"}}\n```\nDone.',
    "behind reasoning": '<think>{"name": "stop"}</think>{"name": "weather", "arguments": {"city": "Paris"}}',
    "harmony": '<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.weather '
               '<|constrain|>json<|message|>{"city": "Paris"}<|call|>',
    "harmony, the other way": '<|start|>assistant to=functions.weather<|channel|>commentary<|message|>{"city":"Paris"}',
}  # fmt: skip


@pytest.mark.parametrize("way", WRITTEN)
def test_a_call_that_stands_in_the_text_is_one(way: str) -> None:
    assert calls_of(WRITTEN[way]) == [Call("weather", {"city": "Paris"})]
    assert score(WRITTEN[way], PARIS) == 1


@pytest.mark.parametrize(
    "text",
    ["", "weather(city='Paris')", '{"city": "Paris"}', '{"name": "Ada"}', "[1, 2]", '["weather"]', "{", "null",
     'Call {"name": "weather", "arguments": {}} now', '<think>{"name": "weather", "arguments": {}}</think>no',
     '```json\n{"name": "weather", "arguments": {}}\n``` or ```json\n{}\n```', "[TOOL_CALLS", "<function>"],
)  # fmt: skip
def test_what_reads_like_a_call_is_none(text: str) -> None:
    assert calls_of(text) == []


def test_several_calls_in_a_text_are_several() -> None:
    two = [Call("a", {}), Call("b", {"x": [1]})]
    for text in (
        '<tool_call>{"name":"a","arguments":{}}</tool_call>\n<tool_call>{"name":"b","arguments":{"x":[1]}}</tool_call>',
        '[{"name":"a","arguments":{}},{"name":"b","arguments":{"x":[1]}}]',
        '<function=a>{}</function><function=b>{"x": [1]}</function>',
        '[TOOL_CALLS]a[ARGS]{}[TOOL_CALLS]b[ARGS]{"x": [1]}',
    ):
        assert calls_of(text) == two


def test_marks_inside_of_stored_arguments_mean_nothing() -> None:
    odd = {
        "x": '<think><tool_call>{"name":"stop","arguments":{}}</tool_call>[TOOL_CALLS]```<|channel|>to=f<|message|>{}'
    }
    assert calls_of(stored(("f", odd))) == [Call("f", odd)]


@given(
    st.text()
    | st.lists(st.sampled_from([*WRITTEN.values(), "<tool_call>", "</tool_call>", "{", "```", "\n", "x"])).map("".join)
)
def test_any_text_has_calls_or_none(text: str) -> None:
    assert isinstance(calls_of(text), list)
    assert score(text, PARIS) in (0, 1)


@pytest.mark.parametrize(
    "part", ["{", "[", " ", "<tool_call>", "<tool_call>{", "<function=f>", "<function=f>{", "[TOOL_CALLS]", "```",
             "to=f", "<|channel|>to=", "`", "a", "[TOOL_CALLS]a[", "<tool_call>{} ", '{"name":', "<|message|>"]
)  # fmt: skip
def test_a_long_text_takes_time_by_its_length(part: str) -> None:
    """A search that tries a text again from each place would take minutes."""
    for head in ("", "<|channel|>", "<tool_call>", "[TOOL_CALLS]", "```\n"):
        assert isinstance(calls_of(head + part * (100_000 // len(part))), list)


def test_a_schema_is_never_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked: list[Any] = []
        listener.settimeout(0.2)

        def listen() -> None:
            try:
                asked.append(listener.accept())
            except TimeoutError:
                return

        thread = threading.Thread(target=listen)
        thread.start()
        schema = {"$ref": f"http://127.0.0.1:{listener.getsockname()[1]}/s.json"}
        meta = {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}
        assert not is_formed(stored(("f", {})), meta)
        assert "can't be applied" in fault_of_gold('{"name": "f", "arguments": {}}', meta)
        thread.join()
    assert not asked


def test_references_within_a_schema_hold() -> None:
    schema = {"$defs": {"n": {"type": "integer"}}, "type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}
    meta = {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}
    assert is_formed(stored(("f", {"n": 1})), meta)
    assert not is_formed(stored(("f", {"n": "1"})), meta)
    endless = {"$ref": "#"}
    meta = {"tools": [{"type": "function", "function": {"name": "f", "parameters": endless}}]}
    assert not is_formed(stored(("f", {})), meta)


@pytest.mark.parametrize(
    ("gold", "says"),
    [
        ("Paris", "it is no call"),
        ('{"name": "weather", "arguments": "x"}', "it is no call"),
        ('{"name": "wether", "arguments": {"city": "Paris"}}', "the row has no tool 'wether'"),
        ('{"name": "weather", "arguments": {"city": 3}}', "arguments['city'] don't fit the tool's schema: 3 is not of"),
        ('{"name": "weather", "arguments": {}}', "'city' is a required property"),
        ('{"name": "weather", "arguments": {"city": "Paris"}}', ""),
        ("[]", ""),
    ],
)  # fmt: skip
def test_why_a_gold_cannot_be_matched_is_told(gold: str, says: str) -> None:
    fault = fault_of_gold(gold, META)
    assert (says in fault) if says else not fault


def test_parameters_that_are_no_schema_are_told() -> None:
    odd = [{"type": "function", "function": {"name": "f", "parameters": {"type": "dict"}}}]
    assert "'f' are no JSON Schema: 'dict'" in str(tools_of({"tools": odd}).broken())
    assert tools_of(META).broken() is None

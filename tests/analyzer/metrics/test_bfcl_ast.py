"""BFCL's score: equal to the official checker on stored replies; reasoning, and calls in a text, as kvt reads them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.metrics.bfcl_ast import judged
from analyzer.metrics.bfcl_literals import JAVA, JAVASCRIPT
from analyzer.metrics.bfcl_python import Undecodable, decoded
from analyzer.metrics.call_score import CallScore
from analyzer.metrics.single import accepted_calls, scorer
from tests.worlds import metric_of

GOLDEN = Path(__file__).parents[1] / "golden" / "bfcl_ast.jsonl"
score = scorer("bfcl_ast")

FERRY: dict[str, Any] = {
    "name": "ferry.book",
    "description": "Books.",
    "parameters": {
        "type": "dict",
        "properties": {"route": {"type": "string"}, "seats": {"type": "integer"}, "car": {"type": "boolean"}},
        "required": ["route"],
    },
}
ACCEPTED = json.dumps([{"ferry.book": {"route": ["Oslo-Kiel"], "seats": [2], "car": ["", True]}}])


def of(mode: str = "prompt", category: str = "simple_python") -> dict[str, Any]:
    return {"bfcl": {"category": category, "mode": mode, "functions": [FERRY]}}


def stored(**arguments: Any) -> str:
    return json.dumps([{"name": "ferry_book", "arguments": json.dumps(arguments), "id": "c"}])


CUT_SHORT = json.dumps([{"name": "ferry_book", "arguments": '{"route": "Oslo', "id": "c"}])


def test_every_stored_reply_scores_as_the_official_checker_scored_it() -> None:
    table, *rows = map(json.loads, GOLDEN.read_text().splitlines())
    differing = []
    for row in rows:
        functions = [dict(table["functions"][name]) for name in row["functions"]]
        if "required" in row:
            functions[0]["parameters"] = {**functions[0]["parameters"], "required": row["required"]}
        meta = {"bfcl": {"category": row["category"], "mode": row["mode"], "functions": functions}}
        if score(row["prediction"], row["golds"], meta) != (row["score"] or 0.0):  # null: the official check stops
            differing.append(row)
    assert differing == []
    assert {row["score"] for row in rows} == {0.0, 1.0, None}
    assert len(rows) > 1900


@pytest.mark.parametrize(
    "text",
    [
        "<think>[f()]</think>[ferry.book(route='oslo kiel', seats=2)]",
        "I book.</think>\n\nferry.book(route='Oslo/Kiel', seats=4//2, car=True)",
    ],
)
def test_reasoning_before_the_calls_is_left_out(text: str) -> None:
    assert score(text, (ACCEPTED,), of()) == 1


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "ferry_book", "arguments": {"route": "Oslo-Kiel", "seats": 2}}\n</tool_call>',
        '{"name": "ferry_book", "parameters": {"route": "Oslo-Kiel", "seats": 2}}',
        stored(route="Oslo-Kiel", seats=2),
    ],
)
def test_in_mode_fc_calls_in_the_text_count_as_those_of_the_reply(text: str) -> None:
    assert score(text, (ACCEPTED,), of("fc")) == 1
    assert score(text, (), of("fc", "irrelevance")) == 0
    assert score(text.replace("ferry_book", "ferry.book"), (ACCEPTED,), of("fc")) == 0  # it was offered with _


@pytest.mark.parametrize(
    ("mode", "reply", "parts"),
    [
        ("fc", stored(route="Oslo-Kiel", seats=2), CallScore(True, True, True, True)),
        ("fc", stored(route="Oslo-Kiel", seats=3), CallScore(True, True, True, False)),
        ("fc", stored(), CallScore(True, False, False, False)),  # the required one is missing
        ("fc", stored(route="Oslo-Kiel", boat=1), CallScore(True, False, False, False)),
        ("fc", stored(route="Oslo-Kiel", seats=2).replace("ferry", "bus"), CallScore(True, False, False, False)),
        ("fc", CUT_SHORT, CallScore(False, False, False, False)),
        ("fc", "Shall I book?", CallScore(True, True, False, False)),  # nothing is broken, and nothing called
        ("prompt", "Shall I book?", CallScore(False, False, False, False)),
        ("prompt", "[ferry.book(route='x'), ferry.book(route='y')]", CallScore(True, True, False, False)),
    ],
)
def test_what_is_broken_is_told_apart(mode: str, reply: str, parts: CallScore) -> None:
    assert judged(reply, (ACCEPTED,), of(mode)) == parts


def test_no_call_is_a_fault_of_form_in_a_prompt_that_asks_for_calls_alone() -> None:
    has_form = metric_of("bfcl_ast").format_ok
    assert has_form is not None
    assert not has_form("Shall I book?", of("prompt"))
    assert has_form("Shall I book?", of("fc"))
    assert has_form("Shall I book?", of("prompt", "irrelevance"))
    assert not has_form(CUT_SHORT, of("fc"))


def test_accepted_calls_are_held_against_their_own_check() -> None:
    assert accepted_calls((ACCEPTED,), of()) == ""
    broken = json.dumps([{"ferry.book": {"route": ["a"], "boat": [1]}}])
    assert "don't pass the check themselves" in accepted_calls((broken,), of("fc"))
    assert accepted_calls((), of("fc", "irrelevance")) == ""
    assert accepted_calls((), of()) == "it has no ground truth"


@pytest.mark.parametrize(
    "text",
    [
        "f(a=9**9**9)",
        "f(a=1<<99999)",
        "f(a='x'*10**9)",
        "f(a='%999999999d' % 1)",
        "f(a=[0]*10**9)",
        "f(a=10**200*10**2000)",
    ],
)
def test_arithmetic_of_any_size_costs_nothing(text: str) -> None:
    with pytest.raises(Undecodable):
        decoded(text)


def test_nothing_of_an_answer_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    text = f"f(a=1+__import__('pathlib').Path({str(mark)!r}).write_text('x'))"
    with pytest.raises(Undecodable):
        decoded(text)
    assert decoded(f"f(a=open({str(mark)!r}, 'w'))") == [{"f": {"a": f"open({str(mark)!r}, 'w')"}}]
    assert not mark.exists()


@given(
    st.text(max_size=60) | st.text(alphabet="f(){}[]=,'\"1.+-*:a \n`%<>", max_size=40),
    st.sampled_from(["fc", "prompt"]),
)
def test_any_text_has_a_score(text: str, mode: str) -> None:
    assert score(text, (ACCEPTED,), of(mode)) in (0.0, 1.0)
    assert score(text, (), of(mode, "irrelevance")) == 1 - score(text, (), of(mode, "live_relevance"))


@pytest.mark.parametrize(
    ("text", "word", "items"),
    [
        ("[[" + "1],[" * 40, "array", None),
        ("new Array(" + "[1]," * 40, "array", "integer"),
        ("{" + "a" * 100_000 + "}", "dict", None),
        ("new ArrayList<>() {{" + " " * 1900, "ArrayList", "String"),
        ("new HashMap<>() {{" + " " * 1900, "HashMap", None),
        ("new ArrayList<>() {{ " * 5000, "ArrayList", "String"),
        ("new HashMap<>() {" * 8000, "HashMap", None),
        ("new int[] {" * 10_000, "Array", "integer"),
    ],
)
def test_a_list_or_map_without_an_end_is_no_endless_search(text: str, word: str, items: str | None) -> None:
    language = JAVASCRIPT if word in ("array", "dict") else JAVA
    value = language.read(text, word, items)
    assert value == text or len(value) <= 1


@pytest.mark.parametrize(
    ("text", "word", "value"),
    [
        ("[[1], [2, 3]]", "array", [[1], [2, 3]]),
        ("[ [1,\n2]]", "array", "[ [1,\n2]]"),
        ("[[1],[2]] and [3]]", "array", [[1], [2]]),
        ("new Array([1], [2])", "array", [[1], [2]]),
        ("{a: 1, b: 'x'}", "dict", {"a": 1, "b": "x"}),
        ('new ArrayList<>() {{ add("x"); add("y"); }}', "ArrayList", ["x", "y"]),
        ('new HashMap<String, Integer>() {{ put("a", 1); }}', "HashMap", {"a": 1}),
        ("new ArrayList<>() {{ }}", "ArrayList", []),
    ],
)
def test_lists_and_maps_of_other_languages_are_read_by_their_patterns(text: str, word: str, value: Any) -> None:
    language = JAVASCRIPT if word in ("array", "dict") else JAVA
    assert language.read(text, word, "String" if word == "ArrayList" else None) == value

"""IFEval's checks: decided as the authors' code decides, and the same whoever asks, how often and in what place."""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.metrics import find
from analyzer.metrics.instruction_checks import INSTRUCTIONS, fault, followed
from analyzer.metrics.instruction_text import count_sentences, language_of
from analyzer.metrics.instructions import judged, meta_fault
from analyzer.metrics.single import scorer

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "golden/ifeval.jsonl").read_text(encoding="utf-8").splitlines()
]
MARKS = st.lists(
    st.sampled_from(["*", "-", "a", " ", "\n", "\r", "[", "]", "<<", ">>", "<", ">", "\t", "\x85"]), max_size=24
)


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    return {"instruction_id_list": row["instruction_id_list"], "kwargs": row["kwargs"]}


def test_strict_and_loose_decide_as_the_official_checks() -> None:
    for row in ROWS:
        assert meta_fault(_meta(row)) == ""
        assert judged(row["answer"], _meta(row)) == row["strict"], row
        assert judged(row["answer"], _meta(row), loose=True) == row["loose"], row


def test_the_pairs_hold_each_type_followed_and_not_and_prompts_of_several() -> None:
    decisions: dict[str, Counter[bool]] = defaultdict(Counter)
    for row in ROWS:
        for name, follows in zip(row["instruction_id_list"], row["strict"], strict=True):
            decisions[name][follows] += 1
    assert set(decisions) == set(INSTRUCTIONS)
    assert len(INSTRUCTIONS) == 25
    assert all(min(each[True], each[False]) >= 3 for each in decisions.values()), decisions
    assert {len(row["kwargs"]) for row in ROWS} >= {1, 2, 3, 4}
    assert any(row["strict"] != row["loose"] for row in ROWS)


def test_the_scores_are_all_instructions_and_their_share() -> None:
    meta = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}
    scores = {name: scorer(f"ifeval_{name}") for name in ("strict", "loose", "instructions")}
    assert [scores[name]("one, two", (), meta) for name in scores] == [0.0, 0.0, 0.0]
    assert [scores[name]("one two", (), meta) for name in scores] == [0.0, 0.0, 0.5]
    assert [scores[name]('Sure:\n"one two"', (), meta) for name in scores] == [0.0, 1.0, 0.5]
    assert [scores[name]('"one two"', (), meta) for name in scores] == [1.0, 1.0, 1.0]
    assert [scores[name](" \n", (), meta) for name in scores] == [0.0, 0.0, 0.0]


def test_reasoning_is_not_judged() -> None:
    meta = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    assert scorer("ifeval_strict")("<think>well, well</think>\nYes", (), meta) == 1.0


def test_a_character_that_is_no_letter_is_counted_and_not_drawn() -> None:
    given = {"letter": "#", "let_frequency": 2, "let_relation": "at least"}
    assert [followed("keywords:letter_frequency", given, text) for text in ("#a #b", "#a b")] == [True, False]


def test_one_text_has_one_language() -> None:
    """langdetect draws: without a seed this word is Finnish three times out of four, else Dutch."""
    assert len({language_of("hello") for _ in range(30)}) == 1
    assert language_of("12 34") is None
    assert language_of("Il guardiano del faro scrisse una lunga lettera sulle navi.") == "it"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [("Dr. Smith went home. He slept.", 2), ("It was 3.5 p.m. in Ohio", 1), ("One! Two? Three...", 3), ("", 0)],
)
def test_sentences_are_those_of_the_english_model(text: str, sentences: int) -> None:
    assert count_sentences(text) == sentences


@given(MARKS)
def test_marks_are_counted_as_the_official_patterns_count_them(marks: list[str]) -> None:
    """Ours read each line once: these patterns take the square of a long run of blank lines or brackets."""
    text = "".join(marks)
    bullets = len(re.findall(r"^\s*\*[^\*].*$", text, re.M)) + len(re.findall(r"^\s*-.*$", text, re.M))
    places = len(re.findall(r"\[.*?\]", text))
    titled = any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", text))
    check = {name.partition(":")[2]: each.check for name, each in INSTRUCTIONS.items()}
    assert check["number_bullet_lists"](text, {"num_bullets": bullets})
    assert check["number_placeholders"](text, {"num_placeholders": places})
    assert not check["number_placeholders"](text, {"num_placeholders": places + 1})
    assert check["title"](text, {}) == titled


@pytest.mark.parametrize("mark", ["\n", "[", "<<", "*", ".", " ", "\n***\n"])
def test_an_answer_that_repeats_itself_for_long_is_judged_at_once(mark: str) -> None:
    """Each takes milliseconds; what goes with the square of the length would take minutes."""
    pairs = (zip(row["instruction_id_list"], row["kwargs"], strict=True) for row in ROWS)
    for name, arguments in dict(pair for row in pairs for pair in row).items():
        followed(name, arguments, mark * 40_000)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("keywords:existance", {}, "there is no instruction 'keywords:existance'"),
        ("keywords:existence", {"keywords": []}, "needs keywords, a list of texts"),
        ("keywords:existence", {"keywords": ["("]}, "a regular expression, not '('"),
        ("keywords:frequency", {"keyword": "a", "relation": "at most", "frequency": 1}, "'less than' or 'at least'"),
        ("length_constraints:number_words", {"relation": "at least"}, "needs num_words, a whole number, not None"),
        ("length_constraints:number_words", {"relation": "at least", "num_words": True}, "a whole number, not True"),
        ("language:response_language", {"language": "zh"}, "a language among ar, bg"),
        ("keywords:letter_frequency", {"letter": "ab"}, "one letter, not 'ab'"),
        ("punctuation:no_comma", None, "the arguments of punctuation:no_comma are no object"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"},
            "a number from 1 to num_paragraphs (2), not 3",
        ),
    ],
)
def test_an_instruction_that_cannot_be_judged_says_why(name: str, arguments: Any, words: str) -> None:
    assert words in fault(name, arguments)


def test_meta_without_instructions_says_so() -> None:
    assert "instruction_id_list is no list" in meta_fault({})
    assert "instruction_id_list is no list" in meta_fault({"instruction_id_list": [], "kwargs": []})
    assert "kwargs is no list" in meta_fault({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []})
    metric = find("ifeval_strict")
    assert metric is not None
    assert not metric.reads_golds

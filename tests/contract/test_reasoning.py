"""What of an answer is reasoning, whatever marks it and whoever opened it."""

import re
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.metrics.fast.overlap import answers, has_reasoning
from kvt_async.contract.formulas import reasoning
from kvt_async.contract.formulas.reasoning import closes_what_it_never_opened, left_open, strip_reasoning

PAIRS = [
    ("<think>", "</think>"), ("<THINK>", "</THINK>"), ("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>"),
    ("<thought>", "</thought>"), ("< think >", "</ think>"), ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"),
    ("<seed:think>", "</seed:think>"), ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"), ("<|channel>thought\n", "<channel|>"),
    ("<scratchpad>", "</scratchpad>"), ("<reflection>", "</reflection>"), ("<analysis>", "</analysis>"),
    ("<|thinking|>", "<|/thinking|>"), ("<unused94>thought\n", "<unused95>"),
]  # fmt: skip
FINAL = "<|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_every_known_pair_of_marks_holds_reasoning_closed_or_not(opening: str, closing: str) -> None:
    assert strip_reasoning(f"{opening}is it 6?{closing} 7\n") == "7"
    assert strip_reasoning(f"is it 6?\n{closing}\n\n7") == "7"  # opened by the chat template
    assert strip_reasoning(f"7 {opening}or is it") == "7"
    assert strip_reasoning(f"{opening}or is it") == ""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think>1<think>b</think>2", "12"),
        ("<think>a</think> perhaps 6 </think> 7", "7"),  # closed twice
        ("<think>\n<think>a</think> 6 </think>7", "7"),  # opened twice
        ("a</think>b</think>7", "7"),
        ("<think>a</thinking>7", "7"),
        ("<|channel|>analysis<|message|>6?<|end|>" + FINAL + "7", "7"),
        ("<|channel|>analysis<|message|>6?<|end|>" + FINAL + "7<|return|>", "7"),
        (FINAL + "6<|end|>" + FINAL + "7", "7"),
        ("<|channel|>final <|constrain|>json<|message|>{}", "{}"),
        ("<|channel|>analysis<|message|>6? 7?", ""),
        ("<|channel|>commentary to=functions.f<|message|>{}<|call|>", ""),
        ("analysisIs it 6? No.assistantfinal7", "7"),  # the same without its marks
        ("<think/>7", "7"),
        ("<think>6?</think>\n<answer>7</answer>", "7"),
        ("6?</think><answer>\n7\n</answer>\n", "7"),
        ("<think>an <answer>6</answer>?</think>7", "7"),
        ("<|START_THINKING|>6?<|END_THINKING|><|START_RESPONSE|>7<|END_RESPONSE|>", "7"),
        ("<|begin_of_thought|>6?<|end_of_thought|>\n\n<|begin_of_solution|>7<|end_of_solution|>", "7"),
        ("<answer>7</answer>", "<answer>7</answer>"),  # no reasoning, no frame of ours
        ("an analysis gives 7", "an analysis gives 7"),
        ("if a < think and b > 7", "if a < think and b > 7"),
        ("  7\t", "7"),
    ],
)
def test_what_is_left_is_the_answer(text: str, answer: str) -> None:
    assert strip_reasoning(text) == answer


PIECES = st.sampled_from(
    [mark.strip() for pair in PAIRS for mark in pair]
    + ["<|channel|>", "final", "analysis", "<|message|>", "<|end|>", FINAL, "assistantfinal", "<|return|>"]
    + [
        "<think/>",
        "<answer>",
        "</answer>",
        "<|START_RESPONSE|>",
        "<|END_RESPONSE|>",
        "7",
        "a b",
        "\n",
        " ",
        "<",
        "[",
        "\u212a",
        "\x1c",
        "\u2003",
    ]
)


@given(st.lists(st.lists(PIECES, max_size=9).map("".join), max_size=4))
def test_the_column_rule_is_the_rule_for_one_text(texts: list[Any]) -> None:
    column = pl.Series("text", texts, dtype=pl.String)
    marked = column.to_frame().select(has_reasoning(pl.col("text"))).to_series()
    assert marked.to_list() == [reasoning.has_reasoning(text) for text in texts]
    assert answers(column, marked).to_list() == [strip_reasoning(text) for text in texts]


@given(st.lists(PIECES, max_size=9).map("".join))
def test_nothing_before_the_last_closing_mark_that_none_opened_is_scored(before: str) -> None:
    unopened = before.translate(dict.fromkeys(map(ord, "<[◁"), "("))
    assert strip_reasoning(f"secret {unopened}</think> 7") == "7"


def test_a_prompt_tells_whether_it_leaves_reasoning_open() -> None:
    assert left_open("<assistant>\n<think>\n") == "<think>"
    assert left_open("<assistant>[THINK]") == "[THINK]"
    assert left_open("<assistant>\n<think>\n\n</think>\n\n") is None
    assert left_open("<assistant>\n") is None


def test_only_a_text_that_goes_on_from_an_open_mark_closes_what_it_never_opened() -> None:
    assert closes_what_it_never_opened("so it is 7</think>7")
    assert closes_what_it_never_opened("so</think>7<think>or</think>")
    assert not closes_what_it_never_opened("<think>so</think>7</think>")
    assert not closes_what_it_never_opened("<think>so")
    assert not closes_what_it_never_opened("7")


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<think/>", "[/THINK]", " a", "\n", "<", "answer>"]), max_size=12)
)
def test_pairs_are_taken_out_as_the_pattern_says(parts: list[str]) -> None:
    text = "".join(parts)
    assert reasoning._without_pairs(text) == re.sub(reasoning.PAIR, "", text)


def test_opening_marks_that_nothing_closes_cost_no_search_each() -> None:
    assert strip_reasoning("so </think> 4 " + "<think>x " * 40_000) == "4"
    assert strip_reasoning("<think>x </think>y " * 20_000).split() == ["y"] * 20_000

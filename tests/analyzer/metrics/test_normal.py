"""The normal form of short answers: what is the same answer and what is another."""

import re
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.metrics.fast.overlap import normalised
from analyzer.metrics.normal import WHITE, normalise, token_f1

LETTERS = "aAbBeEiİéÉßςΣＡµμ\u0301\u0307\u1100\u1161"
SPACES = " \t\n\r\x1c\x85\u00a0\u202f\u2003\u3000\u200b\u00ad"
MARKS = ".,;!-_$%‰°≤∞^~`'\"«»¿。、/:+#*<>=()€½−–’"
TEXTS = st.text(alphabet=st.sampled_from(LETTERS + SPACES + MARKS + "012345３"), max_size=30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  The  Cat.\n", "the cat"),
        ("Hél-lo,  «World»!", "héllo world"),
        ("don't", "dont"),
        ("U.S.A.", "usa"),
        ("covid-19 and GPT-4", "covid19 and gpt4"),
        ("**Lisbon**", "lisbon"),
        ("- Lisbon - the capital", "lisbon the capital"),
        ("> Lisbon", "lisbon"),
        ("It was 1990.", "it was 1990"),
        ("see #1, then the end ...", "see 1 then the end"),
        (" \n", ""),
    ],
)
def test_it_is_in_lower_case_without_marks_and_with_single_spaces(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3.5", "35"), (".5", "5"), ("v1.2.3", "v123"), ("-5", "5"), ("(-5)", "(5)"), ("\N{MINUS SIGN}5", "5"),
        ("-.5", ".5"), ("1e-5", "1e5"), ("10^-3", "10^3"), ("2^3", "23"), ("1/2", "12"), ("½", "12"),
        ("10:30", "1030"), ("10-20", "1020"), ("10–20", "1020"), ("3,5", "35"), ("5'10", "510"), ("<5", ">5"),
        (">=5", ">5"), ("x=5", "x5"), ("50%", "50"), ("$5", "€5"), ("$5", "5"), ("1,-5", "1,5"), ("A-", "A"),
        ("C++", "C#"), ("C++", "C"), ("C#", "C"), (".NET", "NET"),
        ("A-", "A+"), ("Na+", "Na"), ("Cl-", "Cl"), ("18+", "18"), ("a + b", "a * b"), ("3 - 2", "3 + 2"), ("+", "*"),
        ("+", ""), ("?", "!"), ("...", ""), ("é", "e"), ("10²", "102"),
        ("2**3", "23"), ("1;2", "12"), ("5‰", "5"), ("5‰", "5%"), ("-∞", "∞"), ("-π", "π"), ("-x", "x"),
        ("1/-2", "1/2"), ("-5…-3", "-5…3"), ("SO42-", "SO42"), ("< 5", "> 5"), ("≤ 5", "≥ 5"), ("|-5|", "|5|"),
    ],
)  # fmt: skip
def test_a_mark_that_carries_the_value_makes_another_answer(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)
    assert normalise(f"It is {one}.") != normalise(f"It is {other}.") or not one.strip(".?!+")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,000", "1000"), ("1,234,567.50", "1234567.50"), ("12,34,567", "1234567"), ("1'000", "1000"),
        ("1\u202f000", "1000"), ("(3.5)", "3.5"), ("3.5.", "3.5"), ("50%", "50 %"), ("$ 5", "$5"), ("5 €", "€5"),
        ("10–20", "10-20"), ("−5", "-5"), ("½", "1/2"), ("C++.", "c++"), ("it is -5!", "It is −5"), ("5 %.", "5%"),
        ("5.50€", "€5.50"), ("-5€", "-€5"), ("US$5", "US $5"),
        ("cafe\u0301", "café"), ("ZU\u0308RICH", "Zürich"), ("\u1112\u1161\u11ab", "한"), ("３５", "35"),
        ("so\u00adlar", "solar"), ("a\u200bb", "ab"), ("Straße", "STRASSE"), ("İstanbul", "istanbul"), ("ΟΔΟΣ", "οδος"),
        ("it’s", "it's"), ("Ａ", "a"), ("`-5`", "-5"), ("{-5}", "-5"), ("20 °C", "20°C"), ("1e+5", "1E5"),
        ("< 5", "<5"), ("≥ 5", "≥5"), ("5 \N{MICRO SIGN}m", "5 \N{GREEK SMALL LETTER MU}m"), ("5 ‰", "5‰"),
    ],
)  # fmt: skip
def test_the_same_answer_in_another_spelling_is_the_same(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)
    assert normalise(f"so {one}, then") == normalise(f"so {other}, then")


@pytest.mark.parametrize(
    ("one", "other"), [("3.5", "35"), ("-5", "5"), ("1/2", "12"), ("50%", "50"), ("$5", "€5"), ("C++", "C#"), ("+", "")]
)
def test_another_value_shares_no_word(one: str, other: str) -> None:
    assert token_f1(normalise(one), normalise(other)) == 0


@given(st.lists(TEXTS, max_size=5))
def test_the_column_rule_is_the_rule_for_one_text(texts: list[Any]) -> None:
    column = pl.DataFrame({"text": texts}, schema={"text": pl.String}).select(normalised(pl.col("text")))
    assert column.to_series().to_list() == [normalise(text) for text in texts]


@given(TEXTS)
def test_a_normal_form_is_empty_only_for_white_space_and_what_cannot_be_seen(text: str) -> None:
    once = normalise(text)
    assert once == " ".join(once.split(" "))
    assert bool(once) == bool(re.search(f"[^{WHITE}\u200b\u00ad]", text))
    assert token_f1(once, once) == 1


@given(st.decimals(min_value=0, max_value=10**9, allow_nan=False, places=2), st.sampled_from(["", "-"]))
def test_two_numbers_are_one_answer_exactly_where_they_are_one_number(value: Any, sign: str) -> None:
    assert normalise(f"{sign}{value:,}") == normalise(f"({sign}{value})") == f"{sign}{value}"

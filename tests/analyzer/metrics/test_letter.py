"""Multiple choice: the letter an answer settles on, and none where it settles on none."""

import re
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.metrics import letter
from analyzer.metrics.letter import gold_letter, letter_of
from tests.worlds import metric_of

LETTERS = st.sampled_from(string.ascii_uppercase)
OPTIONS = st.sampled_from("BCDEFGH")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("b", "B"), ("(b)", "B"), ("**B**", "B"), ("Answer: B", "B"), ("I", "I"), ("\\boxed{C}", "C"),
        ("$\\text{D}$", "D"), ("I think the answer is B.", "B"), ("The answer is (B) Paris.", "B"),
        ("the answer is a) Paris", "A"), ("The answer is A because it is longer", "A"), ("答案是B。", "B"),
        ("（Ｂ）", "B"),
        ("A close reading shows that C is right.", "C"), ("A hard one. The answer is D.", "D"),
        ("It is not A but C.", "C"), ("It's neither A nor B; D.", "D"), ("A and C are wrong. So B", "B"),
        ("The answer is not B but C.", "C"), ("I don't think the answer is B. It is C", "C"),
        ("If the answer is B, x holds. I pick C", "C"), ("The answer is B. No, the answer is C.", "C"),
        ("C seems right, but D is correct", "D"), ("B. Paris", "B"), ("b) Paris", "B"), ("C\nBecause A is wrong", "C"),
        ("B because C and D lack it", "B"), ("Correct answer: B) Paris\nA is wrong, since", "B"),
        ("I'd go with D.", "D"), ("I believe A fits, not B", "A"), ("An X-ray in the U.S. shows D", "D"),
        ("I would eliminate A, C and D. B remains", "B"), ("The answer is 'B'.", "B"), ("A? No. B", None),
        ("Among A, B, C and D, the right one is C", "C"), ("Option A says x, option B y. So it's Option B.", "B"),
        ("A: no. B: no. C: yes. Therefore C.", "C"), ("option (c)", "C"), ("I find choice c is correct", "C"),
        ("Réponse : B", "B"), ("L'État paie, donc B", "B"), ("Für mich: D", "D"), ("So it is not A; C", "C"),
        # in doubt there is none
        ("A: no. B: no. C: yes. D: no", None), ("A. wrong\nB. right", None), ("So A is wrong", None), ("État", None),
        ("Zürich", None), ("option b is wrong", None),
        ("B or C", None), ("The answer is B or C.", None), ("A and C are wrong.", None), ("I am not sure.", None),
        ("A dog", None), ("Answer: A dog", None), ("Between B and C, B fits better.", None), ("A) B) C) which?", None),
        ("Paris", None), ("C++", "C"), ("e.g. something", None), ("", None), ("none", None),
    ],
)  # fmt: skip
def test_the_letter_is_what_the_answer_settles_on(answer: str, letter: str | None) -> None:
    assert letter_of(answer) == letter


SAYINGS = (
    "{}", "{}.", "({})", "**{}**", "The answer is {}.", "The correct answer is: ({}) something", "Answer: {}",
    "I think it over. The best choice would be {}.", "A hard one. The answer is {}.", "I choose option {}.",
    "A and {other} are not right. The answer is {}.", "The answer is {other}. Wait, the answer is {}.",
    "It cannot be {other}, so the answer must be {}.", "{}) as said", "It is {}, not {other}.", "{} is correct.",
)  # fmt: skip


@given(st.sampled_from(SAYINGS), OPTIONS, OPTIONS)
def test_every_usual_way_of_saying_it_gives_the_letter(saying: str, letter: str, other: str) -> None:
    if letter != other:
        assert letter_of(saying.format(letter, other=other)) == letter


@given(st.text(max_size=60))
def test_what_is_said_is_a_capital_that_stands_in_the_answer_or_nothing(answer: str) -> None:
    letter = letter_of(answer)
    shown = unicodedata.normalize("NFKC", answer).upper()
    assert letter is None or (letter in string.ascii_uppercase and letter in shown)


@given(st.lists(st.sampled_from(["paris", "it is", "is the", "river", "of", "3", "."]), max_size=8).map(" ".join))
def test_an_answer_without_any_lone_letter_names_none(answer: str) -> None:
    assert letter_of(answer) is None


def test_a_long_run_of_white_space_is_read_in_no_time() -> None:
    assert letter_of("B" + " " * 200_000 + "x C" + "\n" * 200_000 + "is correct") == "C"


@given(LETTERS, st.sampled_from(["{}", " {} ", "({})", "{}.", "{}. Paris", "{}) Paris", "({}) Paris", "{}: Paris"]))
def test_a_gold_may_be_written_in_any_usual_way_and_scores_itself(letter: str, shape: str) -> None:
    for gold in (shape.format(letter), shape.format(letter.lower())):
        assert gold_letter(gold) == letter
        assert metric_of("choice_letter").score(gold, [gold], {}) == 1
        assert metric_of("choice_letter").score(f"The answer is {letter}.", [gold], {}) == 1


@pytest.mark.parametrize("gold", ["Paris", "A dog", "", "12", "U.S.", "AB"])
def test_a_gold_that_names_no_letter_matches_nothing(gold: str) -> None:
    assert gold_letter(gold) is None
    assert metric_of("choice_letter").score(gold or "A", [gold], {}) == 0


def test_a_list_or_a_line_without_end_costs_no_more_than_its_length() -> None:
    """What a model writes that has lost its way: with two ways to read each item these would never end."""
    assert letter_of(", ".join("AB" * 5_000)) is None
    assert letter_of(". " * 20_000) is None


@given(st.text(alphabet="AB.:)]\n !_-xé1,", max_size=25))
def test_the_letters_that_begin_a_line_or_a_sentence_are_those_of_the_pattern(text: str) -> None:
    pattern = rf"(?:^|\n|[.;!?] )[\W_]*({letter._CAPITAL})\s*[).\]:](?=\s)"
    assert list(letter._heads(text)) == re.findall(pattern, text)

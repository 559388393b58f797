"""Where two texts differ, word by word."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from analyzer.results.word_diff import MOST_WORDS, Piece, word_diff

TEXTS = st.lists(st.sampled_from(["the ", "code ", "is ", "412", ".", "\n", "é ", "x"]), max_size=30).map("".join)


def test_words_that_differ_are_marked_and_the_rest_is_not() -> None:
    one, other = word_diff("the code is 412 344.", "the code is 412 361.")
    assert one == [Piece("the code is 412 ", True), Piece("344", False), Piece(".", True)]
    assert other == [Piece("the code is 412 ", True), Piece("361", False), Piece(".", True)]


def test_an_empty_text_has_no_pieces() -> None:
    assert word_diff("", "some words") == ([], [Piece("some words", False)])


@given(TEXTS, TEXTS)
def test_the_pieces_are_the_texts_and_what_is_the_same_is_the_same(one: str, other: str) -> None:
    left, right = word_diff(one, other)
    assert ("".join(p.text for p in left), "".join(p.text for p in right)) == (one, other)
    assert "".join(p.text for p in left if p.same) == "".join(p.text for p in right if p.same)
    for pieces in (left, right):
        assert all(a.same != b.same for a, b in pairwise(pieces))
        assert all(piece.text for piece in pieces)
    assert all(piece.same for piece in left + right) == (one == other)


def test_long_texts_are_marked_as_a_whole_between_what_they_share() -> None:
    many = MOST_WORDS + 1
    one, other = word_diff("begin " + "a " * many + "end", "begin " + "b " * many + "end")
    assert [piece.same for piece in one] == [piece.same for piece in other] == [True, False, True]

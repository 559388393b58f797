"""Where two texts part: by hand, and against the plain loop."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from analyzer.read.divergence import first_divergence

TEXT = st.none() | st.text(alphabet="ab\n é字😀", max_size=7)


def parts(*pairs: tuple[str | None, str | None]) -> list[int | None]:
    here, there = (pl.Series([pair[i] for pair in pairs], dtype=pl.String) for i in (0, 1))
    return first_divergence(here, there).to_list()


def alike(a: str | None, b: str | None) -> int | None:
    if a is None or b is None:
        return None
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def test_texts_part_at_the_first_character_that_differs() -> None:
    assert parts(("the cat", "the dog"), ("x", "y"), ("naïve 1", "naïve 2"), ("😀😀a", "😀😀b")) == [4, 0, 6, 2]


def test_a_text_that_is_the_beginning_of_the_other_parts_at_its_end() -> None:
    assert parts(("12", "12.5"), ("12.5", "12"), ("", "x")) == [2, 2, 0]


def test_nothing_is_said_where_there_is_no_other_text() -> None:
    assert parts(("a", None), (None, "a"), ("ab", "ac")) == [None, None, 1]
    assert parts() == []


@given(st.lists(st.tuples(TEXT, TEXT), max_size=8))
def test_a_column_at_once_gives_what_a_loop_over_characters_does(pairs: list[tuple[str | None, str | None]]) -> None:
    assert parts(*pairs) == [alike(a, b) for a, b in pairs]

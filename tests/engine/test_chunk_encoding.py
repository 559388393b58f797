"""The blob of text chunks comes back as it went in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvt_async.contract.formulas.chunk_encoding import decode_chunks, encode_chunks


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**24)), max_size=50))
def test_chunks_come_back_as_they_went_in(chunks: list[tuple[int, int]]) -> None:
    rising = sorted(chunks)
    assert decode_chunks(encode_chunks(rising)) == rising


def test_chunks_of_one_read_cost_two_bytes_each() -> None:
    blob = encode_chunks([(200_000, 4)] * 100)
    assert len(blob) == 4 + 99 * 2
    assert decode_chunks(blob) == [(200_000, 4)] * 100


def test_no_chunks_are_no_bytes() -> None:
    assert encode_chunks([]) == b""
    assert decode_chunks(b"") == []


def test_a_blob_that_ends_inside_a_pair_is_an_error() -> None:
    for broken in (b"\x05", b"\x85", b"\x01\x02\x03"):
        with pytest.raises(ValueError, match="ends inside a pair"):
            decode_chunks(broken)

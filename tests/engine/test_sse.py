"""The SSE decoder: the same events wherever the network cuts them, and only CR, LF and CRLF end a line."""

import itertools
import os
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvt_async.engine.reply.sse import Event, SseDecoder

RECORDED = (
    b'\xef\xbb\xbf: ping\n\ndata: {"a":"h\xc3\xa9llo \xe2\x80\xa8 w\xc3\xb6rld"}\r\n\r\n'
    b"event: error\rdata:no space\rdata:  two spaces\r\r"
    b"id: 7\nretry: 10\ndata\n\nunknown: x\ndata: [DONE]\n\n"
)
EVENTS = [
    ('{"a":"héllo \u2028 wörld"}'.encode(), b""),
    (b"no space\n two spaces", b"error"),
    (b"", b""),
    (b"[DONE]", b""),
]


def decode(*reads: bytes, flush: bool = False) -> list[Event]:
    decoder = SseDecoder()
    events = [event for read in reads for event in decoder.feed(read)]
    return events + (decoder.flush() if flush else [])


def by_the_standard(data: bytes) -> list[Event]:
    """The grammar of the HTML standard, written for clarity: what the decoder must agree with."""
    text = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[Event] = []
    lines: list[bytes] = []
    name = b""
    for line in text.split(b"\n")[:-1]:
        if not line:
            if lines:
                events.append((b"\n".join(lines), name))
            lines, name = [], b""
            continue
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value
    return events


def test_a_recorded_stream_gives_its_events() -> None:
    assert decode(RECORDED) == EVENTS


@pytest.mark.parametrize("cut", range(len(RECORDED) + 1))
def test_an_event_is_the_same_wherever_the_network_cuts_it(cut: int) -> None:
    assert decode(RECORDED[:cut], RECORDED[cut:]) == EVENTS


def test_every_byte_may_come_alone() -> None:
    assert decode(*(RECORDED[n : n + 1] for n in range(len(RECORDED)))) == EVENTS


def test_an_empty_read_changes_nothing() -> None:
    assert decode(b"", b"data: x\r", b"", b"\n\r\n") == [(b"x", b"")]


def test_a_line_separator_inside_text_is_text() -> None:
    for separator in ("\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"):
        text = f"a{separator}b".encode()
        assert decode(b"data: " + text + b"\n\n") == [(text, b"")]


def test_an_event_without_its_blank_line_is_given_only_at_a_clean_end() -> None:
    assert decode(b"data: [DONE]") == []
    assert decode(b"data: [DONE]", flush=True) == [(b"[DONE]", b"")]
    assert decode(b"data: [DONE]\n", flush=True) == [(b"[DONE]", b"")]
    assert decode(b"data: x\n\n", flush=True) == [(b"x", b"")]


def test_only_the_first_bytes_can_be_a_byte_order_mark() -> None:
    assert decode(b"\xef", b"\xbb", b"\xbf", b"data: x\n\n") == [(b"x", b"")]
    assert decode(b"\xef\xbbdata: x\n\n") == []
    assert decode(b"data: a\n\n\xef\xbb\xbfdata: b\n\n") == [(b"a", b"")]


def test_an_event_name_ends_with_its_event() -> None:
    assert decode(b"event: error\n\ndata: x\n\n") == [(b"x", b"")]


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            [b"data: ", b"data:", b"data", b"event: e", b": c", b"x", b"\n", b"\r", b"\r\n", b"\n\n", b"\xe2\x80\xa8"]
        ),
        max_size=40,
    ),
    cuts=st.lists(st.integers(0, 200), max_size=12),
)
def test_any_stream_cut_anywhere_decodes_as_the_standard_says(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reads = [data[a:b] for a, b in itertools.pairwise(edges)]
    if data.endswith(b"\r"):
        data += b"\n"  # either ends the line: the decoder need not wait to see which
    assert decode(*reads) == by_the_standard(data)


def test_a_seeded_fuzzer_finds_no_crash_and_no_difference() -> None:
    rng = random.Random(1337)
    for _ in range(int(os.environ.get("KVT_FUZZ_CASES", "3000"))):
        data = bytes(rng.choice(b"data:event \r\n\xef\xbb\xbf\xe2\x80\xa8{}x") for _ in range(rng.randrange(60)))
        reads, at = [], 0
        while at < len(data):
            step = rng.randrange(1, 9)
            reads.append(data[at : at + step])
            at += step
        end = b"\n" if data.endswith(b"\r") else b""
        assert decode(*reads) == decode(data) == by_the_standard(data + end)


def test_a_line_that_comes_in_small_pieces_is_put_together_once() -> None:
    """Were it joined at each piece, every piece would cost as much memory as all that came before it."""
    decoder, piece, n = SseDecoder(), b"x" * 64, 16_000
    decoder.feed(b"data: ")
    for _ in range(n):
        decoder.feed(piece)
    tracemalloc.start()
    try:
        for _ in range(100):
            decoder.feed(piece)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < n * len(piece) / 2
    ((data, _),) = decoder.feed(b"\n\n")
    assert data == piece * (n + 100)

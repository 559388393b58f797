"""HTTP/1.1 replies read by the lean transport: the same wherever the network cuts them, and nothing guessed."""

import os
import random

import pytest

from kvt_async.engine.transport.lean_http import (
    _FIELDS,
    _REMEMBERED,
    HeadReader,
    NotHttpError,
    at_once,
    body_of,
    read_head,
)
from tests.servers.fault_server import chunk, head, reply

SSE = reply("Par", "is é", "\u2028!")
Parsed = tuple[int, bytes, bool, bytes]
"""(status, body, whether it ended, what came after its end)"""


def parse(reads: list[bytes]) -> Parsed | str:
    """What the reads of one reply are, or why they are none."""
    heads, body, status, data = HeadReader(), None, 0, b""
    try:
        for read in reads:
            part = read
            if body is None:
                found = heads.feed(read)
                if found is None:
                    continue
                status, body, part = found[0].status, body_of(found[0]), found[1]
            if body.ended:
                body.rest += part
            else:
                data += body.feed(part)
    except NotHttpError:
        return "refused"
    return status, data, body is not None and body.ended, body.rest if body is not None else b""


def cut(data: bytes, rng: random.Random, longest: int) -> list[bytes]:
    reads, at = [], 0
    while at < len(data):
        step = rng.randrange(1, longest)
        reads.append(data[at : at + step])
        at += step
    return reads


WHOLE = {
    "chunked": head(chunked=True) + chunk(SSE[:70]) + chunk(SSE[70:]) + chunk(b""),
    "a chunk an event": head(chunked=True) + b"".join(map(chunk, SSE.splitlines(keepends=True))) + chunk(b""),
    "line ends inside": head(chunked=True) + chunk(SSE[:9] + b"\r\n3\r\n") + chunk(SSE[9:]) + chunk(b""),
    "counted": head(length=len(SSE)) + SSE,
    "until close": head() + SSE,
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + head(chunked=True) + chunk(SSE) + chunk(b""),
    "trailers": head(chunked=True) + b"5;a=b\r\n12345\r\n0\r\nX-Sum: 1\r\n\r\n",
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_reply_is_the_same_cut_at_every_byte(name: str) -> None:
    data = WHOLE[name]
    expected = parse([data])
    body = {"trailers": b"12345", "line ends inside": SSE[:9] + b"\r\n3\r\n" + SSE[9:]}.get(name, SSE)
    assert expected == (200, body, name != "until close", b"")
    assert all(parse([data[:at], data[at:]]) == expected for at in range(len(data)))
    assert parse([data[at : at + 1] for at in range(len(data))]) == expected


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (b"HTTP/2 200", "status line"),
        (b"ICY 200 OK", "status line"),
        (b"HTTP/1.1 099 X", "status line"),
        (b"HTTP/1.1 101 X\r\nUpgrade: websocket", "protocol"),
        (b"HTTP/1.1 200 X\r\nTransfer-Encoding: gzip, chunked", "not chunked"),
        (b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip", "not chunked"),
        (b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\nContent-Length: 3", "both"),
        (b"HTTP/1.1 200 X\r\nContent-Length: +3", "no number"),
        (b"HTTP/1.1 200 X\r\nContent-Length: 3\r\nContent-Length: 4", "no number"),
        (b"HTTP/1.1 200 X\r\n folded: x", "header line"),
        (b"HTTP/1.1 200 X\r\nName : x", "header line"),
        (b"HTTP/1.1 200 X\r\nName: a\nb", "header line"),
        (b"HTTP/1.1 200 X\r\nName: " + b"x" * 9000, "header line"),
    ],
)
def test_a_head_that_would_have_to_be_guessed_at_is_refused(lines: bytes, says: str) -> None:
    with pytest.raises(NotHttpError, match=says):
        read_head(lines)


@pytest.mark.parametrize("bad", [b"zz\r\n", b"0x5\r\n", b"-1\r\n", b"\r\n", b"3\r\nabcd\r\n", b"1_0\r\n", b"f" * 9000])
def test_a_chunk_that_is_none_is_refused(bad: bytes) -> None:
    assert parse([head(chunked=True) + bad]) == "refused"


def test_a_head_without_end_is_refused() -> None:
    assert parse([b"HTTP/1.1 200 X\r\n" + b"A: b\r\n" * 12_000]) == "refused"


def test_a_connection_is_kept_only_if_the_server_keeps_it() -> None:
    assert read_head(b"HTTP/1.1 200 X").keep_alive
    assert not read_head(b"HTTP/1.1 200 X\r\nConnection: Close").keep_alive
    assert not read_head(b"HTTP/1.0 200 X").keep_alive
    assert read_head(b"HTTP/1.0 200 X\r\nConnection: keep-alive").keep_alive


def test_bytes_after_the_end_are_told_apart() -> None:
    assert parse([head(length=2) + b"{}HTTP/1.1"]) == (200, b"{}", True, b"HTTP/1.1")
    assert parse([head(chunked=True) + chunk(b"x") + chunk(b"") + b"more"]) == (200, b"x", True, b"more")


def test_a_seeded_fuzzer_finds_no_crash_and_no_difference() -> None:
    rng = random.Random(1337)
    for _ in range(int(os.environ.get("KVT_FUZZ_CASES", "3000"))):
        data = bytearray(rng.choice(list(WHOLE.values())))
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(2)] = bytes(rng.choice(b"\r\n:; 0a\xff") for _ in range(rng.randrange(3)))
        expected = parse([bytes(data)])
        got = parse(cut(bytes(data), rng, rng.choice((2, 9, 200))))
        assert got == expected or (expected == "refused" and isinstance(got, str)), bytes(data)
        whole = at_once(bytes(data))
        assert whole is None or (whole[0].status, whole[1], True, b"") == expected, bytes(data)


@pytest.mark.parametrize("name", ["chunked", "a chunk an event"])
def test_a_reply_of_plain_chunks_in_one_read_is_taken_at_once(name: str) -> None:
    found = at_once(WHOLE[name])
    assert found is not None
    assert (found[0].status, found[1]) == (200, SSE)


def test_what_lines_were_read_as_is_remembered_within_bounds() -> None:
    for n in range(2 * _REMEMBERED):
        assert read_head(b"HTTP/1.1 200 X\r\nX-Request-Id: %d\r\nA: b" % n).headers == {
            "x-request-id": str(n),
            "a": "b",
        }
    assert len(_FIELDS) <= _REMEMBERED


@pytest.mark.parametrize(
    "rest", [b"0x1\r\nx\r\n0\r\n\r\n", chunk(b"x") + chunk(b"") + b"more", chunk(b"x"), chunk(b"")]
)
def test_anything_else_is_not_taken_at_once(rest: bytes) -> None:
    assert at_once(head(chunked=True) + rest) is None

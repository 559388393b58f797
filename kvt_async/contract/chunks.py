"""`telemetry.chunks`: when each text chunk of a reply arrived and how long it was, in few bytes.

Pairs of unsigned LEB128 varints, one pair a chunk in order of arrival: microseconds since the chunk before (the first:
since `start_ns`), then characters. Chunks that came in one read share their stamp, so their gap is 0. A gap is rounded
down from the running total, so errors don't add up.
"""

from collections.abc import Iterable

Chunk = tuple[int, int]
"""(microseconds from the attempt's start, characters)"""


def encode_chunks(chunks: Iterable[Chunk]) -> bytes:
    """Offsets must not fall; negative ones (a clock fault) are stored as the one before."""
    out = bytearray()
    last = 0
    for offset_us, chars in chunks:
        gap = offset_us - last
        if gap < 0:
            gap = 0
        else:
            last = offset_us
        if gap < 0x80 and chars < 0x80:  # the hot path: a coalesced read of ordinary tokens
            out.append(gap)
            out.append(chars)
        else:
            _append(out, gap)
            _append(out, chars)
    return bytes(out)


def decode_chunks(blob: bytes) -> list[Chunk]:
    """Raises ValueError for a blob that ends inside a pair."""
    numbers: list[int] = []
    value = shift = 0
    for byte in blob:
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
        else:
            numbers.append(value)
            value = shift = 0
    if shift or len(numbers) % 2:
        raise ValueError("the chunk blob ends inside a pair")
    chunks: list[Chunk] = []
    offset = 0
    for gap, chars in zip(numbers[::2], numbers[1::2], strict=True):
        offset += gap
        chunks.append((offset, chars))
    return chunks


def _append(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)

"""`telemetry.chunks`: when each text chunk of a reply arrived and how long it was, in few bytes.

Pairs of unsigned LEB128 varints, one pair a chunk in order of arrival: microseconds since the chunk before (the first:
since `start_ns`), then characters. Chunks that came in one read share their stamp, so their gap is 0. A gap is rounded
down from the running total, so errors don't add up.
"""

from collections.abc import Iterable, Sequence

Chunk = tuple[int, int]
"""(microseconds from the attempt's start, characters)"""


def encode_chunks(chunks: Iterable[Chunk]) -> bytes:
    """Offsets must not fall; negative ones (a clock fault) are stored as the one before."""
    pairs = list(chunks)
    return encode_arrivals([offset for offset, _ in pairs], [chars for _, chars in pairs])


def encode_arrivals(offsets_us: Sequence[int], chars: Sequence[int]) -> bytes:
    """`encode_chunks` of offsets and characters in two lists."""
    if offsets_us and offsets_us[0] == offsets_us[-1] and max(chars) < 0x80:  # one read of ordinary tokens
        out = bytearray()
        _append(out, max(offsets_us[0], 0))
        if len(chars) == 1:
            out.append(chars[0])
            return bytes(out)
        pairs = bytearray(2 * len(chars))
        pairs[::2] = bytes(chars)  # each followed by the next one's gap of 0
        return bytes(out + pairs[:-1])
    encoder = ChunkEncoder()
    encoder.add(offsets_us, chars)
    return bytes(encoder.out)


class ChunkEncoder:
    """`encode_arrivals`, some chunks at a time; `out` is what it has made so far."""

    __slots__ = ("_last_us", "out")

    def __init__(self) -> None:
        self.out = bytearray()
        self._last_us = 0

    def add(self, offsets_us: Iterable[int], chars: Iterable[int]) -> None:
        """The next chunks: microseconds since the attempt's start, and characters, of each."""
        out = self.out
        append, last = out.append, self._last_us
        for offset, size in zip(offsets_us, chars, strict=True):
            gap = offset - last
            if gap < 0:
                gap = 0
            else:
                last = offset
            if gap < 0x80:
                append(gap)
            elif gap < 0x4000:
                append(gap & 0x7F | 0x80)
                append(gap >> 7)
            elif gap < 0x200000:
                append(gap & 0x7F | 0x80)
                append(gap >> 7 & 0x7F | 0x80)
                append(gap >> 14)
            else:
                _append(out, gap)
            if size < 0x80:
                append(size)
            else:
                _append(out, size)
        self._last_us = last


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

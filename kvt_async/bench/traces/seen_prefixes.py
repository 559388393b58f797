"""Which beginnings of prompts have come before: what a cache without limits would hold, block by block."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kvt_async.bench.traces.trace_rows import BlockId

MOST_DENSE = 100_000_000  # ids below it take eight bytes each up to the highest; others about 200 bytes each that came


@dataclass(slots=True)
class SeenPrefixes:
    """A tree of blocks: a block is known where its id came before after the very same predecessors.

    Ids that name a block with all before it (Mooncake's) have one place in the tree each: arrays keep those. Ids of a
    block's own text (Bailian's) come after several predecessors: the places after the first are in a dict.
    """

    edges: Callable[[int], int]  # tokens before block k of a prompt
    _after: "array[int]" = field(default_factory=lambda: array("i"))  # id -> where its first place is: see _stored
    _filled: "array[int]" = field(default_factory=lambda: array("i"))  # id -> tokens of its block that came there
    _places: dict[tuple[int, BlockId], list[int]] = field(default_factory=dict)  # -> [its place, tokens that came]

    def shared(self, ids: Sequence[BlockId], tokens: int) -> int:
        """How many of a prompt's first `tokens` have come before; from now on all of them have."""
        shared, place, going = 0, 0, True
        for k, block in enumerate(ids):
            begin, end = self.edges(k), min(self.edges(k + 1), tokens)
            if end <= begin and k:
                break
            place, filled = self._visit(place, block, end - begin)
            if going:
                shared = begin + filled
            going = going and filled == end - begin
        return shared

    def _visit(self, place: int, block: BlockId, size: int) -> tuple[int, int]:
        """(The place of a block after another, how many of its first `size` tokens had come there before)."""
        after, filled = self._after, self._filled
        if isinstance(block, int) and 0 <= block < MOST_DENSE:
            if block >= len(after):
                more = max(block + 1 - len(after), min(len(after), 1 << 20))
                after.frombytes(bytes(4 * more))
                filled.frombytes(bytes(4 * more))
            if after[block] == 0:
                after[block] = _stored(place)
            if after[block] == _stored(place):
                known, filled[block] = min(filled[block], size), max(filled[block], size)
                return block + 1, known
        further = self._places.setdefault((place, block), [-1 - len(self._places), 0])
        known, further[1] = min(further[1], size), max(further[1], size)
        return further[0], known


def _stored(place: int) -> int:
    """Places are 0 (nothing before), id + 1, or negative: none of them is stored as 0, which means new."""
    return place + 1 if place >= 0 else place

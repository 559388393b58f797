"""Which beginnings of prompts have come before: what a cache without limits would hold, block by block."""

from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kvt_async.bench.traces.trace_rows import BlockId

MOST_DENSE = 2**31 - 2  # ids from 0 to here have a slot in arrays
SLOTS = 1 << 24  # of twelve bytes; a later id takes the slot of one that is so much lower: rising ids forget the oldest
MOST_PLACES = 1 << 21  # of about 250 bytes, for all other ids and further places; the oldest are forgotten


@dataclass(slots=True)
class SeenPrefixes:
    """A tree of blocks: a block is known where its id came before after the very same predecessors.

    Ids that name a block with all before it (Mooncake's) have one place in the tree each: arrays keep those. Ids of a
    block's own text (Bailian's) come after several predecessors: the places after the first are in a dict. Both are
    bounded, whatever the trace.
    """

    edges: Callable[[int], int]  # tokens before block k of a prompt
    _ids: "array[int]" = field(default_factory=lambda: array("i"))  # slot -> id + 1; 0: nobody's
    _after: "array[int]" = field(default_factory=lambda: array("i"))  # slot -> the place that its first place is after
    _filled: "array[int]" = field(default_factory=lambda: array("i"))  # slot -> tokens of its block that came there
    _places: "OrderedDict[tuple[int, BlockId], list[int]]" = field(default_factory=OrderedDict)  # -> [place, filled]
    _n_places: int = 0

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
        if isinstance(block, int) and 0 <= block < MOST_DENSE:
            slot = block % SLOTS
            self._reach(slot)
            if self._ids[slot] != block + 1:
                self._ids[slot], self._after[slot], self._filled[slot] = block + 1, place, 0
            if self._after[slot] == place:
                known = min(self._filled[slot], size)
                self._filled[slot] = max(self._filled[slot], size)
                return block + 1, known
        further = self._places.get((place, block))
        if further is None:
            self._n_places += 1
            further = self._places[place, block] = [-self._n_places, 0]
            if len(self._places) > MOST_PLACES:
                self._places.popitem(last=False)
        known, further[1] = min(further[1], size), max(further[1], size)
        return further[0], known

    def _reach(self, slot: int) -> None:
        """Have so many slots."""
        have = len(self._ids)
        if slot >= have:
            more = min(max(slot + 1 - have, min(have, 1 << 20)), SLOTS - have)
            for numbers in (self._ids, self._after, self._filled):
                numbers.frombytes(bytes(4 * more))

"""What each sender process of a sweep is to send: whole contexts and conversations, dealt anew for every session."""

from array import array
from collections.abc import Sequence

from kvt_async.contract.formulas.shard_of import shard_of
from kvt_async.store.reader import Reader
from kvt_async.sweep.turn_order import read_conversations

_CONTEXTS = """SELECT x.context_sha256 FROM manifest_entries e JOIN examples x USING (dataset_id, example_id)
    WHERE e.dataset_id = ? ORDER BY e.seq"""


def units_of(reader: Reader, dataset_id: str) -> list[str]:
    """What of a manifest stays together, one name per entry: its context; of a conversation the first turn's."""
    contexts = [row[0] for row in reader.rows(_CONTEXTS, dataset_id)]
    conversations = read_conversations(reader, dataset_id)
    return contexts if conversations is None else [contexts[first] for first in conversations.first]


def dealt(
    units: Sequence[str], done: Sequence[bytearray], n: int, seed: int
) -> tuple[list[list[bytearray]], Sequence[int]]:
    """(what is done, per part and run, where the answers of other parts count as done; the part, 0 .. n - 1, of each
    entry, -1 where nothing of it is owed). Units of which something is owed are dealt in the order of the manifest."""
    samples = len(done[0]) // len(units) if done and units else 1
    owed = [seq for seq in range(len(units)) if any(0 in mask[seq * samples : (seq + 1) * samples] for mask in done)]
    part_of = array("h", [-1]) * len(units)
    parts = [[bytearray(b"\1") * len(mask) for mask in done] for _ in range(n)]
    for seq, shard in zip(owed, shard_of((units[seq] for seq in owed), n, seed), strict=True):
        part_of[seq] = shard - 1
        at = slice(seq * samples, (seq + 1) * samples)
        for own, mask in zip(parts[shard - 1], done, strict=True):
            own[at] = mask[at]
    return parts, part_of


def without(part: Sequence[bytearray], done: Sequence[bytearray]) -> list[bytearray]:
    """What is left of a part once all of `done` is done too."""
    return [
        bytearray((int.from_bytes(own) | int.from_bytes(mask)).to_bytes(len(own)))
        for own, mask in zip(part, done, strict=True)
    ]

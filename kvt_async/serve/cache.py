"""The KV cache: keys and values with room to grow, and the prefills that are kept for a prompt's other budgets."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from kvt_async.serve.weights import F32, LlamaConfig

Positions = npt.NDArray[np.int32]


@dataclass(slots=True)
class KVCache:
    """Keys and values of the first `length` of `capacity` entries, keys already rotated to their own positions.

    Every head of every layer holds the same number of entries, though not those of the same positions.
    """

    keys: F32  # [layers, kv_heads, capacity, head_dim]
    values: F32
    length: int = 0
    left: Positions | None = None  # of what the last eviction left, the first entries; None: nothing was evicted
    received: F32 | None = None  # attention from all queries, [layers, kv_heads, group, capacity]; None: uncounted

    @classmethod
    def empty(cls, config: LlamaConfig, capacity: int) -> "KVCache":
        shape = (config.n_layers, config.n_kv_heads, capacity, config.head_dim)
        return cls(np.empty(shape, np.float32), np.empty(shape, np.float32))

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def load(self, source: "KVCache", kept: Positions | None, length: int) -> None:
        """Become a copy of `source`: its first `length` entries, or, by head, those at `kept` [layers, kv_heads, n]."""
        self.left, self.received = kept, None
        if kept is None:
            self.keys[:, :, :length] = source.keys[:, :, :length]
            self.values[:, :, :length] = source.values[:, :, :length]
            self.length = length
            return
        layers, heads, n = kept.shape
        for layer in range(layers):
            for head in range(heads):  # a head at a time, straight into place: fancy indexing would copy twice
                rows = kept[layer, head]
                source.keys[layer, head].take(rows, 0, self.keys[layer, head, :n], "clip")
                source.values[layer, head].take(rows, 0, self.values[layer, head, :n], "clip")
        self.length = n

    def count_attention(self, received: F32) -> None:
        """Add up what entries receive from here on, beginning with `received` [layers, kv_heads, group, length]."""
        self.received = np.zeros((*received.shape[:3], self.keys.shape[2]), np.float32)
        self.received[..., : self.length] = received

    def positions(self, seen: int) -> Positions:
        """Where each entry's token stands in the text of `seen` tokens, the last one's entry among them.

        [layers, kv_heads, length]
        """
        layers, heads = self.keys.shape[:2]
        left = np.empty((layers, heads, 0), np.int32) if self.left is None else self.left
        new = self.length - left.shape[2]
        newest = np.arange(seen - new, seen, dtype=np.int32)
        return np.concatenate([left, np.broadcast_to(newest, (layers, heads, new))], axis=2)

    def evict(self, kept: Positions, seen: int) -> None:
        """Let go of every entry but, by head, those at `kept` [layers, kv_heads, n], which rises."""
        self.left = np.take_along_axis(self.positions(seen), kept, axis=2)
        layers, heads, n = kept.shape
        for layer in range(layers):
            for head in range(heads):
                rows = kept[layer, head]
                self.keys[layer, head, :n] = self.keys[layer, head, rows]
                self.values[layer, head, :n] = self.values[layer, head, rows]
        if self.received is not None:
            received = np.take_along_axis(self.received, kept[:, :, None], axis=3)
            self.received[...] = 0
            self.received[..., :n] = received
        self.length = n


@dataclass(slots=True)
class Prefill:
    """What reading a prompt once leaves behind. Never changed after, except that `ranks` remembers what was derived."""

    ids: npt.NDArray[np.int64]
    cache: KVCache
    logits: F32  # [vocab], after the last prompt token, with nothing evicted
    ranks: dict[Hashable, Positions] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.cache.nbytes + self.logits.nbytes + sum(rank.nbytes for rank in self.ranks.values())


class PrefillStore:
    """The most recently used prefills, up to `limit_bytes`; equal token ids, equal prefill, byte for byte.

    With `block` tokens, a prompt that isn't kept may begin like one that is: whole blocks of it are found again, of the
    prefill used last among those that have them. Which blocks a prefill has is known by digests of all ids up to each.

    The reference model needs 2 KiB a token, and 32 bytes a token more for each ranking (policy and parameters) derived.
    """

    def __init__(self, limit_bytes: int, block: int = 0) -> None:
        """`block`: 0: whole prompts only."""
        self.limit_bytes, self.block = limit_bytes, block
        self._heads: dict[bytes, bytes] = {}  # digest of a prompt's first blocks -> the prefill that has them
        self.used_bytes = 0
        self.queried_tokens = 0
        self.hit_tokens = 0
        self._sizes: dict[bytes, int] = {}
        self._kept: OrderedDict[bytes, Prefill] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, ids: npt.NDArray[np.int64], compute: Callable[[], Prefill]) -> tuple[Prefill, bool]:
        """The prefill of these ids and whether it was kept from before."""
        key = ids.tobytes()
        self.queried_tokens += len(ids)
        prefill = self._kept.get(key)
        if prefill is not None:
            self._use(key)
            self.hit_tokens += len(ids)
            return prefill, True
        made = compute()
        self._kept[key] = made
        self._use(key)
        self.resize(made)
        return made, False

    def beginning(self, ids: npt.NDArray[np.int64]) -> tuple[KVCache | None, int]:
        """A cache whose first entries are those of the prompt's first tokens, and how many: whole blocks, but never
        all of the prompt, for its last token's logits are kept with no block."""
        if not self.block:
            return None, 0
        found: bytes | None = None
        n_blocks = 0
        for head in self._heads_of(ids[:-1]):
            holder = self._heads.get(head)
            if holder is None:
                break
            found, n_blocks = holder, n_blocks + 1
        if found is None:
            return None, 0
        self._use(found)
        self.hit_tokens += n_blocks * self.block
        return self._kept[found].cache, n_blocks * self.block

    def _use(self, key: bytes) -> None:
        """This prefill is the one used last: its beginnings are looked up there."""
        self._kept.move_to_end(key)
        for head in self._heads_of(self._kept[key].ids):
            self._heads[head] = key

    def _heads_of(self, ids: npt.NDArray[np.int64]) -> Iterator[bytes]:
        digest = blake2b(digest_size=16)
        for end in range(self.block, len(ids) + 1, self.block) if self.block else ():
            digest.update(ids[end - self.block : end].tobytes())
            yield digest.digest()

    def resize(self, prefill: Prefill) -> None:
        """Count what `prefill` has grown to, and let the least recently used go where the limit is passed."""
        key = prefill.ids.tobytes()
        if key not in self._kept:
            return
        self.used_bytes += prefill.nbytes - self._sizes.get(key, 0)
        self._sizes[key] = prefill.nbytes
        while self.used_bytes > self.limit_bytes and self._kept:
            oldest, gone = self._kept.popitem(last=False)
            self.used_bytes -= self._sizes.pop(oldest)
            for head in self._heads_of(gone.ids):
                if self._heads.get(head) == oldest:  # nobody who has it was used later
                    del self._heads[head]

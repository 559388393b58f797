"""What a policy may look at when it scores: a prompt as it was read, or the cache that an answer has grown by now."""

from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kvt_async.serve.cache import KVCache, Positions, Prefill
from kvt_async.serve.model import Llama
from kvt_async.serve.weights import F32, Ints

RECENT_QUERIES = 257  # the newest and the 256 before it: kvpress 0.5.5's default hidden_states_buffer_size


class View(Protocol):
    """The entries that compete, in the order of their positions in every head, and what there is to score them by.

    Of a prompt: its first `length` tokens, none evicted. While an answer is generated: the `length` entries that every
    head still holds, of other tokens in other heads, except that the newest tokens are in all of them.
    """

    @property
    def model(self) -> Llama: ...

    @property
    def length(self) -> int:
        """Entries of each head."""

    @property
    def seen(self) -> int:
        """Tokens of the text so far, evicted ones too: the position of the next."""

    @property
    def first_query(self) -> int:
        """The oldest entry whose query can be looked at; so can those of all newer entries. 0 with a prompt."""

    @property
    def ids(self) -> Ints:
        """Every token of the text so far, [seen]."""

    @property
    def positions(self) -> Positions:
        """The place of each entry's token in the text, [layers, kv_heads, length]: `ids[positions]` are the tokens."""

    @property
    def keys(self) -> F32:
        """[layers, kv_heads, length, head_dim], rotated to their positions."""

    @property
    def values(self) -> F32: ...

    @property
    def ranks(self) -> MutableMapping[Hashable, Positions]:
        """Where rankings of these entries are remembered."""

    def attention_from(self, first: int) -> F32:
        """Attention each entry receives, summed over the queries from entry `first` on, [layers, kv_heads, group,
        length]. ValueError where `first` is before `first_query`.
        """

    def received(self) -> F32:
        """Attention each entry has received from all queries that saw it, [layers, kv_heads, group, length].

        ValueError while an answer is generated under a policy that doesn't say `counts_attention`.
        """

    def queries(self, first: int) -> F32:
        """Queries from entry `first` on, before rotation, divided by sqrt(head_dim), [layers, heads, n, head_dim].

        ValueError where `first` is before `first_query`.
        """

    def shape(self) -> tuple[int, int, int]:
        """Of an array with a number for each entry: (layers, kv_heads, length)."""


@dataclass(frozen=True, slots=True)
class PromptView:
    """The first `length` tokens of a prompt and their untouched keys, values, attention."""

    model: Llama
    prefill: Prefill
    length: int
    first_query: int = 0

    @property
    def seen(self) -> int:
        return self.length

    @property
    def ids(self) -> Ints:
        return self.prefill.ids[: self.length]

    @property
    def positions(self) -> Positions:
        return np.broadcast_to(np.arange(self.length, dtype=np.int32), self.shape())

    @property
    def keys(self) -> F32:
        return self.prefill.cache.keys[:, :, : self.length]

    @property
    def values(self) -> F32:
        return self.prefill.cache.values[:, :, : self.length]

    @property
    def ranks(self) -> MutableMapping[Hashable, Positions]:
        return self.prefill.ranks

    def attention_from(self, first: int) -> F32:
        c = self.model.config
        out = np.zeros((c.n_layers, c.n_kv_heads, self.model.group, self.length), np.float32)
        for seen in self.model.observe(self.prefill.cache, self.ids, first):
            out[seen.layer, ..., : seen.probabilities.shape[3]] += seen.probabilities.sum(axis=2)
        return out

    def received(self) -> F32:
        return self.attention_from(0)

    def queries(self, first: int) -> F32:
        c = self.model.config
        out = np.empty((c.n_layers, c.n_heads, self.length - first, c.head_dim), np.float32)
        for seen in self.model.observe(self.prefill.cache, self.ids, first):
            start = seen.row - first
            out[seen.layer, :, start : start + len(seen.queries)] = seen.queries.transpose(1, 0, 2)
        return out

    def shape(self) -> tuple[int, int, int]:
        return (self.model.config.n_layers, self.model.config.n_kv_heads, self.length)


class RecentQueries:
    """The queries of the newest tokens, before rotation, as many as have room."""

    def __init__(self, model: Llama, room: int) -> None:
        c = model.config
        self._ring = np.empty((room, c.n_layers, c.n_heads, c.head_dim), np.float32)
        self._count = 0

    def __len__(self) -> int:
        return min(self._count, len(self._ring))

    def slot(self) -> F32:
        """Where the next token's queries go, [layers, heads, head_dim]; the oldest make room."""
        slot: F32 = self._ring[self._count % len(self._ring)]
        self._count += 1
        return slot

    def newest(self, n: int) -> F32:
        """Oldest of them first, [layers, heads, n, head_dim]."""
        rows = np.arange(self._count - n, self._count) % len(self._ring)
        return self._ring[rows].transpose(1, 2, 0, 3)

    def clear(self) -> None:
        self._count = 0


@dataclass(frozen=True, slots=True)
class AnswerView:
    """The cache as it stands while an answer is generated, and the queries of the tokens generated since `first_query`.

    Each of those queries has seen all of these entries up to its own: nothing was evicted in between.
    """

    model: Llama
    cache: KVCache
    ids: Ints
    positions: Positions
    recent: RecentQueries
    ranks: MutableMapping[Hashable, Positions]

    @property
    def length(self) -> int:
        return self.cache.length

    @property
    def seen(self) -> int:
        return len(self.ids)

    @property
    def first_query(self) -> int:
        return self.length - len(self.recent)

    @property
    def keys(self) -> F32:
        return self.cache.keys[:, :, : self.length]

    @property
    def values(self) -> F32:
        return self.cache.values[:, :, : self.length]

    def attention_from(self, first: int) -> F32:
        queries = self.queries(first)
        return self.model.attention(self.cache, queries, self.seen - queries.shape[2])

    def received(self) -> F32:
        if self.cache.received is None:
            raise ValueError("the attention of all queries was not counted: the policy must say counts_attention")
        return self.cache.received[..., : self.length]

    def queries(self, first: int) -> F32:
        if first < self.first_query:
            raise ValueError(
                f"the query of entry {first} is gone: while an answer is generated, those of the newest tokens since "
                f"the last compression are kept, here from entry {self.first_query} on (view.first_query)"
            )
        return self.recent.newest(self.length - first)

    def shape(self) -> tuple[int, int, int]:
        return (self.model.config.n_layers, self.model.config.n_kv_heads, self.length)

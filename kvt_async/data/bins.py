"""Lengths -> bins, and which examples of a bin are taken. Pure: no files, no tokenizer.

Edges are n_bins + 1 rising (not always strictly) token counts: bin i holds edges[i] < length <= edges[i + 1], the first
bin its lower edge too. Equal lengths therefore stay together, and a bin between two equal edges is empty.
"""

import hashlib
import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from kvt_async.contract.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LengthBin:
    """One row of `bins`. Bounds are inclusive; hi_tokens = lo_tokens - 1 says that no length fits."""

    bin_idx: int
    lo_tokens: int
    hi_tokens: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """An example that could be taken for a bin, or a whole conversation, by its id and its longest prompt."""

    example_id: str
    token_len: int


def quantile_edges(histogram: Mapping[int, int], n_bins: int) -> list[int]:
    """Edges that share out the examples as evenly as ties allow.

    `histogram`: length -> number of examples. Edge i is the ceil(i * n / n_bins)-th smallest length (an inverted
    empirical distribution), so every edge is a length that occurs; the first is the smallest.

    Raises ConfigError when there are no examples.
    """
    lengths = sorted(length for length, n in histogram.items() if n > 0)
    if not lengths:
        raise ConfigError("there are no examples to put into bins", where="dataset", do="Check dataset.path and task.")
    up_to = list(accumulate(histogram[length] for length in lengths))
    total = up_to[-1]
    ranks = [max(1, -(-i * total // n_bins)) for i in range(n_bins + 1)]
    return [lengths[0]] + [lengths[bisect_left(up_to, rank)] for rank in ranks[1:]]


def bins_of(edges: Sequence[int]) -> list[LengthBin]:
    """Every bin, empty ones included."""
    return [LengthBin(i, edges[i] + (i > 0), edges[i + 1]) for i in range(len(edges) - 1)]


def bin_of(length: int, edges: Sequence[int]) -> int | None:
    """The bin a length belongs to; None outside the edges."""
    if not edges[0] <= length <= edges[-1]:
        return None
    return max(0, bisect_left(edges, length, lo=1) - 1)


def counts(histogram: Mapping[int, int], edges: Sequence[int]) -> list[int]:
    """Examples in each bin."""
    n_in_bin = [0] * (len(edges) - 1)
    for length, n in histogram.items():
        if (idx := bin_of(length, edges)) is not None:
            n_in_bin[idx] += n
    return n_in_bin


def choose(candidates: Iterable[Candidate], n: int, strategy: str, seed: int) -> list[Candidate]:
    """At most `n` of a bin's candidates, in the order they enter the manifest; the order they come in plays no part.

    shortest: by (token_len, example_id). uniform and focus_transition: a random sample without replacement, seeded,
    such that asking for more only appends; this is what lets a manifest grow.
    """
    return heapq.nsmallest(n, candidates, key=_order(strategy, seed))


def _order(strategy: str, seed: int) -> Callable[[Candidate], tuple[int | str, str]]:
    if strategy == "shortest":
        return lambda c: (c.token_len, c.example_id)
    return lambda c: (hashlib.sha256(f"{seed}\x1f{c.example_id}".encode()).hexdigest(), c.example_id)

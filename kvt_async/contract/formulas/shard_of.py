"""Which shard sends an entry of a manifest. Every process works it out for itself, and all come to the same answer."""

import hashlib
from array import array
from collections.abc import Iterable, Sequence


def shard_of(contexts: Iterable[str], n: int, seed: int) -> Sequence[int]:
    """The shard, 1 .. n, of each entry of a manifest, whose contexts (`context_sha256`) are given in manifest order.

    Contexts are dealt like cards as they first appear: of every n that follow one another each shard gets one, in an
    order drawn with `seed`. So entries of one context are in one shard; shards hold equally many contexts of every
    length bin, within one; and what a manifest gains later, at its end, moves nothing that was there before.
    """
    of_context: dict[str, int] = {}
    shards, order = array("H"), list[int]()
    for context in contexts:
        shard = of_context.get(context)
        if shard is None:
            round_idx, place = divmod(len(of_context), n)
            if place == 0:
                order = _drawn(n, seed, round_idx)
            shard = of_context[context] = order[place]
        shards.append(shard)
    return shards


def _drawn(n: int, seed: int, round_idx: int) -> list[int]:
    """The shards in the order of one round: a hash, so that no version of Python draws otherwise."""
    return sorted(range(1, n + 1), key=lambda i: hashlib.sha256(f"{seed}:{n}:{round_idx}:{i}".encode()).digest())

"""The seed that a request is sent with, so that answer j to an example is drawn alike at every level.

A repeat of full cache with the same seeds shows the server's own noise; one with other seeds shows how much answers
differ because they are drawn at all. With temperature 0 nothing is drawn, and one kind of repeat is enough.
"""

import hashlib
from typing import Final, Protocol

import orjson

from kvt_async.contract.vocabulary import NODE_REPEATS

DEFAULT_SEED: Final = 1337  # of several answers, where the config gives none: without seeds no two levels were paired


class DecodingRule(Protocol):
    """What of `decoding` decides about seeds."""

    @property
    def seed(self) -> int | None: ...
    @property
    def samples(self) -> int: ...
    @property
    def temperature(self) -> float | None: ...


def base_seed(decoding: DecodingRule) -> int | None:
    """The seed that all others come from; None: none is sent."""
    if decoding.seed is None and decoding.samples > 1:
        return DEFAULT_SEED
    return decoding.seed


def is_drawn(decoding: DecodingRule) -> bool:
    """Whether answers are drawn at random, and with seeds: temperature null is the server's own, so it may be."""
    return decoding.temperature != 0 and base_seed(decoding) is not None


def has_other_seeds(repeat_idx: int, decoding: DecodingRule) -> bool:
    """Whether a repeat of full cache is asked with other seeds: every second one, where answers are drawn. None that
    compares servers is."""
    return 0 < repeat_idx <= NODE_REPEATS and repeat_idx % 2 == 0 and is_drawn(decoding)


def seed_of(base: int, example_id: str, sample_idx: int, turn_idx: int = 0, *, draw: int = 0) -> int:
    """31 bits of the SHA-256 of these; `draw` is 0, and the repeat's number in a repeat with other seeds."""
    key: list[int | str] = [base, example_id, sample_idx, turn_idx]
    digest = hashlib.sha256(orjson.dumps([*key, draw] if draw else key)).digest()
    return int.from_bytes(digest[:4], "big") >> 1

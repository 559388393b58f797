"""Manifest x level - what is settled -> what to send, in order. Pure: bytes and numbers in, an iterator out.

`done` has one byte per answer and level, so a million requests cost a megabyte a level and are never a list.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Literal

Order = Literal["by_budget", "interleaved"]
_OTHER = bytes([1, 0]) + bytes(254)  # 0 for 1, 1 for 0
Step = tuple[int, int]  # index of the level, place of the answer: those of one manifest entry are neighbours


def steps(done: Sequence[bytearray], repeats: Sequence[bool], order: Order, seed: int) -> Iterator[Step]:
    """Every (level, place) whose byte in `done[level][place]` is 0.

    by_budget: level after level, each in manifest order. interleaved: answer after answer, its levels shuffled with
    `seed`, so that a drift in time hits all levels alike; levels marked in `repeats` (A/A controls) come last, whole.
    """
    if order == "by_budget":
        for level in range(len(done)):
            yield from ((level, place) for place in _zeros(done[level]))
        return
    mixed = [level for level in range(len(done)) if not repeats[level]]
    for place in range(len(done[0]) if done else 0):
        todo = [level for level in mixed if not done[level][place]]
        if todo:
            random.Random(f"{seed}:{place}").shuffle(todo)
            yield from ((level, place) for level in todo)
    for level in range(len(done)):
        if repeats[level]:
            yield from ((level, place) for place in _zeros(done[level]))


def pending(done: Sequence[bytearray]) -> list[int]:
    """How many steps each level still has."""
    return [level.count(0) for level in done]


def only(done: bytearray, places: Sequence[int]) -> bytearray:
    """`done` with everything but `places` taken out of the plan (`--limit`)."""
    limited = bytearray(b"\1") * len(done)
    for place in places:
        limited[place] = done[place]
    return limited


def unwanted(wanted: bytearray, samples: int) -> bytearray:
    """Entries, 1 where one is wanted -> answers, an entry's `samples` side by side, 1 where one is not."""
    answers, others = bytearray(len(wanted) * samples), wanted.translate(_OTHER)
    for nth in range(samples):
        answers[nth::samples] = others
    return answers


def either(one: bytearray, other: bytearray) -> bytearray:
    """1 where one of two masks of one length has it."""
    return _as_mask(_as_int(one) | _as_int(other), len(one))


def without(one: bytearray, other: bytearray) -> bytearray:
    """1 where the first of two masks of one length has it and the other has not."""
    return _as_mask(_as_int(one) & ~_as_int(other), len(one))


def _as_int(mask: bytearray) -> int:
    return int.from_bytes(mask, "little")


def _as_mask(number: int, length: int) -> bytearray:
    return bytearray(number.to_bytes(length, "little"))


def _zeros(done: bytearray) -> Iterator[int]:
    at = done.find(0)
    while at >= 0:
        yield at
        at = done.find(0, at + 1)

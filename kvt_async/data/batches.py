"""Examples in batches that bound memory: the default is also enough to feed all cores."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from kvt_async.records import Example

BATCH_ROWS = 1024
BATCH_CHARS = 1_000_000  # a batch ends beyond this; one longer example is a batch of its own
_Row = TypeVar("_Row")


def batches(rows: Iterable[_Row], example_of: Callable[[_Row], Example]) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    chars = 0
    for row in rows:
        example = example_of(row)
        batch.append(row)
        chars += len(example.context) + len(example.question) + _chars_of_turns(example)
        if len(batch) >= BATCH_ROWS or chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _chars_of_turns(example: Example) -> int:
    turns = example.meta.get("turns")
    return sum(len(text) for turn in turns for text in turn) if isinstance(turns, list) else 0

"""Rows in portions that memory can hold: so many rows, or as many as their long texts allow."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import polars as pl

ROWS = 50_000
CHARACTERS = 8 << 20  # what is made of a text while it is scored takes some ten times its size


def portions(cursor: Iterable[tuple[Any, ...]], *texts: int) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of a cursor, in lists of up to ROWS rows whose columns `texts` (null: no length) hold up to CHARACTERS
    in all, or of one row that has more. Rows are fetched one by one: no text is in memory before its portion."""
    rows: list[tuple[Any, ...]] = []
    held = 0
    for row in cursor:
        length = sum(len(row[text] or "") for text in texts)
        if rows and (held + length > CHARACTERS or len(rows) == ROWS):
            yield rows
            rows, held = [], 0
        rows.append(row)
        held += length
    if rows:
        yield rows


def read_frame(
    rows: Iterable[tuple[Any, ...]],
    schema: dict[str, Any],
    change: Callable[[pl.DataFrame], pl.DataFrame] = lambda part: part,
) -> pl.DataFrame:
    """All rows, of a cursor or of several, as one frame of this schema, made in portions: they are not held twice.
    Each portion is changed by `change` before it is kept."""
    rest = iter(rows)
    parts = [change(pl.DataFrame(schema=schema))]
    while portion := list(islice(rest, ROWS)):
        parts.append(change(pl.DataFrame(portion, schema=schema, orient="row", strict=False)))
    return pl.concat(parts)

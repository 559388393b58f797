"""A table as text cells, as every report prints it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """`text_columns`: how many columns from the left hold text, not figures. `folded`: closed at first in HTML."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1
    note: str = ""
    folded: str = ""


def table(rows: Sequence[Mapping[str, str]], *, text_columns: int = 1, note: str = "", folded: str = "") -> Table:
    """A table of rows that all have the same keys, which are its head."""
    head = tuple(rows[0]) if rows else ()
    return Table(head, tuple(tuple(row.values()) for row in rows), text_columns, note, folded)


def flat(value: Any, at: str = "") -> list[tuple[str, str]]:
    """Nested mappings as dotted keys, in their own order."""
    if isinstance(value, dict) and value:
        return [pair for k, v in value.items() for pair in flat(v, f"{at}.{k}" if at else str(k))]
    return [(at, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]

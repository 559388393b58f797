"""A table as text cells, as every report prints it."""

import json
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


def flat(value: Any, at: str = "") -> list[tuple[str, str]]:
    """Nested mappings as dotted keys, in their own order."""
    if isinstance(value, dict) and value:
        return [pair for k, v in value.items() for pair in flat(v, f"{at}.{k}" if at else str(k))]
    return [(at, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]

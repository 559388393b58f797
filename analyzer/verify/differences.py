"""Stored rows against rows made again: equal, but for what two machines may compute differently.

Counts, labels and texts are equal; numbers to 1e-9; figures of the bootstrap to 1e-6, since libraries may add up in
another order. JSON is compared by its values.
"""

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

EXACT, DRAWN = 1e-9, 1e-6
BOOTSTRAP = ("acc_ci_low", "acc_ci_high", "half_loss_ci_low", "half_loss_ci_high", "zone_json")
KEPT = 200  # differences of one table that are named one by one; all are counted

Key = tuple[Any, ...]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One stored value that isn't what the facts give. `column` '': the row itself, missing or explained by nothing."""

    table: str
    key: dict[str, Any]
    column: str
    stored: Any
    recomputed: Any

    def __str__(self) -> str:
        where = ", ".join(f"{name}={value}" for name, value in self.key.items())
        if not self.column:
            what = "the row is missing" if self.stored is None else "nothing gives this row"
            return f"{self.table} ({where}): {what}"
        path, stored, recomputed = _leaf(self.stored, self.recomputed) if is_json(self.column) else ("", None, None)
        if not path:
            stored, recomputed = self.stored, self.recomputed
        values = f"stored {_short(stored)}, recomputed {_short(recomputed)}"
        return f"{self.table} ({where}) {self.column}{path}: {values}"


@dataclass
class Findings:
    """What a check found: rows compared by table, differences, and rows that can't be judged here."""

    checked: dict[str, int] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    n_differences: int = 0
    not_checkable: dict[str, int] = field(default_factory=dict)  # sentence -> rows
    notes: list[str] = field(default_factory=list)

    def count(self, table: str, rows: int) -> None:
        self.checked[table] = self.checked.get(table, 0) + rows

    def add(self, difference: Difference, times: int = 1) -> None:
        """`times`: how many there are of which this is the first that is named."""
        self.n_differences += times
        self._keep(difference)

    def cannot_check(self, why: str, rows: int) -> None:
        if rows:
            self.not_checkable[why] = self.not_checkable.get(why, 0) + rows

    def merge(self, other: "Findings") -> None:
        for table, rows in other.checked.items():
            self.count(table, rows)
        self.n_differences += other.n_differences
        for difference in other.differences:
            self._keep(difference)
        for why, rows in other.not_checkable.items():
            self.cannot_check(why, rows)
        self.notes += other.notes

    def _keep(self, difference: Difference) -> None:
        if sum(one.table == difference.table for one in self.differences) < KEPT:
            self.differences.append(difference)


def compare(
    findings: Findings,
    table: str,
    keys: Sequence[str],
    stored: Iterable[Row],
    recomputed: Iterable[Row],
    *,
    but: Sequence[str] = (),
) -> None:
    """Compare two sets of rows of `table` that `keys` tell apart; `but`: columns that are not looked at.

    `recomputed` rows may lack columns that are part of the key of the table alone (the group's, the generation's).
    """
    made = {_key(row, keys): row for row in recomputed}
    n = 0
    for row in stored:
        n += 1
        key = dict(zip(keys, _key(row, keys), strict=True))
        mine = made.pop(tuple(key.values()), None)
        if mine is None:
            findings.add(Difference(table, key, "", dict(row), None))
            continue
        for column, value in mine.items():
            if column in but or column in keys:
                continue
            tolerance = DRAWN if column in BOOTSTRAP else EXACT
            if not equal(row[column], value, tolerance, json_text=is_json(column)):
                findings.add(Difference(table, key, column, row[column], value))
    for lost in made:
        findings.add(Difference(table, dict(zip(keys, lost, strict=True)), "", None, "a row"))
    findings.count(table, n)


def is_json(column: str) -> bool:
    return column.endswith("_json") or column == "method"


def equal(stored: Any, recomputed: Any, tolerance: float = EXACT, *, json_text: bool = False) -> bool:
    """Whether two stored values are the same; NULL only equals NULL."""
    if json_text and isinstance(stored, str) and isinstance(recomputed, str):
        try:
            return _same(json.loads(stored), json.loads(recomputed), tolerance)
        except ValueError:
            return False
    return _same(stored, recomputed, tolerance)


def rows(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _same(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a == b or math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[name], b[name], tolerance) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _leaf(stored: Any, recomputed: Any) -> tuple[str, Any, Any]:
    """(path, stored, recomputed) of the first place where two JSON texts differ; path '' where that can't be told."""
    try:
        a, b, path = json.loads(stored), json.loads(recomputed), ""
    except (TypeError, ValueError):
        return "", None, None
    while True:
        if isinstance(a, dict) and isinstance(b, dict):
            steps = {f".{name}": (a.get(name), b.get(name)) for name in sorted(a.keys() | b.keys())}
        elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            steps = {f"[{i}]": pair for i, pair in enumerate(zip(a, b, strict=True))}
        else:
            return path, a, b
        step = next((step for step, (x, y) in steps.items() if not _same(x, y, EXACT)), None)
        if step is None:
            return path, a, b
        path, (a, b) = path + step, steps[step]


def _key(row: Row, keys: Sequence[str]) -> Key:
    return tuple(round(value, 12) if isinstance(value := row[name], float) else value for name in keys)


def _short(value: Any) -> str:
    text = "NULL" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 120 else f"{text[:80]} … {text[-36:]}"

"""Which examples are the turns of a conversation: neighbours in the manifest, in order."""

import json
import sqlite3
from collections.abc import Iterator

from kvt_async.contract.formulas.conversation import Turn, turn_id, turn_of

_MANIFEST = """SELECT x.example_id, x.meta_json FROM manifest_entries m
    JOIN examples x ON x.dataset_id = m.dataset_id AND x.example_id = m.example_id WHERE m.dataset_id = ?"""


def turns_of(conn: sqlite3.Connection, dataset_id: str, name: str) -> list[str]:
    """The turns of the conversation of this name that are asked; where there is none, the example alone."""
    first = conn.execute(
        "SELECT min(seq) FROM manifest_entries WHERE dataset_id = ? AND (example_id = ? OR example_id GLOB ?)",
        (dataset_id, name, f"{_literal(turn_id(name, 1)[:-1])}[1-9]*"),
    ).fetchone()[0]
    names = [] if first is None else [each for each, _ in _of_conversation(conn, dataset_id, name, first)]
    return names or [name]


def turns_before(conn: sqlite3.Connection, dataset_id: str, example_id: str, turn: Turn) -> dict[str, int]:
    """Earlier turns of the same conversation that are asked: turns by example_id."""
    (seq,) = conn.execute(
        "SELECT seq FROM manifest_entries WHERE dataset_id = ? AND example_id = ?", (dataset_id, example_id)
    ).fetchone()
    rows = conn.execute(f"{_MANIFEST} AND m.seq < ? ORDER BY m.seq DESC LIMIT ?", (dataset_id, seq, turn.turn))
    others = ((name, turn_of(json.loads(meta))) for name, meta in rows)
    return {name: other.turn for name, other in others if other and other.conversation == turn.conversation}


def _of_conversation(conn: sqlite3.Connection, dataset_id: str, name: str, first: int) -> Iterator[tuple[str, int]]:
    """Its turns from place `first` on; none where another conversation, or none, stands there."""
    for example_id, meta in conn.execute(f"{_MANIFEST} AND m.seq >= ? ORDER BY m.seq", (dataset_id, first)):
        turn = turn_of(json.loads(meta))
        if turn is None or turn.conversation != name:
            return
        yield example_id, turn.turn


def _literal(text: str) -> str:
    """A text as GLOB's pattern of itself."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)

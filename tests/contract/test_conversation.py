"""Which examples are turns of a conversation, and what they share."""

from typing import Any

import pytest

from kvt_async.contract.formulas.conversation import Turn, turn_id, turn_of, unit_of
from kvt_async.contract.formulas.prompt_text import cluster_sha256


def test_a_turn_says_its_conversation_and_its_place() -> None:
    meta = {"conversation": "c", "turn": 2}
    assert turn_of(meta) == Turn("c", 2)
    assert (turn_id("c", 0), turn_id("c", 2)) == ("c", "c.t2")
    assert (unit_of("c.t2", meta), unit_of("alone", {})) == ("c", "alone")


@pytest.mark.parametrize(
    "note",
    [{}, {"conversation": "c"}, {"turn": 1}, {"conversation": ["c"], "turn": 1}, {"conversation": "c", "turn": True},
     {"conversation": "c", "turn": "1"}, {"conversation": "c", "turn": -1}],
)  # fmt: skip
def test_a_note_of_another_kind_makes_no_turn(note: dict[str, Any]) -> None:
    assert turn_of(note) is None
    assert unit_of("e", note) == "e"


def test_turns_without_a_context_are_one_cluster_and_share_it_with_nobody() -> None:
    first, second = {"conversation": "c", "turn": 0}, {"conversation": "c", "turn": 1}
    assert cluster_sha256("", unit_of("c", first)) == cluster_sha256("", unit_of("c.t1", second))
    assert cluster_sha256("", unit_of("c", first)) != cluster_sha256("", unit_of("d", {}))
    assert cluster_sha256("text", unit_of("c", first)) == cluster_sha256("text", unit_of("d", {}))

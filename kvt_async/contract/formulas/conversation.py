"""Which turn of which conversation an example is. A conversation of n turns is up to n examples, one a turn that is
scored, which share a context and a cluster; each carries the turns before it in `meta.turns`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Turn(NamedTuple):
    """Turn `turn` (0, 1, ...) of the conversation that is called `conversation`."""

    conversation: str
    turn: int


def turn_of(meta: Mapping[str, Any]) -> Turn | None:
    """`meta.conversation` and `meta.turn` of an example; None: it is no turn of a conversation."""
    conversation, turn = meta.get("conversation"), meta.get("turn")
    if not isinstance(conversation, str) or not isinstance(turn, int) or isinstance(turn, bool) or turn < 0:
        return None
    return Turn(conversation, turn)


def turn_id(conversation: str, turn: int) -> str:
    """The example_id of a turn: the first one has the conversation's own id."""
    return f"{conversation}.t{turn}" if turn else conversation


def unit_of(example_id: str, meta: Mapping[str, Any]) -> str:
    """What is chosen as one: the conversation of a turn, else the example itself."""
    turn = turn_of(meta)
    return example_id if turn is None else turn.conversation


def cluster_unit(example_id: str, meta: Mapping[str, Any]) -> str:
    """Whom an example without a context shares its cluster with: the turns of its conversation, else those of the same
    `meta.cluster_key`, else nobody.
    """
    key = meta.get("cluster_key")
    return f"\x00{key}" if isinstance(key, str) and key and turn_of(meta) is None else unit_of(example_id, meta)

"""Rows of one conversation, read together: what is chosen and cut as a whole must come as a whole."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby, pairwise

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.conversation import turn_of
from kvt_async.data.sources.source import Row


def whole_conversations(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows as they come, each turn with the last one of its conversation.

    Raises ConfigError where the turns of a conversation don't rise, or don't share one context.
    """
    for conversation, group in groupby(rows, _conversation):
        if conversation is None:
            yield from group
            continue
        turns = list(group)
        for earlier, later in pairwise(turns):
            _check_follows(earlier, later)
        yield from (replace(row, last_turn=turns[-1].example) for row in turns)


def _conversation(row: Row) -> str | None:
    turn = turn_of(row.example.meta)
    return None if turn is None else turn.conversation


def _check_follows(earlier: Row, later: Row) -> None:
    before, after = turn_of(earlier.example.meta), turn_of(later.example.meta)
    if before is None or after is None or after.turn <= before.turn:
        raise ConfigError(
            f"turn {after and after.turn} of conversation {after and after.conversation!r} comes after turn "
            f"{before and before.turn} at {earlier.where}",
            where=later.where,
            do="Give each conversation an id of its own, and its turns in their order.",
        )
    if earlier.example.context != later.example.context:
        raise ConfigError(
            f"the turns of conversation {after.conversation!r} have different contexts",
            where=later.where,
            do=f"One context for all its turns, as at {earlier.where}.",
        )

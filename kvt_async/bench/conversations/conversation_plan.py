"""Which turn of which conversation a place of the workload is: conversation after conversation, turn after turn."""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import NamedTuple


class TurnPlace(NamedTuple):
    """Turn `turn` (0, 1, ...) of conversation `conversation` (0, 1, ...)."""

    conversation: int
    turn: int


class ConversationPlan:
    """The conversations of one repeat by their numbers of turns, as far as anybody has asked; for several threads."""

    def __init__(self, turns: Callable[[int], int]) -> None:
        """`turns`: of a conversation, at least 1, always the same."""
        self._turns, self._ends, self._lock = turns, [0], threading.Lock()

    def turns(self, conversation: int) -> int:
        return self.first(conversation + 1) - self.first(conversation)

    def first(self, conversation: int) -> int:
        """The place of its first turn."""
        if conversation >= len(self._ends):
            self._grow(lambda: conversation >= len(self._ends))
        return self._ends[conversation]

    def turn_of(self, place: int) -> TurnPlace:
        if place >= self._ends[-1]:
            self._grow(lambda: place >= self._ends[-1])
        conversation = bisect_right(self._ends, place) - 1
        return TurnPlace(conversation, place - self._ends[conversation])

    def whole(self, n: int, start: int = 0) -> int:
        """How many turns the fewest conversations have that begin at place `start`, where one does, and hold at least
        `n` of them."""
        self.turn_of(start + n)
        return self._ends[bisect_left(self._ends, start + n)] - start

    def of(self, conversations: range) -> range:
        """The places of these conversations, which lie side by side."""
        return range(self.first(conversations.start), self.first(conversations.stop))

    def _grow(self, is_short: Callable[[], bool]) -> None:
        with self._lock:
            while is_short():
                self._ends.append(self._ends[-1] + self._turns(len(self._ends) - 1))

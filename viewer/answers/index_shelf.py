"""Indexes of answers, made once and made anew when the facts have grown; a few are kept."""

import asyncio
import time

from viewer.answers.answer_index import AnswerIndex, answer_index, facts_seen
from viewer.groups.group_places import GroupPlace
from viewer.groups.opened_group import opened_group

KEPT = 2  # a million answers take 50 MB
PAUSE = 5.0  # of a group that grows: times what making its index took, before it is made anew


class IndexShelf:
    """By group, the newest index; each is made by one thread at a time."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[AnswerIndex, float, float]] = {}  # index, when it was made, seconds that it took
        self._making: dict[str, asyncio.Task[AnswerIndex]] = {}

    async def index(self, place: GroupPlace) -> AnswerIndex:
        """Made where there is none, or it is older than the facts and was not made just now."""
        if place.key not in self._making:
            task = asyncio.create_task(self._made(place))
            self._making[place.key] = task
            task.add_done_callback(lambda _: self._making.pop(place.key, None))
        return await asyncio.shield(self._making[place.key])

    async def within(self, place: GroupPlace, seconds: float) -> AnswerIndex | None:
        """The index, or None where it takes longer; it is made on."""
        try:
            return await asyncio.wait_for(self.index(place), seconds)
        except TimeoutError:
            return None

    async def _made(self, place: GroupPlace) -> AnswerIndex:
        kept = self._kept.get(place.key)
        if kept is not None and time.monotonic() - kept[1] < kept[2] * PAUSE:
            return kept[0]
        before = time.monotonic()
        index = await asyncio.to_thread(_current, place, kept[0] if kept else None)
        now = time.monotonic()
        took = now - before if kept is None or index is not kept[0] else kept[2]
        self._kept.pop(place.key, None)
        while len(self._kept) >= KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[place.key] = index, now, took
        return index


def _current(place: GroupPlace, kept: AnswerIndex | None) -> AnswerIndex:
    with opened_group(place) as conn:
        if kept is not None and kept.state == facts_seen(conn):
            return kept
        return answer_index(conn, place.name)

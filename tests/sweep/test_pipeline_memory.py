"""Long prompts: how many bodies are made before their turn has come, and that all of them have it."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from msgspec.structs import replace

from kvt_async.records import Attempt, Outcome, Request
from kvt_async.store.writer import Writer
from kvt_async.sweep.pipeline import Pipeline, send_all
from kvt_async.sweep.places import Line
from tests.group_db import NOW, SESSION, attempt, make_group, request, request_row

N, SIZE, CONCURRENCY, AHEAD = 60, 1000, 2, 4


class Seen:
    """Counts bodies that were made and whose requests were not saved."""

    def __init__(self) -> None:
        self.made = self.saved_n = self.most = 0

    def attempted(self, request: Request, attempt: Attempt) -> None: ...

    def saved(self, outcome: Outcome) -> None:
        self.saved_n += 1


async def run(db: Path, stop_after: int | None = None) -> Seen:
    seen, stop = Seen(), asyncio.Event()

    async def requests(store: Writer) -> AsyncGenerator[Request, None]:
        for seq in range(N):
            await store.save([request_row(seq)])
            seen.made += 1
            seen.most = max(seen.most, seen.made - seen.saved_n)
            yield replace(request(seq), body=b"x" * SIZE)

    async def send(request: Request, record: object, *, again: object, scheduled_ns: int) -> Outcome:
        await asyncio.sleep(0)
        if stop_after is not None and seen.saved_n >= stop_after:
            stop.set()
        return Outcome(request, attempt())

    async with Writer(db, 0.001) as store:
        line = Line(CONCURRENCY, N, store, ahead_bytes=AHEAD * SIZE)
        pipe = Pipeline(send, store, line, seen, stop, SESSION, lambda: NOW)
        async with asyncio.timeout(20):
            await send_all(requests(store), pipe, workers=4 * CONCURRENCY)
        assert line.waiting_bytes == 0
    return seen


async def test_bodies_wait_for_their_turn_up_to_a_bound_in_bytes_and_all_are_sent(tmp_path: Path) -> None:
    make_group(tmp_path / "k.sqlite", N)
    seen = await run(tmp_path / "k.sqlite")
    assert seen.saved_n == N
    assert seen.most <= AHEAD + 1 + CONCURRENCY  # one more: made, and waiting for room


async def test_a_stop_while_the_producer_waits_for_room_ends_the_run(tmp_path: Path) -> None:
    make_group(tmp_path / "k.sqlite", N)
    seen = await run(tmp_path / "k.sqlite", stop_after=5)
    assert 5 <= seen.saved_n < N

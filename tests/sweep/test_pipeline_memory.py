"""Long prompts: how many bodies are made before their turn has come, and that all of them have it."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from msgspec.structs import replace

from kvt_async.records import Attempt, Outcome, Request
from kvt_async.store.writer import Writer
from kvt_async.sweep.pipeline import Pipeline, send_all
from kvt_async.sweep.places import Places
from kvt_async.sweep.request_queue import RequestQueue
from tests.group_db import SESSION, attempt, make_group, request, request_row

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

    places = Places(CONCURRENCY)
    async with Writer(db, 0.001, urgent=places.are_wanted, batch=1) as store:
        queue = RequestQueue(N, ahead_bytes=AHEAD * SIZE)
        pipe = Pipeline(send, store, queue, places, seen, stop, SESSION)
        async with asyncio.timeout(20):
            await send_all(requests(store), pipe, workers=4 * CONCURRENCY)
        assert not queue.has_some
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


async def test_a_request_that_waits_for_a_place_does_not_wait_for_the_flush_interval(tmp_path: Path) -> None:
    make_group(tmp_path / "k.sqlite", N)
    seen, places = Seen(), Places(1)

    async def requests() -> AsyncGenerator[Request, None]:
        for seq in range(4):
            yield request(seq)

    async def send(request: Request, record: object, *, again: object, scheduled_ns: int) -> Outcome:
        return Outcome(request, attempt())

    async with Writer(tmp_path / "k.sqlite", 10, urgent=places.are_wanted) as store:
        await store.save([request_row(seq) for seq in range(4)])
        pipe = Pipeline(send, store, RequestQueue(N), places, seen, asyncio.Event(), SESSION)
        async with asyncio.timeout(9):
            await send_all(requests(), pipe, workers=4)
    assert seen.saved_n == 4

"""Who is sent next: requests in order, each with a place that it keeps until its outcome is on disk."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from kvt_async.store.writer import Writer
from kvt_async.sweep.places import Line, Scheduled
from tests.group_db import request


class Disk(Writer):
    """A store that nobody opened: what the line tells it is counted."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.hurried = 0

    def hurry(self) -> None:
        self.hurried += 1


async def turns(n: int = 5) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


def numbers(taken: list["asyncio.Task[Scheduled | None]"]) -> list[str]:
    return [item[0].request_id.rpartition(":")[2] for task in taken if task.done() and (item := task.result())]


async def test_requests_leave_in_order_and_only_with_a_place() -> None:
    line = Line(2, 10, Disk())
    for n in range(4):
        await line.put(request(n), n)
    takers = [asyncio.create_task(line.take()) for _ in range(4)]
    await turns()
    assert numbers(takers) == ["0", "1"]
    line.leave()
    await turns()
    assert sorted(numbers(takers)) == ["0", "1", "2"]


async def test_somebody_waits_for_a_commit_only_while_no_place_is_free_and_something_is_to_be_sent() -> None:
    store = Disk()
    line = Line(1, 10, store)
    assert not store.urgent()
    await line.put(request(0), 0)
    await line.take()
    assert not store.urgent()  # nothing else is to be sent
    await line.put(request(1), 0)
    assert store.urgent()
    waiting = asyncio.create_task(line.take())
    await turns()
    assert store.hurried == 1
    line.leave()
    assert not store.urgent()
    assert (await waiting) is not None


async def test_another_try_goes_before_requests_that_were_never_sent() -> None:
    line = Line(1, 10, Disk())
    await line.put(request(0), 0)
    await line.take()
    await line.put(request(1), 0)
    fresh, again = asyncio.create_task(line.take()), asyncio.create_task(line.again())
    await turns()
    line.leave()
    await turns()
    assert (fresh.done(), again.done()) == (False, True)
    line.leave()
    await turns()
    assert numbers([fresh]) == ["1"]


async def test_a_waiter_that_was_cancelled_takes_no_place_along() -> None:
    line = Line(1, 10, Disk())
    await line.put(request(0), 0)
    await line.take()
    await line.put(request(1), 0)
    gone = [asyncio.create_task(line.again()), asyncio.create_task(line.take())]
    there = asyncio.create_task(line.take())
    await turns()
    for task in gone:
        task.cancel()
    await turns()
    line.leave()
    await turns()
    assert numbers([there]) == ["1"]


async def test_the_end_is_told_to_everybody_once_the_line_is_empty() -> None:
    line = Line(1, 10, Disk())
    await line.put(request(0), 0)
    takers = [asyncio.create_task(line.take()) for _ in range(3)]
    await turns()
    line.end()
    await turns()
    assert [task.done() for task in takers] == [True, True, True]
    assert numbers(takers) == ["0"]
    assert await line.take() is None


@pytest.mark.parametrize("sizes", [[10, 10, 10], [1000, 10, 10]])
async def test_a_producer_waits_for_room_in_bytes_but_one_body_may_always_wait(sizes: list[int]) -> None:
    line = Line(3, 10, Disk(), ahead_bytes=20)

    async def produce() -> None:
        for n, size in enumerate(sizes):
            await line.put(replace(request(n), body=b"x" * size), 0)

    producing = asyncio.create_task(produce())
    await turns()
    assert line.waiting_bytes == (20 if sizes[0] == 10 else 1000)
    assert not producing.done()
    while not producing.done():
        await line.take()
        await turns()
    assert line.waiting_bytes <= 20


async def test_a_producer_that_met_a_full_line_goes_on_when_half_of_it_is_gone() -> None:
    line = Line(9, 4, Disk())
    for n in range(4):
        await line.put(request(n), 0)
    fifth = asyncio.create_task(line.put(request(4), 0))
    await turns()
    await line.take()
    await turns()
    assert not fifth.done()
    await line.take()
    await turns()
    assert fifth.done()

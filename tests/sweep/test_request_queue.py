"""How many requests are made before their turn: bounded by number and by bytes, in order, to the last one."""

import asyncio

import pytest
from msgspec.structs import replace

from kvt_async.sweep.request_queue import RequestQueue, Scheduled
from tests.group_db import request
from tests.sweep.test_places import turns


def numbers(taken: list["asyncio.Task[Scheduled | None]"]) -> list[str]:
    return [item[0].request_id.rpartition(":")[2] for task in taken if task.done() and (item := task.result())]


async def taken(queue: RequestQueue) -> Scheduled | None:
    """What a worker gets; None: there are no more."""
    while await queue.wait():
        if (item := queue.get()) is not None:
            return item
    return None


async def test_requests_leave_in_order_whether_they_or_the_workers_came_first() -> None:
    queue = RequestQueue(10)
    await queue.put(request(0), 7)
    takers = [asyncio.create_task(taken(queue)) for _ in range(3)]
    await turns()
    await queue.put(request(1), 8)
    await queue.put(request(2), 9)
    await turns()
    assert sorted(numbers(takers)) == ["0", "1", "2"]
    assert takers[0].result() == (request(0), 7)


async def test_the_end_is_told_to_everybody_once_the_queue_is_empty() -> None:
    queue = RequestQueue(10)
    await queue.put(request(0), 0)
    takers = [asyncio.create_task(taken(queue)) for _ in range(3)]
    await turns()
    queue.end()
    await turns()
    assert [task.done() for task in takers] == [True, True, True]
    assert numbers(takers) == ["0"]
    assert await taken(queue) is None


@pytest.mark.parametrize("sizes", [[10, 10, 10], [1000, 10, 10]])
async def test_a_producer_waits_for_room_in_bytes_but_one_body_may_always_wait(sizes: list[int]) -> None:
    queue, waiting = RequestQueue(10, ahead_bytes=20), list[int]()

    async def produce() -> None:
        for n, size in enumerate(sizes):
            await queue.put(replace(request(n), body=b"x" * size), 0)
            waiting.append(size)

    producing = asyncio.create_task(produce())
    await turns()
    assert sum(waiting) == (20 if sizes[0] == 10 else 1000)
    assert not producing.done()
    while not producing.done():
        await taken(queue)
        waiting.pop(0)
        await turns()
        assert sum(waiting) <= 20


async def test_a_worker_that_came_too_late_gets_none_and_waits_again() -> None:
    queue = RequestQueue(10)
    late = asyncio.create_task(queue.wait())
    await turns()
    await queue.put(request(0), 0)
    assert queue.get() is not None
    await turns()
    assert queue.get() is None
    assert not late.done()
    await queue.put(request(1), 0)
    await turns()
    assert late.done()


async def test_a_producer_that_met_a_full_queue_goes_on_when_half_of_it_is_gone() -> None:
    queue = RequestQueue(4)
    for n in range(4):
        await queue.put(request(n), 0)
    fifth = asyncio.create_task(queue.put(request(4), 0))
    await turns()
    await taken(queue)
    await turns()
    assert not fifth.done()
    await taken(queue)
    await turns()
    assert fifth.done()

"""Who may be sent next: so many at once until their outcomes are on disk, and who tries again before who is new."""

import asyncio

from kvt_async.sweep.places import Places


async def turns(n: int = 5) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


def waiting_for(places: Places, n: int, *, again: bool = False) -> list["asyncio.Task[None]"]:
    return [asyncio.create_task(places.take(again=again)) for _ in range(n)]


async def test_so_many_are_given_out_and_each_that_comes_back_goes_to_somebody_who_waits() -> None:
    places = Places(2)
    takers = waiting_for(places, 4)
    await turns()
    assert [task.done() for task in takers] == [True, True, False, False]
    places.leave()
    await turns()
    assert sum(task.done() for task in takers) == 3
    assert not places.take_at_once()


async def test_requests_that_try_again_go_in_their_order() -> None:
    places = Places(1)
    assert places.take_at_once()
    takers = waiting_for(places, 2, again=True)
    await turns()
    places.leave()
    await turns()
    assert [task.done() for task in takers] == [True, False]


async def test_a_commit_is_wanted_only_while_somebody_waits_for_a_place() -> None:
    places = Places(1)
    assert not places.are_wanted()
    assert places.take_at_once()
    assert not places.are_wanted()  # nothing else is to be sent
    (waiting,) = waiting_for(places, 1)
    await turns()
    assert places.are_wanted()
    places.leave()
    assert not places.are_wanted()
    await waiting


async def test_another_try_goes_before_requests_that_were_never_sent() -> None:
    places = Places(1)
    assert places.take_at_once()
    (fresh,) = waiting_for(places, 1)
    await turns()
    (again,) = waiting_for(places, 1, again=True)
    await turns()
    places.leave()
    await turns()
    assert (fresh.done(), again.done()) == (False, True)
    places.leave()
    await turns()
    assert fresh.done()


async def test_a_waiter_that_was_cancelled_takes_no_place_along() -> None:
    places = Places(1)
    assert places.take_at_once()
    gone = [*waiting_for(places, 1, again=True), *waiting_for(places, 1)]
    (there,) = waiting_for(places, 1)
    await turns()
    for task in gone:
        task.cancel()
    await turns()
    places.leave()
    await turns()
    assert there.done()


async def test_a_waiter_that_is_cancelled_as_it_gets_its_place_gives_it_to_the_next() -> None:
    places = Places(1)
    assert places.take_at_once()
    first, second = waiting_for(places, 2, again=True)
    await turns()
    places.leave()
    first.cancel()
    await turns()
    assert second.done()
    assert first.cancelled()

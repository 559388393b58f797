"""One line through slots and rates: never over the limit, first come first served, whatever the size."""

import asyncio
import itertools
import random
from typing import Any

import pytest

from kvt_async.contract.settings import Limits
from kvt_async.engine.send.adaptive_concurrency import COOL_DOWN_S, Slots
from kvt_async.engine.send.rate_limits import Dispatcher
from tests.fake_time import in_fake_time

Sent = list[tuple[float, int, int]]  # (when, who, tokens)


async def drive(limits: Limits, sizes: list[int], *, hold_s: float = 0.0, used: int | None = None) -> Sent:
    """Everyone asks at once, in order."""
    dispatcher, sent = Dispatcher(limits), []

    async def one(who: int, tokens: int) -> None:
        await dispatcher.enter(tokens)
        sent.append((asyncio.get_running_loop().time(), who, tokens))
        await asyncio.sleep(hold_s)
        dispatcher.leave(tokens, used)

    await asyncio.gather(*(one(who, tokens) for who, tokens in enumerate(sizes)))
    return sent


def most_in_a_minute(events: list[tuple[float, float]]) -> float:
    """The largest sum of amounts in any window of 60 s."""
    worst = total = 0.0
    first = 0
    for at, amount in events:
        total += amount
        while events[first][0] <= at - 60:
            total -= events[first][1]
            first += 1
        worst = max(worst, total)
    return worst


@pytest.mark.parametrize("per_minute", [60, 600, 1800, 90])
def test_requests_are_never_more_than_5_percent_over_the_limit_in_any_minute(per_minute: int) -> None:
    limits = Limits(requests_per_minute=per_minute, concurrency=1000)
    sent = in_fake_time(drive(limits, [1] * (3 * per_minute)))
    assert most_in_a_minute([(at, 1) for at, _, _ in sent]) <= 1.05 * per_minute
    assert sent[-1][0] - sent[0][0] == pytest.approx(180, rel=0.05)  # and not much under it either


def test_a_slow_rate_is_a_steady_beat() -> None:
    sent = in_fake_time(drive(Limits(requests_per_minute=6, concurrency=10), [1] * 5))
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(sent)]
    assert gaps == pytest.approx([10.0] * 4)


@pytest.mark.parametrize("seed", range(5))
def test_tokens_are_never_more_than_5_percent_over_the_limit_in_any_minute(seed: int) -> None:
    rng = random.Random(seed)
    sizes = [rng.choice([10, 100, 400, 5000]) for _ in range(300)]
    sent = in_fake_time(drive(Limits(tokens_per_minute=12_000, concurrency=1000), sizes))
    assert most_in_a_minute([(at, tokens) for at, _, tokens in sent]) <= 1.05 * 12_000
    assert sum(sizes) / (sent[-1][0] - sent[0][0]) > 0.8 * 12_000 / 60


def test_a_large_prompt_saved_up_before_a_minute_counts_in_it() -> None:
    sizes = [*[10] * 200, 3000, *[10] * 1200]
    sent = in_fake_time(drive(Limits(tokens_per_minute=12_000, concurrency=2000), sizes))
    assert most_in_a_minute([(at, tokens) for at, _, tokens in sent]) <= 1.05 * 12_000


def test_a_prompt_larger_than_the_bucket_goes_through_and_takes_its_time() -> None:
    sent = in_fake_time(drive(Limits(tokens_per_minute=6000, concurrency=10), [3000, 10]))
    assert [who for _, who, _ in sent] == [0, 1]
    assert sent[0][0] - 1000 == pytest.approx(29, abs=1.1)  # 100 tokens/s, one second's worth at once


def test_a_long_prompt_behind_a_stream_of_short_ones_is_not_starved() -> None:
    async def main() -> list[int]:
        dispatcher, order = Dispatcher(Limits(tokens_per_minute=600, concurrency=100)), []

        async def one(who: int, tokens: int) -> None:
            await dispatcher.enter(tokens)
            order.append(who)
            dispatcher.leave(tokens, None)

        async with asyncio.TaskGroup() as group:
            for who in range(60):
                group.create_task(one(who, 80 if who == 10 else 10))
                await asyncio.sleep(0.2)
        return order

    assert in_fake_time(main()) == list(range(60))


def test_tokens_beyond_the_estimate_are_owed_and_paid_by_the_next_in_line() -> None:
    limits = Limits(tokens_per_minute=6000, concurrency=1)
    as_estimated = in_fake_time(drive(limits, [100] * 20, used=100))
    more = in_fake_time(drive(limits, [100] * 20, used=300))
    less = in_fake_time(drive(limits, [100] * 20, used=10))
    assert as_estimated[-1][0] - as_estimated[0][0] == pytest.approx(19, abs=1)
    assert more[-1][0] - more[0][0] == pytest.approx(3 * 19, abs=3)
    assert less[-1][0] == as_estimated[-1][0]  # what an estimate was too high is no licence to go over the limit


def test_both_limits_hold_together() -> None:
    limits = Limits(requests_per_minute=120, tokens_per_minute=6000, concurrency=100)
    sent = in_fake_time(drive(limits, [10] * 300))
    assert most_in_a_minute([(at, 1) for at, _, _ in sent]) <= 1.05 * 120
    sent = in_fake_time(drive(limits, [100] * 100))
    assert most_in_a_minute([(at, t) for at, _, t in sent]) <= 1.05 * 6000


@pytest.mark.parametrize("rates", [{}, {"requests_per_minute": 60_000}])
def test_no_more_are_in_flight_than_concurrency_allows_and_the_first_to_ask_goes_first(rates: dict[str, Any]) -> None:
    sent = in_fake_time(drive(Limits(concurrency=3, **rates), [1] * 9, hold_s=1.0))
    assert [who for _, who, _ in sent] == list(range(9))
    assert [round(at - 1000) for at, _, _ in sent] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("rates", [{}, {"requests_per_minute": 60}, {"tokens_per_minute": 60}])
def test_who_leaves_the_line_takes_nothing_along(rates: dict[str, Any]) -> None:
    async def main() -> None:
        dispatcher = Dispatcher(Limits(concurrency=1, **rates))
        await dispatcher.enter(1)
        waiting = [asyncio.create_task(dispatcher.enter(1)) for _ in range(3)]
        await asyncio.sleep(0.5)
        assert dispatcher.waiting == 3
        waiting[0].cancel()
        waiting[2].cancel()
        dispatcher.leave(1, None)
        waiting[0].cancel()
        await asyncio.wait_for(waiting[1], 120)
        assert dispatcher.slots.held == 1
        dispatcher.leave(1, None)
        assert (dispatcher.slots.held, dispatcher.waiting) == (0, 0)

    in_fake_time(main())


def test_a_slot_given_to_someone_who_is_cancelled_in_the_same_moment_is_not_lost() -> None:
    async def main() -> int:
        slots = Slots(1)
        await slots.acquire()
        waiter = asyncio.create_task(slots.acquire())
        await asyncio.sleep(0)
        slots.release()  # the slot is the waiter's now
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        return slots.held

    assert in_fake_time(main()) == 0


# ------------------------------------------------------------------ adaptive concurrency


async def rounds(slots: Slots, n: int) -> None:
    for _ in range(n):
        for _ in range(slots.limit):
            await slots.acquire()
        for _ in range(slots.held):
            slots.succeeded()
            slots.release()


def test_adaptive_concurrency_grows_while_clean_to_the_bound() -> None:
    async def main() -> list[int]:
        slots, seen = Slots(50, adaptive=True), []
        for _ in range(6):
            seen.append(slots.limit)
            await rounds(slots, 1)
        return seen

    assert in_fake_time(main()) == [8, 16, 32, 50, 50, 50]


def test_a_refusal_cuts_once_per_cool_down_and_growth_is_careful_after_it() -> None:
    async def main() -> None:
        slots = Slots(100, adaptive=True)
        await rounds(slots, 3)
        assert slots.limit == 64
        for _ in range(10):
            slots.refused()
        assert slots.limit == 51
        await rounds(slots, 1)
        assert slots.limit == 51  # still cooling
        await asyncio.sleep(COOL_DOWN_S)
        await rounds(slots, 1)
        assert slots.limit == 53
        slots.refused()
        assert slots.limit == 42

    in_fake_time(main())


def test_a_share_of_an_adaptive_bound_begins_with_its_share_and_tells_of_a_cut_once() -> None:
    async def main() -> None:
        slots, cuts = Slots(25, adaptive=True), list[int]()
        slots.on_cut = lambda: cuts.append(slots.limit)
        slots.begin_with(2)
        assert slots.limit == 2
        await rounds(slots, 3)
        for _ in range(3):
            slots.refused()
        assert cuts == [slots.limit] == [6]
        fixed = Slots(3)
        fixed.begin_with(1)
        assert fixed.limit == 3

    in_fake_time(main())


def test_slots_that_nobody_uses_are_no_reason_to_grow() -> None:
    async def main() -> int:
        slots = Slots(50, adaptive=True)
        for _ in range(100):
            await slots.acquire()
            slots.succeeded()
            slots.release()
        return slots.limit

    assert in_fake_time(main()) == 8


def test_without_adaptive_the_bound_stays() -> None:
    async def main() -> int:
        slots = Slots(5)
        slots.refused()
        await rounds(slots, 5)
        return slots.limit

    assert in_fake_time(main()) == 5

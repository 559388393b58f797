"""A request's way to its outcome: tries recorded, waits held by nobody, a dead server that ends the run, Ctrl-C."""

import asyncio
import sys
import time

import pytest

from kvt_async.contract.errors import EndState, ErrorType
from kvt_async.contract.settings import Retry
from kvt_async.engine.send.breaker import Breaker
from kvt_async.engine.send.sender import Sender
from kvt_async.engine.send.witness import Asked
from kvt_async.records import Attempt, Request
from tests.engine.sending import PATH, Recorder, against, request_to, send_one
from tests.servers.fault_server import (
    FaultServer,
    Seen,
    Step,
    Wire,
    answer,
    close,
    cut,
    delta,
    error,
    event,
    paced,
    reply,
    stall,
    status,
)
from tests.worlds import engine_settings, until

LINUX = sys.platform == "linux"
FAST = {"retry": {"max_attempts": 4, "initial_s": 0.01, "max_wait_s": 0.1}}


async def test_every_try_is_recorded_but_the_last_which_is_the_outcomes() -> None:
    steps = error(500, "x"), error(429, "y", headers={"Retry-After": "0.05"}), cut(reply("a"), 100), answer("ok")
    async with against(*steps, limits=FAST) as (server, sender):
        recorder = Recorder()
        outcome = await send_one(sender, server, recorder, attempts_before=3)
        assert sender.retries == 3
    assert [(a.attempt_idx, a.error_type) for a in recorder.attempts] == [
        (3, ErrorType.HTTP),
        (4, ErrorType.RATE_LIMITED),
        (5, ErrorType.STREAM_CUT),
    ]
    assert recorder.attempts[1].retry_after_s == 0.05
    assert outcome.last is not None
    assert (outcome.last.attempt_idx, outcome.give_up) == (6, None)
    assert outcome.reply is not None


async def test_retry_after_is_waited_for() -> None:
    async with against(error(503, "x", headers={"Retry-After": "0.3"}), answer("ok"), limits=FAST) as (server, sender):
        await send_one(sender, server)
    assert 0.3 <= (server.seen[1].at_ns - server.seen[0].at_ns) / 1e9 < 0.5


async def test_a_wait_said_in_the_errors_body_is_waited_for() -> None:
    told = status(429, [{"error": {"details": [{"retryDelay": "0.3s"}]}}])
    in_stream = status(200, {"error": {"code": 429, "message": "Please try again in 300ms"}})
    for refusal in (told, in_stream):
        async with against(refusal, answer("ok"), limits=FAST) as (server, sender):
            recorder = Recorder()
            await send_one(sender, server, recorder)
        assert recorder.attempts[0].retry_after_s == pytest.approx(0.3)
        assert 0.3 <= (server.seen[1].at_ns - server.seen[0].at_ns) / 1e9 < 0.6


@pytest.mark.parametrize(
    ("step", "reason", "n_seen"),
    [
        (error(500, "x"), "attempts_exhausted", 4),
        (error(400, "x"), "not_retryable", 1),
        (error(400, "maximum context length is 5"), "not_retryable", 1),
        (error(429, "x", headers={"Retry-After": "3600"}), "retry_after_too_long", 1),
        (error(500, "x", headers={"x-should-retry": "false"}), "not_retryable", 1),
    ],
)
async def test_a_request_is_given_up_for_a_reason(step: Step, reason: str, n_seen: int) -> None:
    async with against(step, limits=FAST) as (server, sender):
        sender.witness.remember(Asked(server.base_url, PATH, b"what was answered before"))
        recorder = Recorder()
        outcome = await send_one(sender, server, recorder)
    assert (outcome.give_up, len(server.seen), len(recorder.attempts)) == (reason, n_seen, n_seen - 1)
    assert outcome.last is not None
    assert outcome.last.reply is None


async def test_a_running_answer_is_no_waiting_so_one_that_breaks_off_late_is_tried_again() -> None:
    limits = {"retry": {"max_attempts": 2, "initial_s": 0.01, "max_elapsed_s": 0.2}}
    dripping = paced([(0.1, event(delta("a")))] * 5, end=False)

    async def breaks_off(wire: Wire, request: Seen) -> None:
        await dripping(wire, request)
        wire.close()

    async with against(breaks_off, answer("whole"), limits=limits) as (server, sender):
        recorder = Recorder()
        outcome = await send_one(sender, server, recorder)
    assert [a.error_type for a in recorder.attempts] == [ErrorType.STREAM_CUT]
    assert recorder.attempts[0].latency_s > 0.2
    assert outcome.reply is not None
    assert outcome.reply.text == "whole"


async def test_time_bounds_the_tries() -> None:
    limits = {"retry": {"max_attempts": 100, "initial_s": 0.05, "max_elapsed_s": 0.4}}
    async with against(error(500, "x"), limits=limits) as (server, sender):
        began = time.monotonic()
        outcome = await send_one(sender, server)
    assert outcome.give_up == "time_exhausted"
    assert time.monotonic() - began < 1


async def test_who_sleeps_between_two_tries_holds_neither_slot_nor_permit() -> None:
    limits = {"concurrency": 1, "retry": {"max_attempts": 2, "initial_s": 0.01}}
    steps = error(503, "x", headers={"Retry-After": "0.4"}), answer("b"), answer("a")
    async with against(*steps, limits=limits) as (server, sender):
        sleeper = asyncio.create_task(send_one(sender, server, number=1))
        await until(lambda: sender.retries)
        assert (sender.in_flight, sender.dispatcher.slots.held, sender.waiting) == (0, 0, 0)
        other = await send_one(sender, server, number=2)
        assert not sleeper.done()
        assert other.reply is not None
        assert (await sleeper).reply is not None


async def test_limits_hold_for_retries_too() -> None:
    limits = {"requests_per_minute": 1200, "retry": {"max_attempts": 5, "initial_s": 0.001}}
    async with against(error(500, "x"), limits=limits) as (server, sender):
        sends = [send_one(sender, server, number=n) for n in range(12)]
        await asyncio.gather(*sends)
        arrivals = sorted(seen.at_ns for seen in server.seen)
    assert len(arrivals) == 60
    assert (arrivals[-1] - arrivals[0]) / 1e9 > (60 - 20) / 20 * 0.95  # 20 a second, one second's worth at once


async def test_usage_beyond_the_estimate_is_owed() -> None:
    body = event(delta("a")) + event({"choices": [], "usage": {"prompt_tokens": 500, "completion_tokens": 30}})
    step = paced([(0, body + event("[DONE]"))])
    async with against(step, limits={"tokens_per_minute": 1_000_000}) as (server, sender):
        await send_one(sender, server)
        assert sender.dispatcher.owed == 500  # 530 counted, 10 + 20 estimated


async def test_marks_stand_in_the_order_of_what_happened() -> None:
    step = paced([(0.02, event(delta("", role="assistant"))), (0.02, event(delta("a"))), (0.02, reply("b"))])
    async with against(step) as (server, sender):
        scheduled = time.perf_counter_ns()
        outcome = await sender.send(request_to(server.base_url), Recorder(), scheduled_ns=scheduled)
        seen_ns = server.seen[0].at_ns
    assert outcome.last is not None
    m = outcome.last.marks
    order = (
        *(m.scheduled_ns, m.dequeued_ns, m.limits_ns, m.conn_ready_ns, m.start_ns, m.headers_sent_ns, m.body_sent_ns),
        *(m.status_ns, m.first_byte_ns, m.first_event_ns, m.first_content_ns, m.last_delta_ns, m.finish_ns),
        *(m.usage_ns, m.done_ns, m.end_ns),
    )
    assert all(mark is not None for mark in order)
    assert list(order) == sorted(mark for mark in order if mark is not None)
    assert m.scheduled_ns == scheduled
    assert m.start_ns is not None
    assert m.first_content_ns is not None
    assert m.first_event_ns is not None
    assert 0 < seen_ns - m.start_ns < 20_000_000
    assert m.first_content_ns - m.first_event_ns > 15_000_000  # a role is no token
    assert m.first_text_coalesced == 0
    assert (m.stamp_source, m.n_text_chunks) == ("kernel" if LINUX else "transport", 2)


async def test_arrival_is_stamped_when_it_arrives_however_late_a_coroutine_wakes() -> None:
    async with against(paced([(0, event(delta("a"))), (0.1, reply("b"))])) as (server, sender):

        async def hog() -> None:
            await until(lambda: server.seen)
            for _ in range(10):
                await asyncio.sleep(0.001)
                for _ in range(50):
                    asyncio.get_running_loop().call_soon(time.sleep, 0.0002)  # a long queue of ready callbacks

        outcome, _ = await asyncio.gather(send_one(sender, server), hog())
    assert outcome.last is not None
    m = outcome.last.marks
    assert m.first_content_ns is not None
    assert m.last_delta_ns is not None
    assert 0.08e9 < m.last_delta_ns - m.first_content_ns < 0.2e9


# ------------------------------------------------------------------ a server that is gone


async def test_a_server_that_is_down_ends_the_run_and_gives_nothing_up() -> None:
    async with FaultServer(answer("a")) as server:
        url = server.base_url
    async with Sender(engine_settings(url, FAST)) as sender:
        began = time.monotonic()
        outcomes = await asyncio.gather(*(sender.send(request_to(url, number=n), Recorder()) for n in range(20)))
        assert time.monotonic() - began < 2
        assert sender.breaker.tripped.is_set()
        assert "127.0.0.1" in sender.breaker.reason
        later = await sender.send(request_to(url, number=99), Recorder())
    assert {o.give_up for o in outcomes} == {None}
    assert all(o.reply is None for o in outcomes)
    assert (later.last, later.give_up) == (None, None)


async def test_at_default_settings_a_server_that_is_down_ends_the_run_within_twenty_seconds() -> None:
    async with Sender(engine_settings("http://127.0.0.1:1/v1", {"retry": {}})) as sender:
        assert 10 <= sender.breaker.outage_s <= 15


async def test_a_server_that_dies_in_the_middle_leaves_its_requests_pending() -> None:
    async with against(answer("a", delay_s=0.01), limits={"concurrency": 4} | FAST) as (server, sender):
        sends = [asyncio.create_task(send_one(sender, server, number=n)) for n in range(40)]
        await until(lambda: len(server.seen) >= 10)
        await server.stop()
        outcomes = await asyncio.gather(*sends)
    assert sender.breaker.tripped.is_set()
    assert {o.give_up for o in outcomes} == {None}
    assert sum(o.reply is not None for o in outcomes) >= 6
    assert sum(o.reply is None for o in outcomes) >= 20


async def test_a_server_that_comes_back_within_the_schedule_loses_nothing() -> None:
    limits = {"concurrency": 4, "retry": {"max_attempts": 3, "initial_s": 0.3}}
    async with against(answer("a", delay_s=0.01), limits=limits) as (server, sender):
        sends = [asyncio.create_task(send_one(sender, server, number=n)) for n in range(20)]
        await until(lambda: len(server.seen) >= 4)
        await server.stop()
        await asyncio.sleep(0.2)
        await server.start()
        outcomes = await asyncio.gather(*sends)
        assert not sender.breaker.tripped.is_set()
    assert all(o.reply is not None for o in outcomes)


def test_a_reply_that_was_under_way_when_a_server_went_away_lets_no_request_be_given_up() -> None:
    """Refused at 10.2 s while an older stream still ends at 10.3 s: that stream says nothing about the server since."""
    breaker = Breaker(Retry())
    breaker.failed("a", 10.2, 10.21, "refused")
    breaker.succeeded(10.1)  # began then, ended later
    assert not breaker.may_give_up(10.2)
    breaker.succeeded(10.4)
    breaker.succeeded(10.0)  # an older one that ends last takes nothing back
    assert breaker.may_give_up(10.2)


def test_a_request_that_does_not_fail_alone_is_not_given_up() -> None:
    """Cut once at 10.2 s, others fine at 10.4 s, then the server dies: two requests fail, so it isn't the request."""
    breaker = Breaker(Retry())
    breaker.failed("a", 10.2, 10.21, "cut")
    breaker.succeeded(10.4)
    breaker.answered()
    breaker.failed("a", 11.0, 11.1, "refused")
    assert breaker.may_give_up(10.2)
    breaker.failed("b", 11.0, 11.1, "refused")
    assert not breaker.may_give_up(10.2)


async def test_one_request_whose_connection_is_always_cut_is_given_up_while_others_succeed() -> None:
    async def picky(wire: Wire, request: Seen) -> None:
        await (close() if request.body == b"poison" else answer("a", delay_s=0.01))(wire, request)

    async with against(picky, limits={"concurrency": 4} | FAST) as (server, sender):
        sends = [send_one(sender, server, number=n, body=b"poison" if n == 5 else b"{}") for n in range(40)]
        outcomes = await asyncio.gather(*sends)
        assert not sender.breaker.tripped.is_set()
    assert [o.give_up for o in outcomes].count("attempts_exhausted") == 1
    assert sum(o.reply is not None for o in outcomes) == 39


async def test_long_answers_that_are_lost_together_are_no_long_outage() -> None:
    """Their connections end at one instant, a retry schedule after they began: the server was there till then."""

    async def restarts(wire: Wire, request: Seen) -> None:
        await asyncio.sleep(0.5 - (request.at_ns - server.seen[0].at_ns) / 1e9)
        wire.close()

    async with against(*[restarts] * 4, answer("ok"), limits={"concurrency": 4} | FAST) as (server, sender):
        outcomes = await asyncio.gather(*(send_one(sender, server, number=n) for n in range(4)))
        assert not sender.breaker.tripped.is_set()
    assert all(outcome.reply is not None for outcome in outcomes)


async def test_a_server_that_answers_with_errors_is_not_gone() -> None:
    async with against(status(503), limits=FAST) as (server, sender):
        outcomes = await asyncio.gather(*(send_one(sender, server, number=n) for n in range(5)))
        assert not sender.breaker.tripped.is_set()
    assert {o.give_up for o in outcomes} == {"attempts_exhausted"}


# ------------------------------------------------------------------ stopping


async def test_a_cancelled_attempt_is_recorded_as_cancelled_and_passes_on() -> None:
    async with against(paced([(0, event(delta("half"))), (30, b"")])) as (server, sender):
        recorder = Recorder()
        task = asyncio.create_task(send_one(sender, server, recorder))
        await until(lambda: server.seen)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (sender.in_flight, sender.dispatcher.slots.held) == (0, 0)
    (cancelled,) = recorder.attempts
    assert (cancelled.end_state, cancelled.error_type) == (EndState.CANCELLED, ErrorType.CANCELLED)
    assert cancelled.partial_text == "half"


async def test_a_record_that_never_returns_does_not_hold_a_cancellation_up() -> None:
    async def stuck(request: Request, attempt: Attempt) -> None:
        await asyncio.sleep(3600)

    async with against(stall()) as (server, sender):
        task = asyncio.create_task(sender.send(request_to(server.base_url), stuck))
        await until(lambda: server.seen)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)


async def test_halting_lets_what_is_in_flight_finish_and_starts_nothing_more() -> None:
    limits = {"concurrency": 2, "retry": {"initial_s": 30, "max_wait_s": 30}}
    steps = error(500, "x"), answer("a", delay_s=0.2), answer("b", delay_s=0.2)
    async with against(*steps, limits=limits) as (server, sender):
        sends = [asyncio.create_task(send_one(sender, server, number=n)) for n in range(10)]
        await until(lambda: len(server.seen) >= 3)
        began = time.monotonic()
        sender.halt()
        outcomes = await asyncio.gather(*sends)
        assert time.monotonic() - began < 1
        assert len(server.seen) == 3
    assert sum(o.reply is not None for o in outcomes) == 2
    assert {o.give_up for o in outcomes} == {None}


async def test_a_bug_in_record_is_not_swallowed() -> None:
    async def broken(request: Request, attempt: Attempt) -> None:
        raise ZeroDivisionError

    async with against(error(500, "x"), limits=FAST) as (server, sender):
        with pytest.raises(ZeroDivisionError):
            await sender.send(request_to(server.base_url), broken)
        assert sender.dispatcher.slots.held == 0

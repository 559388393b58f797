"""What says nothing about a request never counts against it: an expired key, an empty purse, a host that isn't ours."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from kvt_async.engine.reply.refusals import ALIKE
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Outcome
from kvt_async.sweep.sweep import SweepOptions, run
from tests.engine.sending import Recorder, against, request_to, send_one
from tests.servers.fault_server import FaultServer, Seen, Step, Wire, answer, error, status
from tests.servers.openai_server import Script, serving
from tests.worlds import check_invariants, engine_settings, query, states, sweep_settings, until

FAST = {"concurrency": 4, "retry": {"max_attempts": 2, "initial_s": 0.01}}
QUIET = SweepOptions(quiet=True, allow_dead_knob=True)

KEY = error(401, "token expired")
REFUSALS: dict[str, tuple[Step, str]] = {
    "401": (KEY, "refused"),
    "403": (error(403, "forbidden"), "refused"),
    "a key that is not valid": (error(400, "API key not valid. Please pass a valid API key."), "refused"),
    "402": (error(402, "Insufficient Balance"), "server"),
    "insufficient_quota": (error(429, "x", code="insufficient_quota"), "server"),
    "404": (error(404, "x"), "server"),
    "501": (status(501, b"<html>Unsupported method ('POST')</html>", content_type="text/html"), "server"),
    "a redirect": (status(302, headers={"Location": "http://elsewhere/"}), "server"),
    "a page": (status(200, b"<html>Log in</html>", content_type="text/html"), "server"),
    "a key refused in the stream": (status(200, {"error": {"code": 401, "message": "expired"}}), "refused"),
}


def answers_until(n: int, refusal: Step) -> Step:
    """Every request but the first `n` is refused."""
    seen: list[bytes] = []

    async def step(wire: Wire, request: Seen) -> None:
        seen.append(request.body)
        await (answer("a", delay_s=0.002) if len(seen) <= n else refusal)(wire, request)

    return step


async def send_all(sender: Sender, server: FaultServer, n: int) -> list[Outcome]:
    return list(await asyncio.gather(*(send_one(sender, server, number=number) for number in range(n))))


@pytest.mark.parametrize("name", REFUSALS)
async def test_once_everything_is_refused_the_run_stops_and_what_was_refused_stays_pending(name: str) -> None:
    refusal, ending = REFUSALS[name]
    async with against(answers_until(10, refusal), limits=FAST) as (server, sender):
        outcomes = await send_all(sender, server, 40)
        assert (sender.breaker.tripped.is_set(), sender.breaker.ending) == (True, ending)
        assert server.base_url in sender.breaker.reason
        assert await sender.witness.last_word() == ()
    assert sum(outcome.reply is not None for outcome in outcomes) == 10
    assert {outcome.give_up for outcome in outcomes} == {None}
    assert not any(outcome.settles for outcome in outcomes)


async def test_a_host_that_never_answered_and_finds_every_request_bad_is_left_too() -> None:
    async with against(error(400, "The plain HTTP request was sent to HTTPS port"), limits=FAST) as (server, sender):
        outcomes = await send_all(sender, server, 20)
        assert (sender.breaker.tripped.is_set(), sender.breaker.ending) == (True, "server")
        assert len(server.seen) < 10
    assert {outcome.give_up for outcome in outcomes} == {None}


async def test_a_bad_request_to_a_host_that_answered_is_given_up_at_once() -> None:
    async with against(answer("a"), error(400, "no"), limits=FAST) as (server, sender):
        await send_one(sender, server, number=0)
        assert (await send_one(sender, server, number=1)).give_up == "not_retryable"


@pytest.mark.parametrize("name", [name for name in REFUSALS if name != "a page"])  # which is tried again first
async def test_a_host_that_never_answered_is_left_after_a_few_requests(name: str) -> None:
    async with against(REFUSALS[name][0], limits=FAST | {"concurrency": 1}) as (server, sender):
        outcomes = await send_all(sender, server, 20)
        assert sender.breaker.tripped.is_set()
    assert len(server.seen) == 3
    assert {outcome.give_up for outcome in outcomes} == {None}


async def test_a_request_refused_among_answered_ones_is_given_up() -> None:
    async def picky(wire: Wire, request: Seen) -> None:
        await (error(403, "filtered") if request.body == b"poison" else answer("a", delay_s=0.005))(wire, request)

    async with against(picky, limits=FAST) as (server, sender):
        bodies = [b"poison" if number == 5 else b"{}" for number in range(30)]
        sends = (send_one(sender, server, number=number, body=body) for number, body in enumerate(bodies))
        outcomes = await asyncio.gather(*sends)
        assert not sender.breaker.tripped.is_set()
    assert outcomes[5].give_up is None  # not yet
    (settled,) = (other for outcome in outcomes for other in outcome.settles)
    assert (settled.request.request_id, settled.give_up) == ("run:5", "not_retryable")


async def test_requests_refused_in_a_row_are_their_own_fault_where_an_older_one_is_still_answered() -> None:
    async def picky(wire: Wire, request: Seen) -> None:
        await (error(403, "filtered") if request.body == b"poison" else answer("a"))(wire, request)

    async with against(picky, limits=FAST | {"concurrency": 1}) as (server, sender):
        await send_one(sender, server, body=b"good")
        outcomes = [await send_one(sender, server, number=number, body=b"poison") for number in range(1, 8)]
        assert not sender.breaker.tripped.is_set()
        late = await sender.witness.last_word()
    settled = [other.request.request_id for outcome in outcomes for other in outcome.settles]
    assert sorted([*settled, *(other.request.request_id for other in late)]) == [f"run:{n}" for n in range(1, 8)]
    assert [seen.body for seen in server.seen].count(b"good") == 4  # asked again for 1-3, 4-6, and at the end


async def test_the_last_requests_of_a_run_are_settled_at_its_end() -> None:
    for last, tripped in ((answer("a"), False), (KEY, True)):
        async with against(answer("a"), KEY, last, limits=FAST) as (server, sender):
            await send_one(sender, server, number=0)
            outcome = await send_one(sender, server, number=1)
            settled = await sender.witness.last_word()
            assert (outcome.give_up, sender.breaker.tripped.is_set()) == (None, tripped)
        assert [other.give_up for other in settled] == ([] if tripped else ["not_retryable"])


async def test_an_endpoint_that_refuses_is_told_from_one_that_answers() -> None:
    async with (
        FaultServer(answer("a", delay_s=0.002)) as good,
        FaultServer(error(404, "x")) as bad,
        Sender(engine_settings(good.base_url, FAST)) as sender,
    ):
        requests = (request_to(good.base_url, bad.base_url, number=number) for number in range(30))
        outcomes = await asyncio.gather(*(sender.send(request, Recorder()) for request in requests))
        assert sender.breaker.tripped.is_set()
        assert bad.base_url in sender.breaker.reason
    assert {outcome.give_up for outcome in outcomes} == {None}


# ------------------------------------------------------------------ whole runs


@pytest.mark.parametrize(("code", "exit_code", "reason"), [(401, 2, "refused"), (402, 5, "server"), (404, 5, "server")])
async def test_a_sweep_whose_key_or_money_ends_is_resumed_without_a_loss(
    tmp_path: Path, code: int, exit_code: int, reason: str
) -> None:
    async with serving(Script(refusal=(30, code))) as (server, url):
        settings = sweep_settings(tmp_path, url)
        report = await run(settings, options=QUIET)
        assert (report.exit_code, report.failures, report.pending) == (exit_code, 0, 48 - report.responses)
        assert 0 < report.responses < 48
        assert "failure" not in states(settings)
        assert query(settings, "SELECT exit_code, reason FROM session_ends") == [(exit_code, reason)]
        assert query(settings, "SELECT count(*) FROM give_ups") == [(0,)]
        server.script.refusal = None
        report = await run(settings, options=QUIET)
    assert (report.exit_code, report.responses, report.pending) == (0, 48, 0)
    check_invariants(settings)


async def test_failures_that_are_tried_again_alone_are_failures_again(tmp_path: Path) -> None:
    """Nothing else is sent, so nothing is answered in that session: what an earlier one got an answer to is asked."""
    async with serving(Script(refused_words="What is 1")) as (server, url):
        settings = sweep_settings(tmp_path, url, "kv.budgets=[1.0]", "kv.control_repeats=0", "kv.apply={via: none}")
        report = await run(settings, options=QUIET)
        assert (report.exit_code, report.responses, report.failures, report.pending) == (4, 9, 3, 0)
        sent = len(server.bodies)
        report = await run(settings, options=replace(QUIET, retry_failed=True))
        assert (report.exit_code, report.responses, report.failures, report.pending) == (4, 9, 3, 0)
    assert len(server.bodies) == sent + 3 + 1


async def test_the_last_prompt_of_a_sweep_that_a_filter_refuses_is_a_failure(tmp_path: Path) -> None:
    async with serving(Script(refused_words="What is 11?")) as (_, url):
        settings = sweep_settings(tmp_path, url, "kv.budgets=[1.0]", "kv.control_repeats=0", "kv.apply={via: none}")
        report = await run(settings, options=QUIET)
    assert (report.exit_code, report.responses, report.failures, report.pending) == (4, 11, 1, 0)
    assert query(settings, "SELECT reason FROM give_ups") == [("not_retryable",)]
    assert report.failures_by_type == {"HttpError": 1}


async def test_refusals_that_another_answer_settles_while_it_is_asked_about_them_stop_nothing() -> None:
    asked = 0

    async def step(wire: Wire, request: Seen) -> None:
        nonlocal asked
        if request.body == b"bad":
            await status(404)(wire, request)
        elif request.body == b"late":
            await answer("b")(wire, request)
        elif (asked := asked + 1) == 1:
            await answer("a")(wire, request)
        else:  # the one that is sent once more is refused, too, but later than `late` is answered
            await until(lambda: late is not None and late.done())
            await status(404)(wire, request)

    late: asyncio.Task[Outcome] | None = None
    async with against(step) as (server, sender):
        await sender.send(request_to(server.base_url, body=b"good"), Recorder())
        bad = [
            asyncio.create_task(sender.send(request_to(server.base_url, number=n, body=b"bad"), Recorder()))
            for n in range(ALIKE)
        ]
        await until(lambda: asked == 2)
        late = asyncio.create_task(sender.send(request_to(server.base_url, number=9, body=b"late"), Recorder()))
        outcomes = await asyncio.gather(*bad)
        settled = (await late).settles
    assert [outcome.give_up for outcome in outcomes] == [None] * ALIKE
    assert {outcome.request.request_id for outcome in settled} == {f"run:{n}" for n in range(ALIKE)}
    assert not sender.breaker.tripped.is_set()

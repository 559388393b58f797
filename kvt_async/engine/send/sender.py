"""One request -> one outcome: its turn in the line, its tries, and what each of them was. What everyone else calls."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from kvt_async.bug_reports import BugReports
from kvt_async.contract.errors import ErrorType
from kvt_async.contract.load import secret
from kvt_async.contract.paths import run_paths
from kvt_async.contract.settings import Settings
from kvt_async.contract.urls import public_url
from kvt_async.contract.vocabulary import EndReason
from kvt_async.engine.send.attempt import Client
from kvt_async.engine.send.breaker import LONGEST_NAP_S, Breaker
from kvt_async.engine.send.pauses import Pauses
from kvt_async.engine.send.policy import (
    BROKEN_BY_PAUSES,
    CONNECTION_LEVEL,
    Decision,
    backoff_s,
    decide,
    with_retries,
)
from kvt_async.engine.send.quarantine import Quarantine
from kvt_async.engine.send.rate_limits import Dispatcher
from kvt_async.engine.send.request_state import Again, Record, Sending
from kvt_async.engine.send.server_pages import NAPS_S, ServerPages
from kvt_async.engine.send.tried import Tried
from kvt_async.engine.send.witness import Asked, Witness
from kvt_async.engine.transport.local_lacks import PATIENCE_S, Room, local_error, raise_file_limit
from kvt_async.records import Attempt, Headers, Marks, Outcome, Request


@dataclass(frozen=True, slots=True)
class _Opened:
    """What a Sender has inside of `async with`."""

    client: Client
    pages: ServerPages
    witness: Witness
    quarantine: Quarantine


_ENDED = Decision()  # no wait and no reason to give up: it succeeded, or the run stopped


class Sender:
    """Async context manager around one HTTP client, its limits, retries and breaker; one running loop, one at a time.

    `breaker.tripped` is set when the server is gone, or refuses everything: every `send` then returns at once, its
    request still pending.
    """

    _open: _Opened  # there only inside of `async with`

    def __init__(
        self,
        settings: Settings,
        *,
        endpoints: Iterable[str] = (),
        breaker: Breaker | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`endpoints`: base URLs beside engine.base_url that may be told our credentials by `get_json`, `get_text`;
        `breaker`: None: one of limits.retry."""
        self.settings = settings
        self._known = [settings.engine.base_url, *endpoints]
        self.breaker = Breaker(settings.limits.retry) if breaker is None else breaker
        self.dispatcher = Dispatcher(settings.limits)
        self.retries = 0  # tries after a first one, so far
        self._rng = rng or random.Random()
        self._halted = asyncio.Event()
        self._in_line: set[asyncio.Timeout] = set()
        self._flying: Counter[str] = Counter()
        self._turn = itertools.count()
        self.room = Room()
        self._pauses = Pauses()

    async def __aenter__(self) -> Self:
        """Raises ConfigError for a CA file that can't be used."""
        raise_file_limit()
        output, group = self.settings.output, self.settings.experiment.exp_group_id
        folder = run_paths(output.runs_dir, group, self.settings.db.path).db.parent
        key = secret(self.settings.engine.api_key_env)
        client = Client(self.settings.engine, key, self.settings.secrets, BugReports(folder))
        pages = ServerPages(client, self._known)
        witness = Witness(client, self.breaker, self.settings.engine, self._halted, self.halt)
        self._open = _Opened(client, pages, witness, Quarantine(pages.answers))
        self._pauses.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pauses.stop()
        opened = self._open
        del self._open
        await opened.quarantine.close()
        await opened.client.close()

    @property
    def pages(self) -> ServerPages:
        """What the servers say of themselves."""
        return self._open.pages

    @property
    def witness(self) -> Witness:
        """Requests that were answered, and those whose refusal is not settled yet."""
        return self._open.witness

    @property
    def in_flight(self) -> int:
        return self._flying.total()

    @property
    def waiting(self) -> int:
        """Requests in line for a slot or a rate limit; those that sleep between two tries are not."""
        return self.dispatcher.waiting

    def halt(self) -> None:
        """Start nothing more: who sleeps or stands in line returns at once, still pending; what is in flight ends."""
        self._halted.set()
        now = asyncio.get_running_loop().time()
        for line in self._in_line:
            if not line.expired():
                line.reschedule(now)

    async def send(
        self,
        request: Request,
        record: Record,
        *,
        again: Again | None = None,
        scheduled_ns: int | None = None,
        intended_ns: int | None = None,
    ) -> Outcome:
        """Try until it is answered, given up, or the run stops; `record` gets every attempt but the last.

        `again` is awaited before each try but the first. `scheduled_ns`: when the producer made the request;
        `intended_ns`: when an open-loop schedule wanted it sent.
        """
        sending = Sending(request, record, again, scheduled_ns, intended_ns, attempt_idx=request.attempts_before)
        try:
            tried, decision = await self._try(sending)
            if decision.wait_s is not None:
                tried, decision = await with_retries((tried, decision), lambda: self._try_again(sending), self._nap)
        except asyncio.CancelledError:
            for attempt in sending.cancelled:
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await record(request, attempt)
            raise
        if tried is None:
            return Outcome(request, None, decision.reason)
        attempt, witness = tried.attempt, self._open.witness
        if decision.reason is not None and (cause := witness.cause(tried, decision.reason)) is not None:
            return await witness.refused(Outcome(request, attempt, decision.reason), cause)
        if not witness.refusals.held or attempt.reply is None:
            return Outcome(request, attempt, decision.reason)
        return Outcome(request, attempt, None, witness.refusals.answered(attempt.endpoint, sending.began_s))

    async def probe(self, endpoint: str, path: str, body: bytes, headers: Headers = ()) -> Attempt:
        """One try outside of limits and retries: canary, warm-up. Its attempt is never stored as a request's.

        Raises LocalError where this machine can't send it."""
        client, witness = self._open.client, self._open.witness
        tried, naps = await client.attempt(endpoint, path, body, headers), iter(NAPS_S)
        while tried.ours is not None:
            nap_s = next(naps, None)
            if nap_s is None:
                raise local_error(tried.ours, public_url(endpoint))
            await asyncio.sleep(nap_s)
            tried = await client.attempt(endpoint, path, body, headers)
        if tried.stale:
            tried = await client.attempt(endpoint, path, body, headers, fresh=True)
        if tried.attempt.reply is not None:
            witness.good[tried.attempt.endpoint] = Asked(endpoint, path, body, headers)
        return tried.attempt

    async def _try_again(self, sending: Sending) -> tuple[Tried | None, Decision]:
        if sending.again is not None and not self._halted.is_set():
            await sending.again()
        return await self._try(sending)

    async def _try(self, sending: Sending) -> tuple[Tried | None, Decision]:
        """One try, and what follows from it; one more at once where the first met a pooled connection that the server
        had closed."""
        if self._halted.is_set():
            return None, _ENDED
        request, dispatcher, opened = sending.request, self.dispatcher, self._open
        estimate = request.prompt_tokens + request.max_tokens
        dequeued_ns = time.perf_counter_ns()
        if not dispatcher.enter_at_once() and not await self._stand_in_line(estimate):
            return None, _ENDED
        endpoint = self._pick(request) if len(request.endpoints) > 1 else request.endpoints[0]
        self._flying[endpoint] += 1
        used: int | None = None
        try:
            if sending.failing_since is None:
                tried = await self._once(sending, endpoint, dequeued_ns)
            else:
                tried = await self._vouched(sending, sending.failing_since, endpoint, dequeued_ns)
            if tried.ours is not None:
                tried = await self._once_there_is_room(sending, endpoint, tried)
                if tried.ours is not None:
                    return None, _ENDED
            if tried.stale:
                await sending.record(request, tried.attempt)
                sending.next_attempt(due_s=0.0)
                dispatcher.owed_requests += 1
                self.retries += 1
                tried = await self._once(sending, endpoint, None, fresh=True)
            attempt = tried.attempt
            marks = attempt.marks
            if marks.prompt_tokens is not None and marks.completion_tokens is not None:
                used = marks.prompt_tokens + marks.completion_tokens
        finally:
            self._flying[endpoint] -= 1
            dispatcher.leave(estimate, used)
        sending.n_tries += 1
        if attempt.error_type is None:
            opened.quarantine.release(endpoint)
            sending.began_s = (marks.start_ns or dequeued_ns) / 1e9
            self.breaker.succeeded(sending.began_s)
            opened.witness.good[attempt.endpoint] = Asked(
                endpoint, request.path, request.body, request.headers, request.max_tokens
            )
            if sending.n_tries == 1:
                dispatcher.slots.succeeded()
            return tried, _ENDED
        decision = self._failed(tried, sending, endpoint)
        if decision.wait_s is not None:
            self.retries += 1
            await sending.record(request, attempt)
            sending.next_attempt(due_s=decision.wait_s)
        return tried, decision

    async def _stand_in_line(self, estimate: int) -> bool:
        """False: the run stopped meanwhile, and nothing is held."""
        try:
            async with asyncio.timeout(None) as line:
                self._in_line.add(line)
                try:
                    await self.dispatcher.enter(estimate)
                finally:
                    self._in_line.discard(line)
        except TimeoutError:
            return False
        if self._halted.is_set():
            self.dispatcher.leave(estimate, None)
            return False
        return True

    def _once(
        self, sending: Sending, endpoint: str, dequeued_ns: int | None, *, fresh: bool = False
    ) -> Awaitable[Tried]:
        now, request, due_ns = time.perf_counter_ns(), sending.request, sending.scheduled_ns
        return self._open.client.attempt(
            endpoint,
            request.path,
            request.body,
            request.headers,
            marks=Marks(sending.intended_ns, due_ns or dequeued_ns, dequeued_ns or due_ns, now),
            attempt_idx=sending.attempt_idx,
            series_idx=request.series_idx,
            expects=request.expects,
            max_tokens=request.max_tokens,
            fresh=fresh,
            cancelled=sending.cancelled,
        )

    async def _vouched(self, sending: Sending, failing_since: float, endpoint: str, dequeued_ns: int | None) -> Tried:
        """One try of a request that keeps losing its connection. Where it may be the last, one that the server has
        answered before is sent first: answered again, the server is there, and what this request meets is its own."""
        is_last = sending.n_tries + 1 >= self.settings.limits.retry.max_attempts
        if is_last and not self.breaker.may_give_up(failing_since):
            async with self._open.witness.heard(endpoint):
                return await self._once(sending, endpoint, dequeued_ns)
        return await self._once(sending, endpoint, dequeued_ns)

    async def _once_there_is_room(self, sending: Sending, endpoint: str, tried: Tried) -> Tried:
        """The same try again, until this machine lets it out. No try of its own counts, and none is recorded: nothing
        was sent. Where no request at all gets out for a while, the run stops."""
        nap_s = 0.02
        with self.room.starved():
            while tried.ours is not None and not self._halted.is_set():
                if self.room.is_hopeless(tried.ours, self.in_flight, min(PATIENCE_S, self.breaker.outage_s)):
                    self.breaker.reason, self.breaker.ending = f"nothing can be sent: {tried.ours}", EndReason.LOCAL
                    self.breaker.tripped.set()
                    self.halt()
                    break
                await self._nap(nap_s)
                nap_s = min(2 * nap_s, 1.0)
                tried = await self._once(sending, endpoint, None)
        return tried

    def _failed(self, tried: Tried, sending: Sending, endpoint: str) -> Decision:
        """What a failure means for the endpoint, the limits, the breaker, and the request."""
        attempt, retry, now = tried.attempt, self.settings.limits.retry, time.perf_counter()
        # A request that was sent had a server: the outage began when it was lost, not when a long answer began.
        began = now - attempt.latency_s if attempt.marks.start_ns is None else now
        connection_level, quarantine = attempt.error_type in CONNECTION_LEVEL, self._open.quarantine
        if not connection_level:
            quarantine.release(endpoint)
        elif len(sending.request.endpoints) > 1:
            quarantine.put(endpoint)
        if attempt.http_status is not None:
            self.breaker.answered()
            if attempt.http_status in (429, 503):
                self.dispatcher.slots.refused()
        elif connection_level:
            reason = f"{attempt.endpoint}: {attempt.error_message}"
            final = attempt.error_type is ErrorType.TLS
            self.breaker.failed(sending.request.request_id, began, now, reason, final=final)
            if self.breaker.tripped.is_set():
                self.halt()
        if attempt.error_type in BROKEN_BY_PAUSES and self._pauses.since(now - attempt.latency_s):
            sending.n_tries -= 1  # it was us who did not listen
            return _ENDED if self._halted.is_set() else Decision(wait_s=backoff_s(retry, 1, self._rng))
        decision = decide(tried, retry, sending.n_tries, sending.waited_s, self._rng)
        if not connection_level:
            sending.failing_since = None
        else:
            sending.failing_since = began if sending.failing_since is None else sending.failing_since
            if decision.reason is not None and not self.breaker.may_give_up(sending.failing_since):
                wait = backoff_s(retry, sending.n_tries, self._rng)
                decision = Decision(wait_s=min(wait, LONGEST_NAP_S))
        if self._halted.is_set() and (decision.wait_s is not None or connection_level or tried.cause is not None):
            return _ENDED  # it failed, but not for good: pending
        return decision

    async def _nap(self, seconds: float) -> None:
        """Sleep between two tries: holds no permit and no slot, and ends early when the run stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._halted.wait()

    def _pick(self, request: Request) -> str:
        endpoints, in_order, quarantine = request.endpoints, request.keeps_first, self._open.quarantine
        start = 0 if in_order else next(self._turn)
        turned = [endpoints[(start + n) % len(endpoints)] for n in range(len(endpoints))]
        return min(turned, key=lambda url: (url in quarantine, not in_order and self._flying[url]))

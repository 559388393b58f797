"""One request -> one outcome: its turn in the line, its tries, and what each of them was. What everyone else calls."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

from kvt_async.contract.errors import ErrorType
from kvt_async.contract.load import secret
from kvt_async.contract.settings import Settings
from kvt_async.engine.aside import Aside
from kvt_async.engine.breaker import LONGEST_NAP_S, Breaker
from kvt_async.engine.client import Client, Tried
from kvt_async.engine.limits import Dispatcher
from kvt_async.engine.pages import Pages
from kvt_async.engine.policy import CONNECTION_LEVEL, Decision, backoff_s, decide, with_retries
from kvt_async.records import Attempt, Marks, Outcome, Request

Record = Callable[[Request, Attempt], Awaitable[None]]
Admit = Callable[[], Awaitable[None]]

_ENDED = Decision()  # no wait and no reason to give up: it succeeded, or the run stopped


class Sender(Pages):
    """Async context manager around one HTTP client, its limits, retries and breaker; one running loop, one at a time.

    `breaker.tripped` is set when the server is gone: every `send` then returns at once, its request still pending.
    """

    def __init__(self, settings: Settings, *, endpoints: Iterable[str] = (), rng: random.Random | None = None) -> None:
        """`endpoints`: base URLs beside engine.base_url that may be told our credentials by `get_json`, `get_text`."""
        super().__init__([settings.engine.base_url, *endpoints])
        self.settings = settings
        self.breaker = Breaker(settings.limits.retry)
        self.dispatcher = Dispatcher(settings.limits)
        self.retries = 0  # tries after a first one, so far
        self._rng = rng or random.Random()
        self._halted = asyncio.Event()
        self._in_line: set[asyncio.Timeout] = set()
        self._flying: Counter[str] = Counter()
        self._turn = itertools.count()
        self._aside = Aside(self._answers)

    async def __aenter__(self) -> Self:
        """Raises ConfigError for a CA file that can't be used."""
        raise_file_limit()
        self._client = Client(self.settings.engine, secret(self.settings.engine.api_key_env))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._aside.close()
        if self._client is not None:
            await self._client.close()
            self._client = None

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
        admit: Admit | None = None,
        scheduled_ns: int | None = None,
        intended_ns: int | None = None,
    ) -> Outcome:
        """Try until it is answered, given up, or the run stops; `record` gets every attempt but the last.

        `admit` is awaited before each try stands in line. `scheduled_ns`: when the producer made the request;
        `intended_ns`: when an open-loop schedule wanted it sent.
        """
        sending = _Sending(request, record, admit, scheduled_ns, intended_ns)
        try:
            tried, decision = await self._try(sending)
            if decision.wait_s is not None:
                tried, decision = await with_retries((tried, decision), lambda: self._try(sending), self._nap)
        except asyncio.CancelledError:
            for attempt in sending.cancelled:
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await record(request, attempt)
            raise
        return Outcome(request, tried.attempt if tried else None, decision.reason)

    async def probe(self, endpoint: str, path: str, body: bytes) -> Attempt:
        """One try outside of limits and retries: canary, warm-up. Its attempt is never stored as a request's."""
        tried = await self._the_client.attempt(endpoint, path, body)
        if tried.stale:
            tried = await self._the_client.attempt(endpoint, path, body, fresh=True)
        return tried.attempt

    async def _try(self, sending: "_Sending") -> tuple[Tried | None, Decision]:
        if self._halted.is_set():
            return None, _ENDED
        request, dispatcher = sending.request, self.dispatcher
        estimate = request.prompt_tokens + request.max_tokens
        sending.dequeued_ns = sending.dequeued_ns or time.perf_counter_ns()
        if sending.admit is not None:
            await sending.admit()
        if not dispatcher.enter_at_once() and not await self._stand_in_line(estimate):
            return None, _ENDED
        used: int | None = None
        try:
            tried = await self._exchange(sending)
            marks = tried.attempt.marks
            if marks.prompt_tokens is not None and marks.completion_tokens is not None:
                used = marks.prompt_tokens + marks.completion_tokens
        finally:
            dispatcher.leave(estimate, used)
        decision = self._decide(tried, sending)
        if decision.wait_s is not None:
            self.retries += 1
            await sending.record(request, tried.attempt)
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

    async def _exchange(self, sending: "_Sending") -> Tried:
        """One try; one more at once where the first met a pooled connection that the server had closed."""
        request, endpoint = sending.request, self._pick(sending.request.endpoints)
        self._flying[endpoint] += 1
        try:
            tried = await self._once(sending, endpoint, fresh=False)
            if tried.stale:
                await sending.record(request, tried.attempt)
                sending.next_attempt(due_s=0.0)
                self.dispatcher.owed_requests += 1
                self.retries += 1
                tried = await self._once(sending, endpoint, fresh=True)
        finally:
            self._flying[endpoint] -= 1
        if tried.attempt.error_type not in CONNECTION_LEVEL:
            self._aside.take_back(endpoint)
        elif len(request.endpoints) > 1:
            self._aside.put(endpoint)
        return tried

    def _once(self, sending: "_Sending", endpoint: str, *, fresh: bool) -> Awaitable[Tried]:
        request = sending.request
        marks = Marks(
            sending.intended_ns,
            sending.scheduled_ns or sending.dequeued_ns,
            sending.dequeued_ns or sending.scheduled_ns,
            time.perf_counter_ns(),
        )
        sending.first_at = sending.first_at or time.monotonic()
        return self._the_client.attempt(
            endpoint,
            request.path,
            request.body,
            marks=marks,
            attempt_idx=sending.attempt_idx,
            series_idx=request.series_idx,
            expects=request.expects,
            fresh=fresh,
            cancelled=sending.cancelled,
        )

    def _decide(self, tried: Tried, sending: "_Sending") -> Decision:
        attempt, now = tried.attempt, time.monotonic()
        sending.n_tries += 1
        self._tell(tried, sending.request.request_id, sending.n_tries, now)
        if attempt.error_type is None:
            return _ENDED
        decision = decide(
            tried, self.settings.limits.retry, sending.n_tries, now - (sending.first_at or now), self._rng
        )
        if attempt.error_type not in CONNECTION_LEVEL:
            sending.failing_since = None
        else:
            began = now - attempt.latency_s
            sending.failing_since = began if sending.failing_since is None else sending.failing_since
            if decision.reason is not None and not self.breaker.may_give_up(sending.failing_since):
                wait = backoff_s(self.settings.limits.retry, sending.n_tries, self._rng)
                decision = Decision(wait_s=min(wait, LONGEST_NAP_S))
        if self._halted.is_set() and (decision.wait_s is not None or attempt.error_type in CONNECTION_LEVEL):
            return _ENDED  # it failed, but not for good: pending
        return decision

    def _tell(self, tried: Tried, request_id: str, n_tries: int, now: float) -> None:
        """The breaker and the adaptive limit learn from every attempt."""
        attempt = tried.attempt
        if attempt.error_type is None:
            self.breaker.succeeded(now - attempt.latency_s)
            if n_tries == 1:
                self.dispatcher.slots.succeeded()
        if attempt.http_status is not None:
            self.breaker.answered()
            if attempt.http_status in (429, 503):
                self.dispatcher.slots.refused()
        elif attempt.error_type in CONNECTION_LEVEL:
            reason = f"{attempt.endpoint}: {attempt.error_message}"
            final = attempt.error_type is ErrorType.TLS
            self.breaker.failed(request_id, now - attempt.latency_s, now, reason, final=final)
            if self.breaker.tripped.is_set():
                self.halt()

    async def _nap(self, seconds: float) -> None:
        """Sleep between two tries: holds no permit and no slot, and ends early when the run stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._halted.wait()

    def _pick(self, endpoints: tuple[str, ...]) -> str:
        if len(endpoints) == 1:
            return endpoints[0]
        start = next(self._turn)
        turned = [endpoints[(start + n) % len(endpoints)] for n in range(len(endpoints))]
        return min(turned, key=lambda url: (url in self._aside, self._flying[url]))


class _Sending:
    """Where one request stands."""

    def __init__(
        self,
        request: Request,
        record: Record,
        admit: Admit | None,
        scheduled_ns: int | None,
        intended_ns: int | None,
    ) -> None:
        self.request, self.record, self.admit = request, record, admit
        self.scheduled_ns, self.intended_ns = scheduled_ns, intended_ns
        self.dequeued_ns: int | None = None
        self.attempt_idx = request.attempts_before
        self.n_tries = 0  # an immediate second send over a fresh connection belongs to the same try
        self.first_at: float | None = None
        self.failing_since: float | None = None  # since when its tries fail at connection level, monotonic seconds
        self.cancelled: list[Attempt] = []

    def next_attempt(self, due_s: float) -> None:
        self.attempt_idx += 1
        self.scheduled_ns = time.perf_counter_ns() + int(due_s * 1e9)
        self.dequeued_ns = self.intended_ns = None


def raise_file_limit() -> None:
    """One socket a stream: the usual soft limit of 1,024 files is too low for a big run, and ours to raise."""
    try:
        import resource
    except ImportError:  # not on this platform
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

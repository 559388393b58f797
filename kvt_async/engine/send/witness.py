"""Whose fault is it, the request's or the server's? A request that the server has answered before is the witness.

It is sent once more where requests are refused for what may be no request's fault (reply/refusals.py), and where a
request loses its connection every time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from msgspec import Struct
from msgspec.structs import replace

from kvt_async.contract.errors import ErrorType
from kvt_async.contract.settings import EngineSettings
from kvt_async.contract.urls import public_url
from kvt_async.contract.vocabulary import EndReason
from kvt_async.engine.reply.error_types import Cause
from kvt_async.engine.reply.refusals import Refusals, Refused, sentence
from kvt_async.engine.send.advice import key_advice
from kvt_async.engine.send.attempt import Client
from kvt_async.engine.send.breaker import Breaker
from kvt_async.engine.send.policy import GiveUp
from kvt_async.engine.send.tried import Tried
from kvt_async.records import Headers, Outcome


class Asked(Struct, frozen=True, gc=False):
    """A request, by what is needed to send it again."""

    endpoint: str
    path: str
    body: bytes
    headers: Headers = ()
    max_tokens: int = 1


class Witness:
    """The last request that each endpoint answered, and the refused requests whose end is open.

    Where the server refuses what it answered before, the breaker trips and `halt` is called.
    """

    def __init__(
        self, client: Client, breaker: Breaker, engine: EngineSettings, halted: asyncio.Event, halt: Callable[[], None]
    ) -> None:
        self.good: dict[str, Asked] = {}  # by endpoint as shown
        self.refusals = Refusals()
        self._client, self._breaker, self._engine = client, breaker, engine
        self._halted, self._halt = halted, halt
        self._asking = asyncio.Lock()  # one question at a time: such requests break the connections of others too
        self._unanswered_s = 0.0  # when a request that had been answered before was not, last

    def remember(self, asked: Asked) -> None:
        """A request that an earlier session got an answer to."""
        self.good.setdefault(public_url(asked.endpoint), asked)

    def cause(self, tried: Tried, reason: GiveUp) -> Cause | None:
        """Why a refusal may have nothing to do with its request: what it says, or that nothing was ever answered here,
        so that whatever is refused for good may be so of all."""
        if tried.cause is None and reason == "not_retryable" and tried.attempt.error_type is ErrorType.HTTP:
            return None if tried.attempt.endpoint in self.good else "host"
        return tried.cause

    async def refused(self, outcome: Outcome, cause: Cause) -> Outcome:
        """What a request comes to whose refusal may not be about it: pending, until others tell."""
        if outcome.last is None:
            raise ValueError("a request that was never tried can't be refused")
        endpoint = outcome.last.endpoint
        pending = self.refusals.hold(Refused(outcome, cause, endpoint, time.perf_counter()))
        async with self._asking:
            if self._halted.is_set() or not self.refusals.are_alike(endpoint):
                return pending
            return replace(pending, settles=await self._ask(endpoint))

    async def last_word(self) -> tuple[Outcome, ...]:
        """Once all that was to be sent has ended: requests refused since the last answer, if that was their own fault.
        If it wasn't, or can't be found out, the breaker trips and they stay pending."""
        settled: list[Outcome] = []
        for endpoint in {refused.endpoint for refused in self.refusals.held}:
            if not self._halted.is_set():
                settled += await self._ask(endpoint, for_good=True)
        return tuple(settled)

    @asynccontextmanager
    async def heard(self, endpoint: str) -> AsyncIterator[None]:
        """Ask the witness of an endpoint, unless it was asked meanwhile; answered, the breaker knows that the server
        is there, and the caller's own try comes before the next question."""
        asked_s = time.perf_counter()
        async with self._asking:
            good = self.good.get(public_url(endpoint))
            if good is not None and not self._halted.is_set() and self._unanswered_s < asked_s:
                began_s = time.perf_counter()
                if (await self._send(good, fresh=True)).attempt.reply is not None:
                    self._breaker.succeeded(began_s)
                    yield
                    return
                self._unanswered_s = time.perf_counter()
        yield

    def _send(self, asked: Asked, *, fresh: bool = False) -> Awaitable[Tried]:
        return self._client.attempt(
            asked.endpoint, asked.path, asked.body, asked.headers, max_tokens=asked.max_tokens, fresh=fresh
        )

    async def _ask(self, endpoint: str, *, for_good: bool = False) -> tuple[Outcome, ...]:
        """Send what this endpoint answered before once more. Answered again: what it refused was refused on its own
        account. Refused too, or nothing was ever answered: the run stops. Neither: it can't be told yet, `for_good`
        never."""
        if (good := self.good.get(endpoint)) is not None:
            began_s = time.perf_counter()
            tried = await self._send(good)
            if tried.attempt.reply is not None:
                return self.refusals.answered(endpoint, began_s)
            if tried.cause is None and not for_good:
                return ()
        newest = self.refusals.newest(endpoint)
        if newest is None:  # answered while we asked: it is there, and their end is known
            return ()
        self._breaker.reason = sentence(newest)
        if newest.cause == "key":
            self._breaker.reason += f". {key_advice(self._engine)}"
        self._breaker.ending = EndReason.REFUSED if newest.cause == "key" else EndReason.SERVER
        self._breaker.tripped.set()
        self._halt()
        return ()

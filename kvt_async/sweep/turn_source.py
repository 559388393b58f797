"""Requests of conversations in order: a turn is made once the outcome of the one before is on disk.

    chains --> at work: as many as there are places --> next turns, made in a thread --> RequestQueue
                  ^                                                                          |
                  '------ `ended`: its outcome is committed <--------------------------------'

One that sleeps between two tries does not count as being at work, so that another conversation begins meanwhile, and
places stay full. A conversation that was begun goes before one that was not. With the model's own history a turn's
prompt is made of the stored answers to the turns before, whichever session they are of; a failed turn fails those
behind it, of which nothing is sent.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from kvt_async.clock import utc_now
from kvt_async.contract.formulas.own_history import said
from kvt_async.contract.labels import request_id
from kvt_async.contract.urls import public_url
from kvt_async.records import Outcome, Request
from kvt_async.session.session import ServerSession
from kvt_async.store.columns import NewRequest, rows_of_give_ups, rows_of_requests
from kvt_async.store.reader import NEW, Entry
from kvt_async.sweep.plan import Step
from kvt_async.sweep.request_builder import AnswerToAsk, RequestBuilder
from kvt_async.sweep.turn_order import Conversations, chains

AT_ONCE = 8  # turns made in one go: as many prompts are in memory beside those that wait to be sent
EARLIER_TURN_FAILED = "earlier_turn_failed"


@dataclass(slots=True)
class Chain:
    """A conversation at one level, for one of its answers: the entries that are still to be asked, the next one first.

    `endpoint`: who served its last turn, as it may be shown; None: nobody in this session. `has_failed`: with own
    history, one of its turns has.
    """

    level: int
    sample: int
    seqs: deque[int]
    endpoint: str | None = None
    has_failed: bool = False


@dataclass(slots=True)
class _Made:
    """What one go has brought: requests to send, the rows of those that had none, and turns that failed unsent."""

    requests: list[tuple[Chain, Request]] = field(default_factory=list)
    new: list[NewRequest] = field(default_factory=list)
    failed: list[Outcome] = field(default_factory=list)
    dropped: int = 0  # chains with nothing left to send


class TurnFeed:
    """Requests of one session. The pipeline tells it of every end (`ended`) and of waits between tries (`paused`,
    `resumed`), on the event loop."""

    def __init__(
        self,
        server: ServerSession,
        builder: RequestBuilder,
        conversations: Conversations,
        most: int,
        failed: Callable[[Iterable[Outcome]], None],
    ) -> None:
        """`most`: conversations at work at once; `failed` is told of turns that failed unsent, once that is stored."""
        self._samples, self._workload = builder.settings.decoding.samples, builder.settings.workload
        self._reader, self._store, self._stop = server.reader, server.store, server.stop
        self._dataset_id, self._own = builder.dataset_id, builder.own_prompts
        self._runs, self._makers = server.runs, [builder(run) for run in server.runs]
        self._conversations, self._most, self._tell = conversations, most, failed
        self._ready: deque[Chain] = deque()
        self._under_way: dict[str, Chain] = {}  # by request
        self._paused: set[str] = set()
        self._held: dict[str, Chain] = {}  # by request: refused, and nobody knows yet whether that is its end
        self._at_work = 0
        self._changed = asyncio.Event()
        self.moved = 0  # turns that another endpoint served than the turn before

    async def requests(self, steps: Iterator[Step]) -> AsyncGenerator[Request, None]:
        """Yield each request once its row is committed; return when no turn is left that could be sent."""
        waiting = chains(steps, self._conversations.first, self._samples)
        stopping = asyncio.create_task(self._stop.wait(), name="turns-stop")
        stopping.add_done_callback(lambda _: self._changed.set())
        try:
            while not self._stop.is_set():
                while self._at_work < self._most and (begun := next(waiting, None)) is not None:
                    level, sample, seqs = begun
                    self._ready.append(Chain(level, sample, deque(seqs)))
                    self._at_work += 1
                if self._ready:
                    for request in await self._next_turns():
                        yield request
                elif self._under_way:
                    self._changed.clear()
                    await self._changed.wait()
                else:
                    break
        finally:
            stopping.cancel()

    async def _next_turns(self) -> list[Request]:
        made = await self._made([self._ready.popleft() for _ in range(min(AT_ONCE, len(self._ready)))])
        self._at_work -= made.dropped
        for chain, request in made.requests:
            self._under_way[request.request_id] = chain
        return [request for _, request in made.requests]

    async def fail(self, settled: Iterable[Outcome]) -> None:
        """Fail the turns behind those whose end was open until now, after everything else has ended."""
        self._settle(settled)
        if self._ready:
            await self._made([*self._ready])
            self._ready.clear()

    async def _made(self, ready: Sequence[Chain]) -> _Made:
        """The next requests of these chains, with what there is to store on disk."""
        making = asyncio.create_task(asyncio.to_thread(self._make, ready))
        try:
            made = await asyncio.shield(making)
        finally:
            await asyncio.wait([making])  # a thread can't be cancelled; the reader must outlive it
        now = utc_now()
        if rows := [*rows_of_requests(made.new, now), *rows_of_give_ups(made.failed, now)]:
            await self._store.save(rows, gather=True)
        if made.failed:
            self._tell(made.failed)
        return made

    def ended(self, outcome: Outcome) -> None:
        """A request has ended for this session: answered, given up, or still pending."""
        self._changed.set()
        request_id = outcome.request.request_id
        if outcome.settles:
            self._settle(outcome.settles)
        if (chain := self._under_way.pop(request_id, None)) is None:
            return
        if request_id in self._paused:
            self._paused.discard(request_id)
            self._at_work += 1
        if outcome.reply is not None and outcome.last is not None:
            self.moved += chain.endpoint is not None and outcome.last.endpoint != chain.endpoint
            chain.endpoint = outcome.last.endpoint
        elif self._own is not None and outcome.give_up is None:
            self._held[request_id] = chain
            self._at_work -= 1
            return
        else:
            chain.has_failed = self._own is not None
        self._go_on(chain)

    def paused(self, request: Request) -> None:
        """It waits for another try, and has given its place back."""
        if request.request_id in self._under_way and request.request_id not in self._paused:
            self._paused.add(request.request_id)
            self._at_work -= 1
            self._changed.set()

    def resumed(self, request: Request) -> None:
        """It has a place again."""
        if request.request_id in self._paused:
            self._paused.discard(request.request_id)
            self._at_work += 1

    def _settle(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if (chain := self._held.pop(outcome.request.request_id, None)) is not None:
                chain.has_failed = True
                self._at_work += 1
                self._go_on(chain)

    def _go_on(self, chain: Chain) -> None:
        if chain.seqs:
            self._ready.append(chain)
        else:
            self._at_work -= 1

    def _make(self, ready: Sequence[Chain]) -> _Made:
        made = _Made()
        entries = self._reader.entries(self._dataset_id, sorted({chain.seqs[0] for chain in ready}))
        for chain in ready:
            entry = entries[chain.seqs[0]]
            own = self._with_own_history(entry, chain)
            if chain.has_failed:
                self._fail(chain, made)
                made.dropped += 1
            elif own is None:
                made.dropped += 1
            else:
                chain.seqs.popleft()
                made.requests.append((chain, self._request(own, chain, made.new)))
        return made

    def _with_own_history(self, entry: Entry, chain: Chain) -> Entry | None:
        """The entry as it is to be sent; None: an earlier turn has no answer, so it can't be. Where that one stands as
        failed, so has the chain."""
        first = self._conversations.first[entry.seq]
        if self._own is None or chain.has_failed or first == entry.seq:
            return entry
        ids = {self._id(seq, chain): self._conversations.turn[seq] for seq in range(first, entry.seq)}
        replies = self._reader.replies([*ids])
        if len(replies) < len(ids):
            chain.has_failed = self._reader.are_given_up(ids.keys() - replies.keys())
            return None
        opened = self._own.opened
        answers = {ids[name]: said(*reply, opened=opened) for name, reply in replies.items()}
        return self._own.entry(entry, answers)

    def _request(self, entry: Entry, chain: Chain, new: list[NewRequest]) -> Request:
        name, turn, run = self._id(entry.seq, chain), self._conversations.turn[entry.seq], self._runs[chain.level]
        before = self._reader.past([name]).get(name, NEW) if run.stored else NEW
        series_idx = self._reader.series_idx([name]).get(name, 0) if before.exists else 0
        made = self._makers[chain.level](AnswerToAsk(entry, chain.sample, name, before, series_idx, turn))
        if not before.exists:
            sha256 = made.prompt_sha256 or entry.prompt_sha256
            new.append((name, run.run_id, entry.example_id, chain.sample, turn, sha256))
        if self._workload.reuse == "none" or len(made.endpoints) < 2:
            return made
        served_by = chain.endpoint or self._served_by(entry.seq, chain)
        first = [url for url in made.endpoints if public_url(url) == served_by]
        if not first:
            return made
        others = (url for url in made.endpoints if url not in first)
        kept: Request = replace(made, endpoints=(*first, *others), keeps_first=True)
        return kept

    def _served_by(self, seq: int, chain: Chain) -> str | None:
        """Who served the last answered turn before this one, in any session."""
        first = self._conversations.first[seq]
        chain.endpoint = self._reader.last_endpoint([self._id(earlier, chain) for earlier in range(first, seq)])
        return chain.endpoint

    def _fail(self, chain: Chain, made: _Made) -> None:
        """Every turn that is left fails with the one before. Its prompt is known to nobody, and has no hash."""
        run = self._runs[chain.level]
        for seq, entry in self._reader.entries(self._dataset_id, [*chain.seqs]).items():
            name, turn = self._id(seq, chain), self._conversations.turn[seq]
            if not self._reader.past([name]):
                made.new.append((name, run.run_id, entry.example_id, chain.sample, turn, ""))
            series_idx = self._reader.series_idx([name]).get(name, 0)
            unsent = Request(name, run.run_id, entry.example_id, (), "", b"", False, 0, 0, series_idx=series_idx)
            made.failed.append(Outcome(unsent, None, EARLIER_TURN_FAILED))
        chain.seqs.clear()

    def _id(self, seq: int, chain: Chain) -> str:
        return request_id(self._runs[chain.level].run_id, seq, chain.sample, self._conversations.turn[seq])

"""What one window, or one process of it, sends of conversations: the first turn of each by the load's schedule, every
later one after its user has thought.

With recorded replies all prompts are made before anything is sent. With the server's own a turn's prompt is made in a
thread as soon as the reply before it is there, so that the user's thinking pays for it and no other request waits.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from dataclasses import replace as changed
from functools import partial
from itertools import groupby

import orjson
from msgspec.structs import replace

from kvt_async.bench.conversations.conversation_plan import ConversationPlan
from kvt_async.bench.conversations.conversation_workload import ConversationWorkload
from kvt_async.bench.prepared_requests import BLOCK, Maker, PlannedRequest
from kvt_async.bench.sending_window import Arrival
from kvt_async.bench.stage import Left, Stage
from kvt_async.bench.window_messages import WindowPlace
from kvt_async.clock import utc_now
from kvt_async.contract.bench_settings import MOST_REQUESTS
from kvt_async.contract.formulas.own_history import said
from kvt_async.contract.urls import public_url
from kvt_async.records import Outcome, Request
from kvt_async.store.columns import Row
from kvt_async.store.reader import Reader

EARLIER_TURN_FAILED = "earlier_turn_failed"
Replies = Mapping[int, Sequence[str]]  # the server's own so far, by conversation


def conversation_places(stage: Stage, plan: ConversationPlan, left: Left | None) -> list[WindowPlace]:
    """Every turn of a window: conversations that warm up, then the measured ones. Where one begins, or goes on after a
    killed window, it has a place in the schedule."""
    measured, free = stage.numbers(left)
    n_warm_up = plan.whole(stage.n_warm_up, free) if stage.n_warm_up else 0
    numbers = [*range(free, free + n_warm_up), *measured]
    of = [plan.turn_of(seq).conversation for seq in numbers]
    begins = [n == 0 or of[n - 1] != conversation for n, conversation in enumerate(of)]
    offsets = iter(stage.offsets_ns(sum(begins)))
    stored = frozenset(left.stored) if left is not None else frozenset()
    attempts = left.attempts if left is not None else {}
    return [
        WindowPlace(
            seq=seq,
            measured=at >= n_warm_up,
            offset_ns=next(offsets) if begins[at] else None,
            attempts_before=attempts.get(seq, 0),
            stored=seq in stored,
            lost=left is not None and seq in left.lost,
        )
        for at, seq in enumerate(numbers)
    ]


def further_conversations(
    plan: ConversationPlan, stage: Stage, left: Left | None, places: Sequence[WindowPlace]
) -> range:
    """Numbers of the conversations with which a closed loop by duration goes on; empty: it ends with its places."""
    if stage.seconds_left(left) is None:
        return range(0)
    after = max((place.seq + 1 for place in places), default=0)
    return range(plan.turn_of(max(after, stage.numbers(left)[1])).conversation, MOST_REQUESTS)


def stored_replies(
    reader: Reader, run_id: str, places: Sequence[WindowPlace], workload: ConversationWorkload
) -> dict[int, list[str]]:
    """What the server has said so far in conversations of these places that a killed window began; empty where the
    recorded replies are carried on."""
    if not workload.is_own or not places:
        return {}
    begun: dict[int, list[str]] = {}
    sql = """SELECT q.conversation_idx, p.text, p.reasoning, p.tool_calls_json, p.finish_reason FROM bench_requests q
        JOIN requests r USING (request_id) JOIN bench_arrivals b USING (request_id) JOIN responses p USING (request_id)
        WHERE r.run_id = ? AND b.phase = 'measured' ORDER BY q.conversation_idx, q.turn_idx"""
    for conversation, *reply in reader.rows(sql, run_id):
        begun.setdefault(conversation, []).append(said(*reply, opened=workload.opens_reasoning))
    return begun


def shares_of(places: Sequence[WindowPlace], plan: ConversationPlan, n: int) -> list[list[WindowPlace]]:
    """The same, divided among `n` processes: every n-th conversation whole."""
    parts: list[list[WindowPlace]] = [[] for _ in range(n)]
    for at, (_, turns) in enumerate(groupby(places, lambda place: plan.turn_of(place.seq).conversation)):
        parts[at % n] += turns
    return parts


@dataclass(slots=True)
class ConversationSchedule:
    """`prepare` in a thread, then `rows` to be stored, then `arrivals`. `more`: numbers of conversations with which a
    closed loop by duration goes on; empty: it ends with its places."""

    maker: Maker
    workload: ConversationWorkload
    places: Sequence[WindowPlace]
    replies: Replies
    more: Iterable[int] = ()
    planned: dict[int, PlannedRequest] = field(default_factory=dict)  # by place; own history: what can be made by now
    hand: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "turns")
    )  # one prompt at a time: each
    # thread at work makes the loop wait for the interpreter, and stamps late

    @property
    def n(self) -> int:
        return len(self.places)

    @property
    def plan(self) -> ConversationPlan:
        return self.workload.plan(self.maker.stage.repeat)

    def prepare(self) -> None:
        """Make the prompts that can be made before anything is sent."""
        for measured in (False, True):
            places = [place for place in self.places if place.measured == measured]
            if self.workload.is_own:
                turns = groupby(places, lambda place: self.plan.turn_of(place.seq).conversation)
                seqs = [place.seq for _, group in turns for place in _openings(group)]
            else:
                seqs = [place.seq for place in places]
            made = self.maker.plan(seqs, measured=measured, replies=self.replies)
            self.planned |= {planned.seq: planned for planned in made}

    def rows(self, session_id: str) -> list[Row]:
        """Of the requests that are made and not stored yet, and of turns behind one that has failed."""
        now, rows = utc_now(), list[Row]()
        for place in self.places:
            planned = self.planned.get(place.seq)
            if planned is not None and not place.stored:
                planned = _never_made(planned) if place.lost and self.workload.is_own else planned
                rows += self.maker.rows(planned, place.offset_ns, session_id, now)
            if place.lost:
                rows.append(("give_ups", (self.maker.request_id(place.seq), 0, EARLIER_TURN_FAILED, now)))
        return rows

    async def arrivals(self, session_id: str) -> AsyncGenerator[Arrival, None]:
        """The first turn of each conversation, in the order of the schedule."""
        for conversation, group in groupby(self.places, lambda place: self.plan.turn_of(place.seq).conversation):
            first, *later = group
            if first.lost:
                continue
            rest = self._rest(conversation, later, session_id)
            request = self.maker.request(self.planned[first.seq], first.attempts_before)
            yield Arrival(request, first.measured, first.offset_ns, following=rest)
        further = _ahead(self._made_further())
        async for block in further:
            for conversation, made in block:
                rows = [row for one in made for row in self.maker.rows(one, None, session_id, utc_now())]
                self.planned |= {one.seq: one for one in made}
                places = [
                    WindowPlace(seq, True, None, 0, stored=not self.workload.is_own)
                    for seq in self.plan.of(range(conversation, conversation + 1))
                ]
                rest = self._rest(conversation, places[1:], session_id)
                yield Arrival(self.maker.request(made[0]), True, None, tuple(rows), following=rest)

    def _rest(self, conversation: int, later: Sequence[WindowPlace], session_id: str) -> "RestOfConversation":
        replies = [*self.replies.get(conversation, ())]
        return RestOfConversation(self, conversation, deque(later), replies, session_id)

    def _made_further(self) -> Iterator[list[tuple[int, list[PlannedRequest]]]]:
        """Conversations with their turns as far as they can be made, blocks of them."""
        block: list[tuple[int, list[PlannedRequest]]] = []
        for conversation in self.more:
            seqs = self.plan.of(range(conversation, conversation + 1))
            block.append((conversation, self.maker.plan(seqs[:1] if self.workload.is_own else seqs, measured=True)))
            if sum(len(made) for _, made in block) >= BLOCK:
                yield block
                block = []
        if block:
            yield block


@dataclass(slots=True)
class RestOfConversation:
    """The turns of a conversation that come after one that is being sent: see sending_window.Following."""

    schedule: ConversationSchedule
    conversation: int
    places: deque[WindowPlace]
    replies: list[str]  # the server's own so far
    session_id: str

    @property
    def n_left(self) -> int:
        return len(self.places)

    async def after(self, outcome: Outcome) -> Arrival | None:
        """The next turn; None: that one was the last."""
        schedule, maker = self.schedule, self.schedule.maker
        if not self.places:
            return None
        place, rows = self.places.popleft(), list[Row]()
        planned = schedule.planned.get(place.seq)
        if planned is None:
            assert outcome.reply is not None
            reply = outcome.reply
            calls = orjson.dumps(reply.tool_calls).decode() if reply.tool_calls else None
            opened = schedule.workload.opens_reasoning
            self.replies.append(said(reply.text, reply.reasoning, calls, reply.finish_reason, opened=opened))
            planned = await self._made(place)
            if not place.stored:
                rows += maker.rows(planned, None, self.session_id, utc_now())
        request = maker.request(planned, place.attempts_before)
        if len(request.endpoints) > 1 and outcome.last is not None:
            request = _kept(request, outcome.last.endpoint)
        return Arrival(
            request, place.measured, None, tuple(rows), following=self, think_ns=planned.details.think_ns or 0
        )

    async def lost(self) -> tuple[list[Row], list[Outcome]]:
        """What is stored of the turns that are left, of which none will be sent: a turn before them has failed."""
        schedule, maker, now = self.schedule, self.schedule.maker, utc_now()
        rows, outcomes = list[Row](), list[Outcome]()
        for place in self.places:
            if place.seq not in schedule.planned and not place.stored:
                unmade = _never_made(await self._made(place))
                rows += maker.rows(unmade, None, self.session_id, now)
            run_id, name = maker.stage.run.run_id, maker.request_id(place.seq)
            unsent = Request(name, run_id, f"p{place.seq}", (), "", b"", False, 0, 0)
            outcomes.append(Outcome(unsent, None, EARLIER_TURN_FAILED))
            rows.append(("give_ups", (name, 0, EARLIER_TURN_FAILED, now)))
        self.places.clear()
        return rows, outcomes

    async def _made(self, place: WindowPlace) -> PlannedRequest:
        plan, replies = self.schedule.maker.plan, {self.conversation: self.replies}
        make = partial(plan, [place.seq], measured=place.measured, replies=replies)
        (planned,) = await asyncio.get_running_loop().run_in_executor(self.schedule.hand, make)
        return planned


def _never_made(planned: PlannedRequest) -> PlannedRequest:
    """A turn whose prompt nobody knows, for the reply before it never came."""
    details = changed(planned.details, shared_tokens=None)
    return changed(planned, prompt_sha256="", input_tokens=0, details=details)


def _openings(turns: Iterable[WindowPlace]) -> list[WindowPlace]:
    """Of one conversation's turns those whose prompts are known before anything is sent: the first, and all where
    none will be sent."""
    listed = list(turns)
    return listed if listed[0].lost else listed[:1]


def _kept(request: Request, served_by: str) -> Request:
    """The same, for the endpoint that served the turn before, whose cache holds it."""
    first = [url for url in request.endpoints if public_url(url) == served_by]
    others = [url for url in request.endpoints if url not in first]
    kept: Request = replace(request, endpoints=(*first, *others), keeps_first=bool(first))
    return kept


async def _ahead(
    blocks: Iterator[list[tuple[int, list[PlannedRequest]]]],
) -> AsyncGenerator[list[tuple[int, list[PlannedRequest]]], None]:
    """Each block, while the next is made in a thread."""
    ahead = asyncio.create_task(asyncio.to_thread(next, blocks, None))
    try:
        while (block := await ahead) is not None:
            ahead = asyncio.create_task(asyncio.to_thread(next, blocks, None))
            yield block
    finally:
        await asyncio.wait([ahead])  # a thread can't be cancelled; its bodies' file must outlive it

"""Steps of the plan -> requests with their bodies, a chunk at a time, each queued in the store before it is sent.

Reading and building happen in a worker thread: the event loop has streams to time.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import islice

from kvt_async.clock import utc_now
from kvt_async.contract.labels import request_id
from kvt_async.records import Request
from kvt_async.session.session import ServerSession
from kvt_async.store.columns import NewRequest, rows_of_requests
from kvt_async.store.reader import NEW
from kvt_async.sweep.plan import Step
from kvt_async.sweep.request_builder import AnswerToAsk, RequestBuilder
from kvt_async.sweep.turn_order import Conversations

FIRST, CHUNK = 8, 256  # prompts read at once: the first ones quickly, then in full chunks
CHUNK_BYTES = 4 * 1024 * 1024  # of bodies, about: long prompts are read in smaller chunks


class Feed:
    """Requests for one session, in the plan's order."""

    def __init__(
        self, server: ServerSession, builder: RequestBuilder, conversations: Conversations | None = None
    ) -> None:
        self._samples = builder.settings.decoding.samples
        self._reader, self._store, self._dataset_id = server.reader, server.store, builder.dataset_id
        self._runs, self._makers = server.runs, [builder(run) for run in server.runs]
        self._turns = conversations.turn if conversations else None

    async def requests(self, steps: Iterator[Step]) -> AsyncGenerator[Request, None]:
        """Yield each request once its row is committed; meanwhile the next ones are made."""
        size, chunk = FIRST, list(islice(steps, FIRST))
        making = asyncio.create_task(asyncio.to_thread(self._make, chunk)) if chunk else None
        try:
            while making is not None:
                made, new = await making
                mean = sum(len(request.body) for request in made) // len(made)
                size = max(FIRST, min(CHUNK, CHUNK_BYTES // max(mean, 1)))
                chunk = list(islice(steps, size))
                making = asyncio.create_task(asyncio.to_thread(self._make, chunk)) if chunk else None
                if new:
                    await self._store.save(rows_of_requests(new, utc_now()), gather=True)
                for request in made:
                    yield request
        finally:
            if making is not None:
                await asyncio.wait([making])  # a thread can't be cancelled; the reader must outlive it

    def _make(self, chunk: Sequence[Step]) -> tuple[list[Request], list[NewRequest]]:
        """The requests of a chunk in its order, and the rows of those that have none."""
        answers = [divmod(place, self._samples) for _, place in chunk]  # (seq, sample) of each
        turns = None if self._turns is None else [self._turns[seq] for seq, _ in answers]
        ids = [
            request_id(self._runs[level].run_id, seq, sample, turns[n] if turns else 0)
            for n, ((level, _), (seq, sample)) in enumerate(zip(chunk, answers, strict=True))
        ]
        old = [name for name, (level, _) in zip(ids, chunk, strict=True) if self._runs[level].stored]
        past = self._reader.past(old) if old else {}
        series = self._reader.series_idx(list(past)) if past else {}
        at: dict[int, list[int]] = {}  # seq -> its places in the chunk: levels of one entry may be neighbours
        for n, (seq, _) in enumerate(answers):
            at.setdefault(seq, []).append(n)
        made: dict[int, Request] = {}
        new: list[NewRequest] = []
        with self._reader.reading(self._dataset_id, list(at)) as entries:
            for entry in entries:
                for n in at[entry.seq]:
                    (level, _), name, sample = chunk[n], ids[n], answers[n][1]
                    before, turn = past.get(name, NEW), turns[n] if turns else 0
                    made[n] = self._makers[level](AnswerToAsk(entry, sample, name, before, series.get(name, 0), turn))
                    if not before.exists:
                        sha256 = made[n].prompt_sha256 or entry.prompt_sha256
                        new.append((name, self._runs[level].run_id, entry.example_id, sample, turn, sha256))
        return [made[n] for n in range(len(chunk))], new

"""Steps of the plan -> requests with their bodies, a chunk at a time, each queued in the store before it is sent.

Reading and building happen in a worker thread: the event loop has streams to time.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from itertools import islice

from kvt_async.clock import utc_now
from kvt_async.records import Request
from kvt_async.run.plan import Step
from kvt_async.run.session import Run
from kvt_async.store.reader import NEW, Entry, Past, Reader
from kvt_async.store.rows import rows_of_requests
from kvt_async.store.writer import Writer

FIRST, CHUNK = 8, 64  # prompts read at once: the first ones quickly, then in full chunks
CHUNK_BYTES = 2 * 1024 * 1024  # of bodies, about: long prompts are read in smaller chunks
Build = Callable[[Run, Entry, str, Past, int], Request]  # run, entry, request_id, past, try series


class Feed:
    """Requests for one session, in the plan's order."""

    def __init__(self, reader: Reader, store: Writer, dataset_id: str, runs: Sequence[Run], build: Build) -> None:
        self._reader, self._store, self._dataset_id = reader, store, dataset_id
        self._runs, self._build = runs, build

    async def requests(self, steps: Iterator[Step]) -> AsyncGenerator[Request, None]:
        """Each request once its row is committed."""
        size = FIRST
        while chunk := list(islice(steps, size)):
            made, new = await asyncio.to_thread(self._make, chunk)
            if new:
                await self._store.save(rows_of_requests(new, utc_now()))
            for request in made:
                yield request
            mean = sum(len(request.body) for request in made) // len(made)
            size = max(FIRST, min(CHUNK, CHUNK_BYTES // max(mean, 1)))

    def _make(self, chunk: Sequence[Step]) -> tuple[list[Request], list[tuple[str, str, str, str]]]:
        entries = self._reader.entries(self._dataset_id, sorted({seq for _, seq in chunk}))
        ids = [f"{self._runs[level].run_id}:{seq}" for level, seq in chunk]
        old = [request_id for request_id, (level, _) in zip(ids, chunk, strict=True) if self._runs[level].stored]
        past = self._reader.past(old) if old else {}
        series = self._reader.series_idx(list(past)) if past else {}
        made, new = [], []
        for request_id, (level, seq) in zip(ids, chunk, strict=True):
            run, entry, before = self._runs[level], entries[seq], past.get(request_id, NEW)
            request = self._build(run, entry, request_id, before, series.get(request_id, 0))
            made.append(request)
            if not before.exists:
                sha256 = request.prompt_sha256 or entry.prompt_sha256
                new.append((request_id, run.run_id, entry.example.example_id, sha256))
        return made, new

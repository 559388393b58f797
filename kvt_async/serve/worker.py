"""The one thread that does model work, fed by a bounded first-in-first-out queue; the event loop only waits.

`Job.events()` is the loop's end, `ModelThread` the thread's. Nothing else crosses between them.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import closing
from dataclasses import dataclass

from kvt_async.serve.api_errors import ApiError
from kvt_async.serve.work import Finished, Text, Work

BUG = "internal error while generating; the server's log has the details"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failed:
    """The request can't be done, or met a bug; the error is for the client, a bug's traceback is in the log."""

    error: ApiError


Event = Text | Finished | Failed


class QueueFullError(Exception):
    """As many requests wait as the server is willing to hold."""


class Job:
    """One request on its way through the model thread. Made and read on the event loop."""

    def __init__(self, work: Work, *, each_token: bool) -> None:
        self.work = work
        self.each_token = each_token  # False: wake the loop once, at the end
        self.submitted_at = time.monotonic()
        self.cancelled = False
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None

    async def events(self) -> AsyncIterator[list[Event]]:
        """What has arrived, in order; ends after Finished or Failed. More than one only if the reader was slow."""
        while True:
            if not self._arrived:
                self._waiter = self._loop.create_future()
                await self._waiter
            batch = list(self._arrived)
            self._arrived.clear()
            yield batch
            if not isinstance(batch[-1], Text):
                return

    def post(self, *events: Event) -> None:
        """Called by the model thread."""
        try:
            self._loop.call_soon_threadsafe(self._deliver, events)
        except RuntimeError:  # the loop has closed: nobody is left to read
            self.cancelled = True

    def _deliver(self, events: tuple[Event, ...]) -> None:
        self._arrived.extend(events)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class ModelThread:
    """Runs jobs one after the other. `submit` and `cancel` are for the event loop."""

    def __init__(self, generate: Callable[[Work], Generator[Text | Finished, None, None]], *, max_queue: int) -> None:
        self._generate = generate
        self._max_queue = max_queue
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self.running = 0
        self.busy_s = 0.0
        self._thread = threading.Thread(target=self._work, name="kvt-model", daemon=True)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the token being made; whatever waits is dropped."""
        with self._changed:
            self._stopping = True
            self._queue.clear()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def submit(self, job: Job) -> None:
        """Raise QueueFullError instead of holding more than `max_queue` waiting jobs."""
        with self._changed:
            if len(self._queue) >= self._max_queue:
                raise QueueFullError
            self._queue.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Take the job out of the queue, or stop it at the token being made."""
        job.cancelled = True
        with self._changed:
            if job in self._queue:
                self._queue.remove(job)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._stopping:
                    self._changed.wait()
                if self._stopping:
                    return
                job = self._queue.popleft()
                self.running = 1
            started = time.monotonic()
            try:
                self._run(job)
            except ApiError as error:
                self.running = 0
                job.post(Failed(error))
            except Exception:
                log.exception("the model thread failed on a request")
                job.post(Failed(ApiError(BUG, status=500, kind="internal_server_error")))
            self.busy_s += time.monotonic() - started
            self.running = 0

    def _run(self, job: Job) -> None:
        unsent: list[Event] = []
        with closing(self._generate(job.work)) as events:  # one that is stopped half way cleans up at once
            for event in events:
                if job.cancelled or self._stopping:
                    return
                unsent.append(event)
                if isinstance(event, Finished):
                    self.running = 0  # before its client can hear of it and ask
                if job.each_token or isinstance(event, Finished):
                    job.post(*unsent)
                    unsent.clear()

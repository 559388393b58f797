"""Runs of a large experiment side by side, in processes of their own; within a run, columns beside rows.

Threads would not help between runs: rows of SQLite become Python objects one by one, under the interpreter's lock.
Processes are spawned, since Polars' threads forbid fork; each works with one thread, so there are as many busy threads
as cores. Within a run a thread does help: Polars lets go of that lock, and so does SQLite while it stores a row.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from kvt_async.contract import plugin_files

Part = TypeVar("Part")
Result = TypeVar("Result")

WORTH_IT_ROWS = 150_000  # fewer are done before new processes have loaded their libraries
BATCH_ROWS = 25_000  # of small runs: work enough for one call, and batches enough for every process
MOST = 4  # that draw pictures: each holds a renderer of its own
PROCESS_BYTES = 250 << 20  # of one process: its libraries, its caches, and a portion of rows while it is scored
SHARE = 0.6  # of the memory that is free: the rest is for this process, and for others


def cores() -> int:
    """How many this process may use; 1 inside a process that another one started."""
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_bytes() -> int | None:
    """Memory that may still be taken, of this machine and within this process' group; None where nothing tells."""
    limits = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        limits.append(int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) << 10)
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limits.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(0, min(limits)) if limits else None


def processes(n_parts: int, bytes_each: int) -> int:
    """How many processes work side by side on so many parts, each of which takes up to `bytes_each` beside what a
    process takes anyway: as many as there are cores and as memory holds, one at least."""
    free = free_bytes()
    fit = n_parts if free is None else int(SHARE * free) // (PROCESS_BYTES + bytes_each)
    return max(1, min(cores(), n_parts, fit))


def batches(parts: Iterable[Part], alike: Callable[[Part], Any], rows: Callable[[Part], int]) -> list[list[Part]]:
    """Parts that follow each other, are `alike` and have up to BATCH_ROWS rows in all, or one that has more.

    What one call of Polars costs, whatever it is given, is paid once for all of a batch.
    """
    together: list[list[Part]] = []
    held = 0
    for part in parts:
        if together and alike(together[-1][0]) == alike(part) and held + rows(part) <= BATCH_ROWS:
            together[-1].append(part)
            held += rows(part)
        else:
            together.append([part])
            held = rows(part)
    return together


def results(
    function: Callable[[Part], Result],
    parts: Sequence[Part],
    *,
    rows: int,
    bytes_each: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Result | None]:
    """All of `stream`; `progress` is told how many are done, as they end."""
    done = []
    for result in stream(function, parts, rows=rows, bytes_each=bytes_each):
        done.append(result)
        if result is not None:
            progress(len(done))
    return done


def stream(
    function: Callable[[Part], Result], parts: Sequence[Part], *, rows: int, bytes_each: int = 0
) -> Iterator[Result | None]:
    """function(part) of each part in order, from processes, which do the next ones meanwhile; None for what was not
    done there and is to be done here.

    There are as many processes as `processes` says, and a result that nobody has asked for yet is one of theirs: they
    go no further ahead than that. Nothing is done there where one process is as fast: with one core, one part, or few
    `rows` in all parts together.
    """
    n_done = 0
    workers = processes(len(parts), bytes_each)
    if workers > 1 and rows >= WORTH_IT_ROWS:
        pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=begin, initargs=(plugin_files.loaded(),)
        )
        try:
            coming = iter(parts)
            futures = deque(pool.submit(function, part) for part in islice(coming, 2 * workers))
            while futures:
                result = futures.popleft().result()  # whoever takes it may forget it
                futures.extend(pool.submit(function, part) for part in islice(coming, 1))
                n_done += 1
                if not futures:
                    pool.shutdown()  # what these processes hold is not held beside what the last result is for
                yield result
        except BrokenProcessPool:  # a script that can't be imported again, as new processes do: slower, not wrong
            pass
        finally:
            pool.shutdown(cancel_futures=True)
    yield from [None] * (len(parts) - n_done)


def one_ahead(function: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
    """function(part) of each part, in order; while one result is used, the next is made in a thread."""
    with ThreadPoolExecutor(1) as thread:
        coming: Future[Result] | None = None
        for part in parts:
            after = thread.submit(function, part)
            if coming is not None:
                yield coming.result()
            coming = after
        if coming is not None:
            yield coming.result()


def begin(plugins: Sequence[tuple[str, str]]) -> None:
    """First thing in a new process, before any library is loaded; then the plugins that the first process has."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for us
    for name in ("POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["_RJEM_MALLOC_CONF"] = "dirty_decay_ms:0,muzzy_decay_ms:0"  # Polars gives back at once what it frees
    plugin_files.load_again(plugins)

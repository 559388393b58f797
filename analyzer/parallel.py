"""Runs of a large experiment side by side, in processes of their own.

Threads would not help: rows of SQLite become Python objects one by one, under the interpreter's lock. Processes are
spawned, since Polars' threads forbid fork; each works with one thread, so there are as many busy threads as cores.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")

WORTH_IT_ROWS = 150_000  # fewer are done before new processes have loaded their libraries
MOST = 4  # one holds one run at a time in memory, and only one writes at a time


def cores() -> int:
    """How many this process may use; 1 inside a process that another one started."""
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def results(function: Callable[[Part], Result], parts: Sequence[Part], *, rows: int) -> list[Result | None]:
    """function(part) of each part, from processes; None for what was not done there and is to be done here.

    Nothing is done there where one process is as fast: with one core, one part, or few `rows` in all parts together.
    """
    done: list[Result | None] = [None] * len(parts)
    workers = min(cores(), MOST, len(parts))
    if workers < 2 or rows < WORTH_IT_ROWS:
        return done
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        futures = [pool.submit(function, part) for part in parts]
        for i, future in enumerate(futures):
            done[i] = future.result()
    except BrokenProcessPool:  # a script that can't be imported again, as new processes do: slower, not wrong
        pass
    finally:
        pool.shutdown(cancel_futures=True)
    return done


def _begin() -> None:
    """First thing in a new process, before any library is loaded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for us
    for name in ("POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"

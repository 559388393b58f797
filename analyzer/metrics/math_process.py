"""math-verify, asked in a process of its own: it can be ended wherever it is, and its parser's memory goes with it.

math-verify bounds its time by signals, which only a main thread gets, and which a computation in C (10 to the power of
10 to the power of 10) never sees. A score may not depend on either, nor on how busy the machine is.
"""

import atexit
import json
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock

from kvt_async.contract.errors import ConfigError
from kvt_async.contract.formulas.metric_needs import install

MOST_S = 2.0  # of CPU time for one pair; an answer of 30,000 tokens takes 0.1 s
_WORKER = Path(__file__).with_name("math_worker.py")


class MathProcess:
    """One process, started at the first question and again after it had to be ended. Any thread may ask."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = Lock()

    def equal(self, gold: str, answer: str, most_s: float = MOST_S) -> bool:
        """Whether math-verify finds the answer in `answer` equal to that in `gold`; False where it needs too much."""
        with self._lock:
            process = self._process if self._process and self._process.poll() is None else self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps([gold, answer, most_s]) + "\n")
                process.stdin.flush()
            reply = process.stdout.readline()
            if not reply:  # it was ended
                self._stop()
            return reply == "1\n"

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _start(self) -> "subprocess.Popen[str]":
        self._stop()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)],  # -P: beside it lie modules that are called as the library's
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",
        )
        assert self._process.stdout is not None
        if (word := self._process.stdout.readline()) != "ready\n":
            self._stop()
            raise ConfigError(
                "math-verify can't be loaded",
                details=(word.strip() or "its process ended before it said why",),
                do=install("math_verify"),
            )
        return self._process

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.communicate()
        self._process = None


@lru_cache(maxsize=1)
def math_process() -> MathProcess:
    """The one of this process, which ends with it."""
    process = MathProcess()
    atexit.register(process.close)
    return process

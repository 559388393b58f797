"""The process in which math-verify compares answers; `math_process.py` starts it. It is run as a file, not imported.

It writes `ready`, or why math-verify can't be loaded. Then it reads lines from stdin, each a JSON list [gold, answer,
most seconds of CPU time], and writes a line for each: 1 where the two are equal, else 0. What takes longer, or too much
memory, ends the process by the kernel's hand: Python's own signal handlers wait for the end of a computation in C, and
such a computation may never end.
"""

import json
import logging
import os
import signal
import sys

MEMORY_BYTES = 4 << 30  # of address space; SymPy takes a tenth of it
READY = "ready\n"
WALL_S = 120  # whatever the processor does meanwhile


def main() -> None:
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())  # the parser's runtime may print
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for us
    logging.disable(logging.CRITICAL)
    _limit_memory()
    try:
        from math_verify import parse, verify
    except Exception as error:
        replies.write(f"{type(error).__name__}: {error}".encode("ascii", "replace").decode().replace("\n", " ") + "\n")
        return
    replies.write(READY)
    replies.flush()
    for line in sys.stdin:
        gold, answer, most_s = json.loads(line)
        _limit_time(most_s)
        wanted = parse(gold, parsing_timeout=None)
        given = parse(answer, parsing_timeout=None)
        is_equal = verify(wanted, given, timeout_seconds=None)
        _limit_time(0)
        replies.write(f"{int(is_equal)}\n")
        replies.flush()


def _limit_time(seconds: float) -> None:
    """The process ends where what follows takes longer; 0: no longer. What there is of it on this system."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)  # processor time: a busy machine changes no score
        signal.setitimer(signal.ITIMER_REAL, WALL_S if seconds else 0)


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ImportError, ValueError, OSError):  # Windows has none; a stricter limit stands
        pass


main()

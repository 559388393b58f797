"""Servers to measure clients against, each on a core of its own where there are two."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """Base URL of server.c (`options`: --ttft-ms, --itl-ms), pinned to the first core; we are pinned to the last.

    Without a C compiler _null_server.py stands in, which can't pace: SystemExit where options are given.
    """
    with tempfile.TemporaryDirectory() as folder:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is not None:
            binary = f"{folder}/server"
            subprocess.run([compiler, "-O2", "-o", binary, str(HERE / "server.c")], check=True)
            command = [binary, *options]
        elif options:
            raise SystemExit("this measurement needs a C compiler (cc or gcc) for scripts/bench/server.c")
        else:
            command = [sys.executable, str(HERE / "_null_server.py")]
        cores = sorted(os.sched_getaffinity(0))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
                if len(cores) > 1:
                    os.sched_setaffinity(server.pid, {cores[0]})
                    os.sched_setaffinity(0, {cores[-1]})
                yield url
            finally:
                os.sched_setaffinity(0, set(cores))
                server.terminate()


def prompt(tokens: int, size: int = 20) -> bytes:
    """A request's body of about `size` bytes."""
    return b'{"max_tokens": %d, "stream": true, "prompt": "%b"}' % (tokens, b"x" * size)

"""A sender process, as its parent has it: started, told and heard, ended."""

import asyncio
import contextlib
import json
import signal
import socket
import sys
from dataclasses import dataclass

from kvt_async.senders.wire import Wire

PATIENCE_S = 5.0  # for a process that was told to end
_START = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv[2]); runpy.run_module(sys.argv[1], run_name='__main__')"
)


@dataclass(slots=True)
class SenderProcess:
    """Number `i` (0, 1, ...) of `n`. Its own session: a terminal's Ctrl-C reaches the parent alone, which tells it."""

    i: int
    n: int
    wire: Wire
    _process: asyncio.subprocess.Process

    @classmethod
    async def start(cls, module: str, i: int, n: int) -> "SenderProcess":
        """Run a module, its last argument the file descriptor to talk over. It has our environment and finds modules
        where we do, and is to end when we do."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-c", _START, module, json.dumps(sys.path), str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        return cls(i, n, await Wire.over(ours), process)

    @property
    def name(self) -> str:
        """'sender process 2 of 4 (pid 4711)'."""
        return f"sender process {self.i + 1} of {self.n} (pid {self._process.pid})"

    async def end_of_life(self) -> str:
        """How it ended, once it has: 'killed by SIGKILL', 'exit code 1'."""
        code = await self._process.wait()
        if code >= 0:
            return f"exit code {code}"
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
        return f"killed by signal {-code}"

    def kill(self) -> None:
        """End it at once, if it hasn't ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        """Let it end: it does so when nobody is at our end any more. One that doesn't is killed."""
        await self.wire.close()
        try:
            await asyncio.wait_for(self._process.wait(), PATIENCE_S)
        except TimeoutError:
            self.kill()
            await self._process.wait()

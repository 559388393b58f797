"""The sender processes of one server, as their parent holds them: told, heard, ended, and their facts taken over."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kvt_async.senders.notices import Enlistment, Halt
from kvt_async.senders.scratch_facts import scratch_db, take_over
from kvt_async.senders.sender_process import PATIENCE_S, SenderProcess
from kvt_async.senders.shares import shares_of_limits
from kvt_async.session.experiment_rows import command_line
from kvt_async.session.session import ServerSession

Result = TypeVar("Result")


@dataclass(slots=True)
class SenderPool:
    """`n` processes that run `module`; `processes` is filled by `start`."""

    server: ServerSession
    module: str
    n: int
    processes: list[SenderProcess] = field(default_factory=list)

    async def start(self) -> None:
        """Start them all: `close` has to follow, whatever comes of it."""
        for i in range(self.n):
            self.processes.append(await self._started(i))

    async def renew(self, i: int) -> SenderProcess:
        """Start another process in the place of one that is gone, once its facts are in the group's database."""
        await self.processes[i].close()
        await self.take_over(i)
        self.processes[i] = await self._started(i)
        return self.processes[i]

    async def _started(self, i: int) -> SenderProcess:
        server, settings = self.server, self.server.settings
        process = await SenderProcess.start(self.module, i, self.n)
        limits = shares_of_limits(settings.limits, self.n)[i]
        process.wire.send(
            Enlistment(
                settings=settings.model_copy(update={"limits": limits}),
                i=i,
                n=self.n,
                session_id=server.session_id,
                endpoints=server.endpoints,
                group_db=server.paths.db,
                db=scratch_db(server.paths.db, i, self.n),
                log=server.paths.log,
                command=command_line(settings),
            )
        )
        return process

    def tell(self, message: object, *, but: int | None = None) -> None:
        """Tell all processes, or all `but` one."""
        for process in self.processes:
            if process.i != but:
                process.wire.send(message)

    async def halted_by(self, stop: asyncio.Event) -> None:
        """Once `stop` is set, let all end what is in flight and start nothing more. Runs until cancelled."""
        await stop.wait()
        self.tell(Halt(at_once=False))

    async def all_ended(self, heard: Callable[[int], Coroutine[Any, Any, Result]]) -> list[Result]:
        """Wait for `heard(i)` of each process. The second Ctrl-C, or the end of the grace period, ends them at once:
        then CancelledError is raised when they have ended. What one raises ends the waiting."""
        waiting = asyncio.gather(*(heard(i) for i in range(self.n)))
        try:
            return list(await asyncio.shield(waiting))
        except asyncio.CancelledError:
            if self.server.interrupts.hit:
                self.tell(Halt(at_once=True))
                await asyncio.wait([waiting], timeout=PATIENCE_S)
                for process in () if waiting.done() else self.processes:
                    process.kill()
                with suppress(Exception):
                    await waiting
            else:
                waiting.cancel()
            raise
        except BaseException:
            waiting.cancel()
            raise

    async def take_over(self, *numbers: int) -> int:
        """Move what these processes (none given: all) have stored into the group's database; nobody may be writing it.
        How many outcomes came."""
        scratches: list[Path] = [scratch_db(self.server.paths.db, i, self.n) for i in numbers or range(self.n)]
        return await asyncio.to_thread(take_over, self.server.paths.db, scratches)

    async def close(self) -> None:
        """End them all, and take over what they leave."""
        await asyncio.gather(*(process.close() for process in self.processes))
        if self.processes:
            await self.take_over()

"""The servers of a session, one after the other: started where kvt starts them, watched, and started again.

    servers --owes?--> way.serve() --> ServerSession --> work.serve() --> reason to end
                          ^                                    |
                          '-- gone, at most way.restarts ----'

A budget that needs no server of its own has one server, which is there already: then nothing is started or started
again. What stops the sending to a server (Ctrl-C, its breaker, its own end) is `watched`.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from kvt_async.contract.errors import KvtError, ServerError
from kvt_async.contract.vocabulary import EndReason
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Run
from kvt_async.session.session import ServerSession, Session, fields_of
from kvt_async.ways.registry import way_of
from kvt_async.ways.way import StartedServer

ENDING = frozenset({EndReason.SERVER, EndReason.REFUSED, EndReason.LOCAL, EndReason.INTERRUPTED})


class ServerWork(Protocol):
    """What a session does on its servers."""

    def owes(self, runs: Sequence[Run]) -> bool:
        """Whether the server of these runs has to be asked anything."""
        ...

    def sender(self, endpoints: Sequence[str]) -> Sender:
        """Who sends to it, not yet opened."""
        ...

    async def serve(self, server: ServerSession) -> EndReason:
        """Send what is owed; the reason to end. Called anew for a server that was started again."""
        ...

    async def restarted(self, session: Session, runs: Sequence[Run]) -> tuple[Session, Sequence[Run]]:
        """The session and the runs to go on with, after the server of `runs` has died."""
        ...


async def on_servers(session: Session, servers: Sequence[Sequence[Run]], work: ServerWork) -> EndReason:
    """Do the work on every server, each given as the runs that it serves; FINISHED, or why it ended before that.

    Raises ServerError where a launched server dies once too often before it is ready, and what `work` raises.
    """
    for served in servers:
        if not work.owes(served):
            continue
        runs, restarts = served, 0
        most = way_of(runs[0].level.apply_via).restarts
        reason = await _on_server(session, runs, work, restarts)
        while reason == EndReason.SERVER and restarts < most:
            restarts += 1
            session.say(f"the launched server died or answers no more; starting it again ({restarts} of {most})")
            session, runs = await work.restarted(session, runs)
            reason = await _on_server(session, runs, work, restarts)
        if reason in ENDING:
            return reason
    return EndReason.FINISHED


async def _on_server(session: Session, runs: Sequence[Run], work: ServerWork, restarts: int) -> EndReason:
    level, died = runs[0].level, False
    way = way_of(level.apply_via)
    try:
        async with way.serve(session.settings, level, session.paths.run_dir / way.name, session.say) as process:
            if process is None:
                return await _served(session, runs, work, None)
            session.log("launched", level=level.label, restart=restarts, log=str(process.log))
            try:
                return await _served(session, runs, work, process)
            finally:
                died = process.died
    except ServerError:
        if died and restarts < way.restarts:
            return EndReason.SERVER
        raise


async def _served(session: Session, runs: Sequence[Run], work: ServerWork, process: StartedServer | None) -> EndReason:
    endpoints = list(dict.fromkeys(url for run in runs for url in run.level.endpoints))
    async with work.sender(endpoints) as sender:
        return await work.serve(ServerSession(**fields_of(session), sender=sender, runs=tuple(runs), launched=process))


@asynccontextmanager
async def watched(server: ServerSession, *beside_it: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """While the block runs: Ctrl-C, the breaker and the end of a launched server stop what is sent to this server.
    `beside_it` runs along."""
    async with beside(_watch_interrupts(server), _watch_breaker(server), _watch_launched(server), *beside_it):
        yield


async def _watch_interrupts(server: ServerSession) -> None:
    await server.interrupts.stop.wait()
    server.stop.set()
    server.sender.halt()


async def _watch_breaker(server: ServerSession) -> None:
    await server.sender.breaker.tripped.wait()
    server.say(f"stopping: {server.sender.breaker.reason}")
    server.stop.set()


async def _watch_launched(server: ServerSession) -> None:
    """A server that kvt started and that ended is gone for certain: no need to find out by failing requests."""
    if server.launched is not None:
        server.sender.breaker.reason = await server.launched.ended()
        server.sender.breaker.tripped.set()
        server.sender.halt()


@asynccontextmanager
async def beside(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run them while the block runs, then end them. One that fails fails the block at its end."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error a user should see: one of ours if there is one, else the first."""
    flat: list[BaseException] = []
    stack: list[BaseException] = [errors]
    while stack:
        error = stack.pop(0)
        if isinstance(error, BaseExceptionGroup):
            stack = [*error.exceptions, *stack]
        else:
            flat.append(error)
    return next((e for e in flat if isinstance(e, KvtError)), flat[0])

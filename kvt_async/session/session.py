"""A session: one invocation that sends, its row in `sessions`, and its end, whatever ends it.

Ctrl-C, a refusal, a dead server and a bug all leave a row in `session_ends` that says which of them it was.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

from kvt_async.clock import utc_now
from kvt_async.contract.errors import (
    ConfigError,
    FailuresStandError,
    InterruptedByUserError,
    KvtError,
    LocalError,
    ServerError,
)
from kvt_async.contract.vocabulary import EndReason
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Level, Run
from kvt_async.session.experiment_rows import add_session, command_line
from kvt_async.session.interrupts import Interrupts
from kvt_async.session.invocation import Invocation
from kvt_async.store.writer import Writer
from kvt_async.ways.way import StartedServer


@dataclass(frozen=True, slots=True)
class Session(Invocation):
    """An invocation with a store that writes, under the id of its row in `sessions`."""

    store: Writer
    session_id: str
    interrupts: Interrupts


@dataclass(frozen=True, slots=True)
class ServerSession(Session):
    """A session with one server: the levels that it serves, each as a run, and who sends to it."""

    sender: Sender
    runs: tuple[Run, ...]
    launched: StartedServer | None = None  # the server, where kvt started it
    stop: asyncio.Event = field(default_factory=asyncio.Event)  # set: start no further request on this server

    @property
    def levels(self) -> list[Level]:
        return [run.level for run in self.runs]

    @property
    def endpoints(self) -> list[str]:
        """Every base URL of the levels, once."""
        return list(dict.fromkeys(url for level in self.levels for url in level.endpoints))

    @property
    def output(self) -> Callable[[], str] | None:
        """Reads what a launched server has printed."""
        return None if self.launched is None else self.launched.output

    @property
    def ending(self) -> EndReason:
        """Why the session ends here: Ctrl-C, or what the breaker says; FINISHED where neither stopped it."""
        if self.interrupts.hit:
            return EndReason.INTERRUPTED
        return self.sender.breaker.ending if self.sender.breaker.tripped.is_set() else EndReason.FINISHED


_ERRORS: dict[EndReason, type[KvtError]] = {
    EndReason.INTERRUPTED: InterruptedByUserError,
    EndReason.SERVER: ServerError,
    EndReason.REFUSED: ConfigError,
    EndReason.LOCAL: LocalError,
    EndReason.FAILURES: FailuresStandError,
}


def exit_code_of(reason: EndReason) -> int:
    """The exit code of a session that ended for this reason and raised nothing."""
    return _ERRORS[reason].exit_code if reason in _ERRORS else 0


class Report(Protocol):
    """What came of a session."""

    generation: int
    session_id: str | None
    reason: EndReason

    @property
    def exit_code(self) -> int: ...


async def run_session(
    invocation: Invocation,
    writer: Writer,
    report: Report,
    work: Callable[[Session], Awaitable[EndReason]],
    *,
    order_seed: int | None,
    notes: Sequence[str] = (),
) -> None:
    """Open a session and do `work` in it, which returns the session's reason to end: it goes into the report, the log
    and the store. `writer` is opened and closed here; `order_seed` decided the order of the plan, if anything did;
    `notes` are sentences about the tasks.

    Raises what `work` raises, but a cancellation by Ctrl-C: that is a reason.
    """
    async with writer as store:
        report.session_id = await _open(invocation, store, report.generation, order_seed, notes)
        reason, code = EndReason.BUG, 1
        try:
            with Interrupts(invocation.settings.limits.grace_s, invocation.say) as interrupts:
                session = Session(
                    **fields_of(invocation), store=store, session_id=report.session_id, interrupts=interrupts
                )
                reason = await _interruptible(work, session)
            report.reason = reason
            code = report.exit_code
        except KvtError as error:
            code = error.exit_code
            reason = EndReason.SERVER if code == ServerError.exit_code else EndReason.REFUSED
            invocation.log("error", what=str(error))
            raise
        except Exception as error:
            invocation.log("bug", what=repr(error))
            raise
        finally:
            await _close(invocation, store, report.session_id, reason, code)


async def next_session(session: Session, report: Report, *, order_seed: int | None) -> Session:
    """Go on under a new id after a server has died: what is measured on the next one is another session's."""
    await _close(session, session.store, session.session_id, EndReason.SERVER, ServerError.exit_code)
    report.session_id = await _open(session, session.store, report.generation, order_seed)
    return replace(session, session_id=report.session_id)


def fields_of(invocation: Invocation) -> dict[str, Any]:
    """What a session takes over from its invocation, or a session with a server from its session."""
    return {item.name: getattr(invocation, item.name) for item in fields(invocation)}


async def _open(
    invocation: Invocation, store: Writer, generation: int, order_seed: int | None, notes: Sequence[str] = ()
) -> str:
    session_id = await add_session(store, invocation.settings, generation, order_seed, notes, invocation.options.shard)
    plugins = [plugin.model_dump(mode="json", exclude_none=True) for plugin in invocation.settings.plugins]
    what = {"command": command_line(invocation.settings)} | ({"plugins": plugins} if plugins else {})
    invocation.log("session", session_id=session_id, **what)
    return session_id


async def _close(invocation: Invocation, store: Writer, session_id: str, reason: EndReason, code: int) -> None:
    end = {"session_id": session_id, "ended_at": utc_now(), "exit_code": code, "reason": reason}
    invocation.log("session_end", **end)
    if store.broken is None:
        await store.insert("session_ends", end)


async def _interruptible(work: Callable[[Session], Awaitable[EndReason]], session: Session) -> EndReason:
    task = asyncio.current_task()
    assert task is not None
    try:
        return await work(session)
    except asyncio.CancelledError:
        if not session.interrupts.hit:
            raise
        task.uncancel()
        return EndReason.INTERRUPTED

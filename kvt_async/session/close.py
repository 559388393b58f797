"""How a session that sends ends, whatever it sends: Ctrl-C, a refusal, a dead server, a bug; and its end is written."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from kvt_async.clock import utc_now
from kvt_async.contract.errors import KvtError, ServerError
from kvt_async.contract.vocabulary import EndReason
from kvt_async.session.interrupts import Interrupts
from kvt_async.session.run_log import RunLog
from kvt_async.store.writer import Writer


@dataclass(frozen=True, slots=True)
class Invoked:
    """How an invocation goes about it; nothing here is part of the experiment."""

    force: bool = False
    allow_dead_knob: bool = False
    dry_run: bool = False
    quiet: bool = False
    as_json: bool = False


class Report(Protocol):
    """What came of a session."""

    session_id: str | None
    reason: EndReason

    @property
    def exit_code(self) -> int: ...


async def run_session(
    store: Writer, log: RunLog, report: Report, grace_s: float, say: Callable[[str], None],
    work: Callable[[Interrupts], Awaitable[EndReason]],
) -> None:  # fmt: skip
    """Do `work`, which returns the session's reason to end; put it into the report, the log and the store.

    Raises what `work` raises, but a cancellation by Ctrl-C: that is a reason.
    """
    reason, code = EndReason.BUG, 1
    try:
        with Interrupts(grace_s, say) as interrupts:
            reason = await _interruptible(work, interrupts)
        report.reason = reason
        code = report.exit_code
    except KvtError as error:
        code = error.exit_code
        reason = EndReason.SERVER if code == ServerError.exit_code else EndReason.REFUSED
        log("error", what=str(error))
        raise
    except Exception as error:
        log("bug", what=repr(error))
        raise
    finally:
        end = {"session_id": report.session_id, "ended_at": utc_now(), "exit_code": code, "reason": reason}
        log("session_end", **end)
        if store.broken is None:
            await store.insert("session_ends", end)


async def _interruptible(work: Callable[[Interrupts], Awaitable[EndReason]], interrupts: Interrupts) -> EndReason:
    task = asyncio.current_task()
    assert task is not None
    try:
        return await work(interrupts)
    except asyncio.CancelledError:
        if not interrupts.hit:
            raise
        task.uncancel()
        return EndReason.INTERRUPTED

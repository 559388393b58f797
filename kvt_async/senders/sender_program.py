"""How a sender process begins: it learns who it is over the socket that its parent gave it, then works there."""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable

from kvt_async.contract import plugin_files
from kvt_async.contract.command_line import masked_output
from kvt_async.contract.errors import KvtError
from kvt_async.contract.load import known_secrets
from kvt_async.contract.secrets import Secrets
from kvt_async.contract.settings import Settings
from kvt_async.senders.notices import Enlistment, Unable
from kvt_async.senders.wire import Wire, first_message
from kvt_async.session.invocation import loop_factory


def run_sender(work: Callable[[Wire, Enlistment], Awaitable[None]]) -> None:
    """Work until the parent is gone or wants no more; the last argument is the socket's file descriptor. What a user
    could do something about is the parent's to say."""
    end = socket.socket(fileno=int(sys.argv[-1]))
    me = first_message(end)
    if not isinstance(me, Enlistment):
        return
    masked_output.hide(secrets_of(me.settings))
    with asyncio.Runner(loop_factory=loop_factory(me.settings)) as runner:
        runner.run(_worked(work, end, me))


def secrets_of(settings: Settings) -> Secrets:
    """What is kept out of logs and errors."""
    return known_secrets(settings).and_also(*settings.engine.headers.values())


async def _worked(work: Callable[[Wire, Enlistment], Awaitable[None]], end: socket.socket, me: Enlistment) -> None:
    wire = await Wire.over(end)
    try:
        plugin_files.load(me.settings.plugins)
        await work(wire, me)
    except KvtError as error:
        wire.send(Unable(error.masked(secrets_of(me.settings))))
    finally:
        await wire.close()

"""The process of a launched server: started, awaited, stopped with all its children; its log kept."""

import asyncio
import contextlib
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.errors import ConfigError, ServerError
from kvt_async.contract.files import append_to
from kvt_async.contract.load import known_secrets
from kvt_async.contract.settings import Settings
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Level
from kvt_async.ways.launch_command import LaunchCommand, port_of
from kvt_async.ways.launch_guard import SECRETS_VARIABLE

POLL_S = 0.25
LEAVING_S = 3.0  # a port may be held that long by a server that is going
TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class LaunchedServer:
    """A server that runs. `process` is its guard, which ends when it does, with its exit code."""

    process: asyncio.subprocess.Process
    log: Path
    began_at: int  # bytes of the log that earlier launches wrote

    @property
    def died(self) -> bool:
        return self.process.returncode is not None

    async def ended(self) -> str:
        """Wait until it does, by itself; a sentence about it."""
        code = await self.process.wait()
        return f"the launched server ended with exit code {code} (log: {self.log})"

    def output(self) -> str:
        """What it has printed since it was launched."""
        with self.log.open("rb") as file:
            file.seek(self.began_at)
            return file.read().decode("utf-8", "replace")


@contextlib.asynccontextmanager
async def launched(
    settings: Settings, level: Level, folder: Path, say: Callable[[str], None]
) -> AsyncIterator[LaunchedServer]:
    """The level's server while the block runs.

    Raises ServerError when it ends or isn't ready in time, ConfigError where something else answers at its address.
    """
    apply = settings.kv.apply
    command = LaunchCommand.of_level(settings, level)
    env = {**os.environ, **command.environment}
    if secrets := known_secrets(settings):
        env[SECRETS_VARIABLE] = orjson.dumps(secrets.values).decode()  # for the guard alone, which takes it out
    await _nobody_there(level)
    log = log_file(folder, level)
    guard = [sys.executable, "-m", "kvt_async.ways.launch_guard", str(os.getpid()), str(apply.grace_s)]
    with append_to(log) as out:
        out.write(f"--- launched by kvt at {utc_now()} for {level.label}\n".encode())
        out.flush()
        began_at = out.tell()
        process = await asyncio.create_subprocess_exec(
            *guard,
            *command.words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=env,
            start_new_session=True,
        )
    server = LaunchedServer(process, log, began_at)
    try:
        began = time.monotonic()
        await _ready(settings, server, command.health_url)
        say(f"{level.label}: server ready after {time.monotonic() - began:.1f} s (log: {log})")
        yield server
    finally:
        await _stop(process, apply.grace_s)


async def _nobody_there(level: Level) -> None:
    """A server left over from somewhere would answer in the launched one's place. Raises ConfigError."""
    host, port = urlsplit(level.endpoints[0]).hostname, port_of(level.endpoints[0])
    until = time.monotonic() + LEAVING_S
    while True:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 1.0)
        except (OSError, TimeoutError):
            return
        writer.close()
        if time.monotonic() > until:
            raise ConfigError(
                "something listens there already; a server launched beside it would not be the one that answers",
                where=f"{host}:{port}",
                do="Stop it, give another port in engine.base_url, or port 0 to have a free one chosen.",
            )
        await asyncio.sleep(POLL_S)


async def _ready(settings: Settings, server: LaunchedServer, health_url: str) -> None:
    until = time.monotonic() + settings.kv.apply.ready_timeout_s
    process, log = server.process, server.log
    async with Sender(settings) as sender:
        while True:
            if process.returncode is not None:
                raise ServerError(
                    f"the launched server ended with exit code {process.returncode} before it was ready",
                    where=str(log),
                    details=_tail(server),
                    do="Correct kv.apply.command; the log says more.",
                )
            try:
                await sender.pages.get_text(health_url, timeout_s=2.0)
                return
            except ServerError as error:
                if time.monotonic() > until:
                    raise ServerError(
                        f"the launched server was not ready in {settings.kv.apply.ready_timeout_s:g} s: {error.what}",
                        where=health_url,
                        details=_tail(server),
                        do="Raise kv.apply.ready_timeout_s or look at its log.",
                    ) from None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), POLL_S)


async def _stop(process: asyncio.subprocess.Process, grace_s: float) -> None:
    if process.returncode is not None:
        return
    process.terminate()  # the guard ends the whole group
    try:
        await asyncio.wait_for(asyncio.shield(process.wait()), grace_s + 5)
    except TimeoutError:
        process.kill()
        await process.wait()


def log_file(folder: Path, level: Level) -> Path:
    """Where the output of the level's server goes."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / (re.sub(r"[^A-Za-z0-9.]+", "-", level.label).strip("-") + ".log")


def _tail(server: LaunchedServer) -> tuple[str, ...]:
    with contextlib.suppress(OSError):
        return tuple(server.output().splitlines()[-TAIL_LINES:])
    return ()

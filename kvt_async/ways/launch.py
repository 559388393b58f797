"""kvt.apply.via: launch. A server per level: started, awaited, stopped with all its children; its log kept.

Consecutive levels whose command, environment and health URL are equal share one server. Port 0 in engine.base_url
asks for a free one: {port} then says which.
"""

import asyncio
import contextlib
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.errors import ConfigError, ServerError
from kvt_async.contract.files import append_to
from kvt_async.contract.load import known_secrets
from kvt_async.contract.settings import Settings
from kvt_async.contract.vocabulary import Unit
from kvt_async.engine.request.kv_body import TRUNCATE
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Level, Run
from kvt_async.ways.launch_guard import SECRETS_VARIABLE
from kvt_async.ways.levels import FULL, label

RESTARTS = 2  # of a server that dies under a level
POLL_S = 0.25
LEAVING_S = 3.0  # a port may be held that long by a server that is going
TAIL_LINES = 12
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.]*)\}")


def command_of(settings: Settings, level: Level) -> list[str]:
    """The words to run. Raises ConfigError naming a placeholder that has no value at this level."""
    values = _values(settings, level)
    return [_fill(word, values, "kv.apply.command", level) for word in shlex.split(settings.kv.apply.command or "")]


def with_port(settings: Settings) -> Settings:
    """The settings with a free port where engine.base_url names port 0, for the launched servers to listen on."""
    parts = urlsplit(settings.engine.base_url)
    if settings.kv.apply.via != "launch" or parts.port != 0:
        return settings
    with socket.socket() as one:
        one.bind((parts.hostname or "127.0.0.1", 0))
        port = one.getsockname()[1]
    url = parts._replace(netloc=parts.netloc.removesuffix(":0") + f":{port}").geturl()
    return settings.model_copy(update={"engine": settings.engine.model_copy(update={"base_url": url})})


def environment_of(settings: Settings, level: Level) -> dict[str, str]:
    """kv.apply.env at a level. Raises ConfigError as `command_of` does."""
    values = _values(settings, level)
    return {key: _fill(text, values, f"kv.apply.env.{key}", level) for key, text in settings.kv.apply.env.items()}


def health_of(settings: Settings, level: Level) -> str:
    """The URL that answers once the level's server is ready. Raises ConfigError as `command_of` does."""
    text = settings.kv.apply.health_url or "{base_url}/models"
    return _fill(text, _values(settings, level), "kv.apply.health_url", level)


def groups(settings: Settings, runs: Sequence[Run]) -> list[list[Run]]:
    """Consecutive runs that one server can serve."""
    found: list[list[Run]] = []
    for run in runs:
        if found and _launch_of(settings, found[-1][0].level) == _launch_of(settings, run.level):
            found[-1].append(run)
        else:
            found.append([run])
    return found


def check(settings: Settings, level: Level) -> None:
    """Raises ConfigError for a template that can't be filled at this level."""
    _launch_of(settings, level)


def _launch_of(settings: Settings, level: Level) -> tuple[list[str], dict[str, str], str]:
    return command_of(settings, level), environment_of(settings, level), health_of(settings, level)


@dataclass(frozen=True, slots=True)
class Launched:
    """A server that runs. `process` is its keeper, which ends when it does, with its exit code."""

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
) -> AsyncIterator[Launched]:
    """The level's server while the block runs.

    Raises ServerError when it ends or isn't ready in time, ConfigError where something else answers at its address.
    """
    apply = settings.kv.apply
    health, env = health_of(settings, level), {**os.environ, **environment_of(settings, level)}
    if secrets := known_secrets(settings):
        env[SECRETS_VARIABLE] = orjson.dumps(secrets.values).decode()  # for the keeper alone, which takes it out
    await _nobody_there(level)
    log = log_file(folder, level)
    keeper = [sys.executable, "-m", "kvt_async.ways.launch_guard", str(os.getpid()), str(apply.grace_s)]
    with append_to(log) as out:
        out.write(f"--- launched by kvt at {utc_now()} for {label(level)}\n".encode())
        out.flush()
        began_at = out.tell()
        process = await asyncio.create_subprocess_exec(
            *keeper, *command_of(settings, level), stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, env=env,
            start_new_session=True,
        )  # fmt: skip
    server = Launched(process, log, began_at)
    try:
        began = time.monotonic()
        await _ready(settings, server, health)
        say(f"{label(level)}: server ready after {time.monotonic() - began:.1f} s (log: {log})")
        yield server
    finally:
        await _stop(process, apply.grace_s)


async def _nobody_there(level: Level) -> None:
    """A server left over from somewhere would answer in the launched one's place. Raises ConfigError."""
    parts = urlsplit(level.endpoints[0])
    port = parts.port or (443 if parts.scheme == "https" else 80)
    until = time.monotonic() + LEAVING_S
    while True:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(parts.hostname, port), 1.0)
        except (OSError, TimeoutError):
            return
        writer.close()
        if time.monotonic() > until:
            raise ConfigError(
                "something listens there already; a server launched beside it would not be the one that answers",
                where=f"{parts.hostname}:{port}",
                do="Stop it, give another port in engine.base_url, or port 0 to have a free one chosen.",
            )
        await asyncio.sleep(POLL_S)


async def _ready(settings: Settings, server: Launched, health: str) -> None:
    until = time.monotonic() + settings.kv.apply.ready_timeout_s
    process, log = server.process, server.log
    async with Sender(settings) as sender:
        while True:
            if process.returncode is not None:
                raise ServerError(
                    f"the launched server ended with exit code {process.returncode} before it was ready",
                    where=str(log), details=_tail(server), do="Correct kv.apply.command; the log says more.",
                )  # fmt: skip
            try:
                await sender.get_text(health, timeout_s=2.0)
                return
            except ServerError as error:
                if time.monotonic() > until:
                    raise ServerError(
                        f"the launched server was not ready in {settings.kv.apply.ready_timeout_s:g} s: {error.what}",
                        where=health, details=_tail(server), do="Raise kv.apply.ready_timeout_s or look at its log.",
                    ) from None  # fmt: skip
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), POLL_S)


async def _stop(process: asyncio.subprocess.Process, grace_s: float) -> None:
    if process.returncode is not None:
        return
    process.terminate()  # the keeper ends the whole group
    try:
        await asyncio.wait_for(asyncio.shield(process.wait()), grace_s + 5)
    except TimeoutError:
        process.kill()
        await process.wait()


def _values(settings: Settings, level: Level) -> dict[str, Any]:
    base = level.endpoints[0]
    parts = urlsplit(base)
    whole = level.is_full or level.policy == TRUNCATE  # a cut prompt is served at full cache
    removed = 0.0 if whole else float(f"{1 - level.budget:.12g}")
    return {
        "policy": FULL if whole else level.policy,
        "budget": 1.0 if whole else level.budget,
        "compression_ratio": removed if whole or level.unit == Unit.FRACTION else None,
        "keep_tokens": int(level.budget) if level.unit == Unit.TOKENS and not whole else None,
        "mode": level.mode,
        "model": settings.model.name,
        "base_url": base,
        "host": parts.hostname,
        "port": parts.port or (443 if parts.scheme == "https" else 80),
        **{f"params.{key}": value for key, value in level.params.items()},
    }


def _fill(text: str, values: Mapping[str, Any], where: str, level: Level) -> str:
    def one(match: re.Match[str]) -> str:
        value = values.get(match.group(1))
        if value is None:
            raise ConfigError(
                f"{{{match.group(1)}}} has no value at level {label(level)}",
                where=where,
                do="Known here: "
                + ", ".join(f"{{{name}}}" for name, known in values.items() if known is not None)
                + ".",
            )
        return str(value)

    return _PLACEHOLDER.sub(one, text)


def log_file(folder: Path, level: Level) -> Path:
    """Where the output of the level's server goes."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / (re.sub(r"[^A-Za-z0-9.]+", "-", label(level)).strip("-") + ".log")


def _tail(server: Launched) -> tuple[str, ...]:
    with contextlib.suppress(OSError):
        return tuple(server.output().splitlines()[-TAIL_LINES:])
    return ()

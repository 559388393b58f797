"""What tests of the engine send, and with which settings."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from kvt_async.contract.settings import Settings
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Attempt, Json, Outcome, Request
from tests.servers.fault_server import FaultServer, Step

PATH = "/chat/completions"
TRANSPORT = "aiohttp"  # that settings_for chooses: see the fixture every_transport


def settings_for(base_url: str, limits: Json | None = None, **engine: Any) -> Settings:
    """No retries and no key unless asked for: the variable it names does not exist."""
    limits = {"retry": {"max_attempts": 1, "initial_s": 0.01}} | (limits or {})
    return Settings.model_validate(
        {
            "engine": {"base_url": base_url, "api_key_env": "KVT_TEST_NO_SUCH_KEY", "transport": TRANSPORT} | engine,
            "limits": limits,
        }
    )


def request_to(*base_urls: str, number: int = 0, body: bytes = b'{"stream":true}', **fields: Any) -> Request:
    given: Json = {
        "request_id": f"run:{number}",
        "run_id": "run",
        "example_id": f"e{number}",
        "endpoints": base_urls,
        "path": PATH,
        "body": body,
        "stream": True,
        "prompt_tokens": 10,
        "max_tokens": 20,
    }
    return Request(**(given | fields))


async def until(true: Callable[[], object]) -> None:
    """Return as soon as `true()` is; raises TimeoutError after 10 s."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for is plain state of a server or a Sender
            await asyncio.sleep(0.002)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Recorder:
    """Collects what a Sender hands to `record`."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    async def __call__(self, request: Request, attempt: Attempt) -> None:
        self.attempts.append(attempt)


@asynccontextmanager
async def against(*steps: Step, limits: Json | None = None, **engine: Any) -> AsyncIterator[tuple[FaultServer, Sender]]:
    """A fault server with these steps, and a Sender that talks to it."""
    async with FaultServer(*steps) as server, Sender(settings_for(server.base_url, limits, **engine)) as sender:
        yield server, sender


async def try_once(*steps: Step, **engine: Any) -> Attempt:
    """The one attempt of one request."""
    async with against(*steps, **engine) as (server, sender):
        return await sender.probe(server.base_url, PATH, b'{"stream":true}')


async def send_one(sender: Sender, server: FaultServer, recorder: Recorder | None = None, **fields: Any) -> Outcome:
    return await sender.send(request_to(server.base_url, **fields), recorder or Recorder())

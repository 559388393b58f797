"""What tests of the engine send, and to whom."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kvt_async.engine.send.sender import Sender
from kvt_async.records import Attempt, Json, Outcome, Request
from tests.servers.fault_server import FaultServer, Step
from tests.worlds import engine_settings

PATH = "/chat/completions"


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


class Recorder:
    """Collects what a Sender hands to `record`."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    async def __call__(self, request: Request, attempt: Attempt) -> None:
        self.attempts.append(attempt)


@asynccontextmanager
async def against(*steps: Step, limits: Json | None = None, **engine: Any) -> AsyncIterator[tuple[FaultServer, Sender]]:
    """A fault server with these steps, and a Sender that talks to it."""
    async with FaultServer(*steps) as server, Sender(engine_settings(server.base_url, limits, **engine)) as sender:
        yield server, sender


async def try_once(*steps: Step, **engine: Any) -> Attempt:
    """The one attempt of one request."""
    async with against(*steps, **engine) as (server, sender):
        return await sender.probe(server.base_url, PATH, b'{"stream":true}')


async def send_one(sender: Sender, server: FaultServer, recorder: Recorder | None = None, **fields: Any) -> Outcome:
    return await sender.send(request_to(server.base_url, **fields), recorder or Recorder())

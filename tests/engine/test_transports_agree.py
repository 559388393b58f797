"""Whatever a server does, both transports say the same of it: a seeded fuzzer over real sockets."""

import os
import random
from itertools import pairwise

import pytest
from pydantic import ValidationError

from kvt_async.engine.send.sender import Sender
from kvt_async.engine.transport import aiohttp_stamps, lean_connection
from kvt_async.records import Attempt
from tests.engine.sending import PATH
from tests.servers.fault_server import FaultServer, Step, chunk, delta, event, head, raw, reply
from tests.worlds import engine_settings

BATCH = 1_000  # cases a server: its log of what it saw stays short
PARTS = [
    reply("Par", "is é", "\u2028!"),
    reply("a", finish=None, done=False),
    reply(*["word "] * 40),
    event(delta("a")),
    event(delta(reasoning_content="hm")),
    event({"error": {"message": "out of memory"}}),
    event("{not json"),
    event("[DONE]"),
    b": ping\n\n",
    b"event: error\ndata: overloaded\n\n",
]


def any_step(rng: random.Random) -> Step:
    """A reply in one of the three framings, whole or broken off somewhere, in pieces of any size."""
    body = b"".join(rng.choices(PARTS, k=rng.randrange(1, 4)))
    framing = rng.choice(("chunked", "counted", "close"))
    status = rng.choice((200, 200, 200, 200, 429, 500))
    content_type = rng.choice(("text/event-stream", "text/event-stream", "application/json", "text/html", None))
    if framing == "counted":
        data = head(status, content_type, length=len(body)) + body
    elif framing == "close":
        data = head(status, content_type) + body
    else:
        at = sorted(rng.randrange(len(body)) for _ in range(rng.randrange(4)))
        edges = [0, *at, len(body)]
        parts = [body[a:b] for a, b in pairwise(edges) if b > a]
        data = head(status, content_type, chunked=True) + b"".join(map(chunk, parts)) + chunk(b"")
    if rng.random() < 0.2:
        data = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + data
    if rng.random() < 0.4:
        data = data[: rng.randrange(len(data))]
    small = 7 if len(data) < 1_000 else 70  # a write is a turn of the loop
    return raw(data, then="close", every=rng.choice((None, None, small, 100)))


def told(attempt: Attempt) -> tuple[object, ...]:
    """All of an attempt that doesn't depend on time or on how its reads fell."""
    text = attempt.reply.text if attempt.reply else attempt.partial_text
    marks = attempt.marks
    happened = tuple(getattr(marks, name) is not None for name in ("start_ns", "first_byte_ns", "first_content_ns"))
    return attempt.end_state, attempt.error_type, attempt.http_status, text, marks.n_text_chunks, happened


async def test_a_seeded_fuzzer_finds_no_reply_on_which_the_transports_differ() -> None:
    n_cases = int(os.environ.get("KVT_SOCKET_CASES", "120"))
    for seed, at in enumerate(range(0, n_cases, BATCH)):
        await compare(seed, min(BATCH, n_cases - at))


async def compare(seed: int, n_cases: int) -> None:
    """The same replies to both transports, each from a server of its own."""
    rng = random.Random(1337 + seed)
    steps = [any_step(rng) for _ in range(n_cases)]
    attempts: dict[str, list[Attempt]] = {}
    with pytest.MonkeyPatch.context() as patch:
        for module in (
            aiohttp_stamps,
            lean_connection,
        ):  # a busy machine that stops for a second is no server that does
            patch.setattr(module, "LINGER_S", 60.0)
        for transport in ("aiohttp", "lean"):
            settings = engine_settings("http://127.0.0.1/v1", transport=transport)
            async with FaultServer(*steps) as server, Sender(settings) as sender:
                attempts[transport] = [await sender.probe(server.base_url, PATH, b"{}") for _ in steps]
    for nth, (one, other) in enumerate(zip(attempts["aiohttp"], attempts["lean"], strict=True)):
        assert told(one) == told(other), (seed, nth, one.error_message, other.error_message)


@pytest.mark.parametrize("transport", ["aiohttp", "lean"])
def test_a_header_that_would_change_the_framing_is_no_valid_setting(transport: str) -> None:
    with pytest.raises(ValidationError, match="Content-Length is set by kvt itself"):
        engine_settings("http://127.0.0.1:1/v1", transport=transport, headers={"Content-Length": "7"})

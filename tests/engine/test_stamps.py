"""Arrivals are stamped where the bytes are, and by the kernel where it can be had: not when a coroutine wakes."""

import asyncio
import sys
import time
from typing import Any

import pytest
import uvloop

from kvt_async.engine.send.sender import Sender
from kvt_async.records import Marks
from tests.engine.sending import PATH
from tests.servers.certificate import CERTIFICATE, served_with_tls
from tests.servers.fault_server import FaultServer, Seen, Wire, answer, chunk, delta, event, head
from tests.worlds import engine_settings

pytestmark = [
    pytest.mark.usefixtures("every_transport"),
    pytest.mark.skipif(sys.platform != "linux", reason="SO_TIMESTAMPNS is Linux's"),
]


async def told(wire: Wire, request: Seen) -> None:
    """A reply whose first text is the instant at which the server wrote it."""
    await wire.send(head(chunked=True) + chunk(event(delta("", role="assistant"))))
    await asyncio.sleep(0.1)
    await wire.send(chunk(event(delta(str(time.perf_counter_ns())))))
    await asyncio.sleep(0.05)
    await wire.send(chunk(event(delta(finish="stop")) + event("[DONE]")) + chunk(b""))


async def measured(*, block_s: float = 0.0, tls: bool = False) -> tuple[Marks, int]:
    """Marks of a reply from a server in another thread, while our loop is blocked for `block_s` at a time; and when, by
    the server's own watch, its text was written."""
    ready, stop = asyncio.Event(), asyncio.Event()
    box: dict[str, Any] = {}
    here = asyncio.get_running_loop()

    def elsewhere() -> None:
        async def serve() -> None:
            async with FaultServer(told, tls=served_with_tls() if tls else None) as server:
                box["server"], box["loop"], box["stop"] = server, asyncio.get_running_loop(), asyncio.Event()
                here.call_soon_threadsafe(ready.set)
                await box["stop"].wait()

        asyncio.run(serve())

    thread = asyncio.create_task(asyncio.to_thread(elsewhere))
    await ready.wait()
    server: FaultServer = box["server"]

    async def block() -> None:
        while not stop.is_set():
            await asyncio.sleep(0.001)
            time.sleep(block_s)  # noqa: ASYNC251 - blocking the loop is the point

    ca_file = str(CERTIFICATE) if tls else None
    async with Sender(engine_settings(server.base_url, ca_file=ca_file)) as sender:
        await sender.probe(server.base_url, PATH, b"{}")  # connect before anything is blocked
        blocker = asyncio.create_task(block()) if block_s else None
        got = await sender.probe(server.base_url, PATH, b"{}")
        stop.set()
        if blocker:
            await blocker
    box["loop"].call_soon_threadsafe(box["stop"].set)
    await thread
    assert got.reply is not None
    assert got.marks.conn_reused == 1
    return got.marks, int(got.reply.text)


@pytest.mark.parametrize("tls", [False, True])
async def test_the_kernels_stamp_stands_beside_ours_and_is_no_later(tls: bool) -> None:
    marks, _ = await measured(tls=tls)
    assert marks.stamp_source == "kernel"
    for ours, kernels in (
        (marks.first_byte_ns, marks.first_byte_kernel_ns),
        (marks.first_content_ns, marks.first_text_kernel_ns),
    ):
        assert ours is not None
        assert kernels is not None
        assert 0 <= ours - kernels < 20_000_000


async def test_a_blocked_loop_delays_our_stamp_and_not_the_kernels() -> None:
    ours, kernels = [], []
    for _ in range(4):  # a block may end just when the text comes, and a busy machine may hold the server up
        marks, truth_ns = await measured(block_s=0.04)
        assert marks.first_text_kernel_ns is not None
        assert marks.first_content_ns is not None
        ours.append(marks.first_content_ns - truth_ns)
        kernels.append(marks.first_text_kernel_ns - truth_ns)
    assert min(kernels) >= 0
    assert min(kernels) < 2_000_000
    assert max(o - k for o, k in zip(ours, kernels, strict=True)) > 5_000_000


def test_where_the_loop_reads_by_itself_the_transport_stamps() -> None:
    async def main() -> Marks:
        async with FaultServer(answer("a")) as server, Sender(engine_settings(server.base_url)) as sender:
            return (await sender.probe(server.base_url, PATH, b"{}")).marks

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        marks = runner.run(main())
    assert (marks.stamp_source, marks.first_byte_kernel_ns, marks.first_text_kernel_ns) == ("transport", None, None)
    assert marks.first_byte_ns is not None

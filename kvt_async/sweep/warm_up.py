"""engine.warm_up: prefill. Every prompt is sent once, one token long, before the levels: all of them then meet the
server's prefix or prefill cache in one state, so that no level pays for being first."""

import asyncio
import time
from collections.abc import Sequence

import orjson

from kvt_async.clock import utc_now
from kvt_async.records import Json, Level, Payload
from kvt_async.session.session import ServerSession
from kvt_async.sweep.request_builder import RequestBuilder

CHUNK = 64
SAY_EVERY_S = 10


async def warm_up(server: ServerSession, builder: RequestBuilder, seqs: Sequence[int]) -> Json:
    """Send the prompts of `seqs` to every endpoint at its mildest level; failures are counted, never fatal. Return what
    came of it as a row of `probes`."""
    settings = builder.settings
    concurrency = settings.limits.concurrency
    short = settings.model_copy(update={"decoding": settings.decoding.model_copy(update={"max_tokens": 1})})
    targets: dict[str, Level] = {}
    for level in sorted(server.levels, key=lambda level: not level.is_full):
        for url in level.endpoints:
            targets.setdefault(url, level)
    todo: asyncio.Queue[tuple[str, Payload] | None] = asyncio.Queue(maxsize=concurrency)
    sent = failed = 0
    began = last = time.monotonic()

    async def feed() -> None:
        for at in range(0, len(seqs), CHUNK):
            entries = await asyncio.to_thread(server.reader.entries, builder.dataset_id, seqs[at : at + CHUNK])
            for url, level in targets.items():
                for entry in entries.values():
                    if server.interrupts.stop.is_set():
                        break
                    await todo.put((url, builder.payload(entry, level, short)))
        for _ in range(concurrency):
            await todo.put(None)

    async def work() -> None:
        nonlocal sent, failed, last
        while (item := await todo.get()) is not None:
            url, payload = item
            attempt = await server.sender.probe(url, payload.path, payload.body, payload.headers)
            sent += 1
            failed += attempt.reply is None
            if time.monotonic() - last > SAY_EVERY_S:
                last = time.monotonic()
                server.say(f"warm-up: {sent}/{len(seqs) * len(targets)} prompts, {failed} failed")

    async with asyncio.TaskGroup() as group:
        group.create_task(feed(), name="warm-up-feed")
        for n in range(concurrency):
            group.create_task(work(), name=f"warm-up-{n}")
    took = time.monotonic() - began
    server.say(f"warm-up: {sent} prompts prefilled in {took:.1f} s" + (f", {failed} failed" if failed else ""))
    detail = {"sent": sent, "failed": failed, "elapsed_s": took, "endpoints": len(targets)}
    return {
        "session_id": server.session_id,
        "kind": "warm_up",
        "level": ", ".join(sorted({level.label for level in targets.values()})),
        "prompt_sha256": "",
        "detail_json": orjson.dumps(detail).decode(),
        "created_at": utc_now(),
    }

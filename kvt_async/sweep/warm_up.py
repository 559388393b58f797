"""engine.warm_up: prefill. Every prompt is sent once, one token long, before the levels: all of them then meet the
server's prefix or prefill cache in one state, so that no level pays for being first."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.settings import Settings
from kvt_async.engine.request.chat_body import PATHS
from kvt_async.records import Attempt, Level
from kvt_async.store.reader import Reader
from kvt_async.store.writer import Writer
from kvt_async.sweep.request_builder import Builder
from kvt_async.ways.levels import label

CHUNK = 64
Probe = Callable[[str, str, bytes], Awaitable[Attempt]]


async def warm_up(
    settings: Settings, levels: Sequence[Level], seqs: Sequence[int], dataset_id: str, builder: Builder, reader: Reader,
    probe: Probe, store: Writer, session_id: str, stop: asyncio.Event, say: Callable[[str], None],
) -> None:  # fmt: skip
    """Send the prompts of `seqs` to every endpoint at its mildest level; failures are counted, never fatal."""
    decoding = settings.decoding.model_copy(update={"max_tokens": 1})
    short = settings.model_copy(update={"decoding": decoding})
    path, began = PATHS[settings.prompt.endpoint], time.monotonic()
    targets: dict[str, Level] = {}
    for level in sorted(levels, key=lambda level: not level.is_full):
        for url in level.endpoints:
            targets.setdefault(url, level)
    todo: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue(maxsize=settings.limits.concurrency)
    sent = failed = 0
    last = began

    async def feed() -> None:
        for at in range(0, len(seqs), CHUNK):
            entries = await asyncio.to_thread(reader.entries, dataset_id, seqs[at : at + CHUNK])
            for url, level in targets.items():
                for entry in entries.values():
                    if stop.is_set():
                        break
                    await todo.put((url, builder.body(entry, level, short)))
        for _ in range(settings.limits.concurrency):
            await todo.put(None)

    async def work() -> None:
        nonlocal sent, failed, last
        while (item := await todo.get()) is not None:
            attempt = await probe(item[0], path, item[1])
            sent += 1
            failed += attempt.reply is None
            if time.monotonic() - last > 10:
                last = time.monotonic()
                say(f"warm-up: {sent}/{len(seqs) * len(targets)} prompts, {failed} failed")

    async with asyncio.TaskGroup() as group:
        group.create_task(feed(), name="warm-up-feed")
        for n in range(settings.limits.concurrency):
            group.create_task(work(), name=f"warm-up-{n}")
    took = time.monotonic() - began
    say(f"warm-up: {sent} prompts prefilled in {took:.1f} s" + (f", {failed} failed" if failed else ""))
    await store.insert(
        "probes",
        {
            "session_id": session_id,
            "kind": "warm_up",
            "level": ", ".join(sorted({label(level) for level in targets.values()})),
            "prompt_sha256": "",
            "detail_json": orjson.dumps(
                {"sent": sent, "failed": failed, "elapsed_s": took, "endpoints": len(targets)}
            ).decode(),
            "created_at": utc_now(),
        },
    )

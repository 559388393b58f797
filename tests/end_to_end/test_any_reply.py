"""Whatever a server sends, a reply fails itself alone: fuzzed replies, pages and headers through the real client, the
store, score, analyze and report. `make test-fuzz` sends a million."""

import asyncio
import os
import random
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from analyzer.stages import every_stage, score_stage
from kvt_async.contract.errors import ContradictedError, KvtError
from kvt_async.sweep.sweep import SweepOptions, run
from tests.servers.fault_server import FaultServer, Seen, Wire
from tests.servers.odd_replies import any_page, any_reply
from tests.worlds import check_invariants, db_of, query, states, sweep_settings

CASES = int(os.environ.get("KVT_FUZZ_CASES", "600"))
BATCH = 6_000  # requests of a sweep
BUDGETS = 3


def any_server(rng: random.Random, odd_pages: float) -> Callable[[Wire, Seen], Awaitable[None]]:
    async def step(wire: Wire, request: Seen) -> None:
        if request.method == "GET":
            await wire.send(any_page(rng, request.path, odd_pages))
            return
        data, closes = any_reply(rng)
        await wire.send(data)
        if closes:
            wire.close()

    return step


async def sweep_under_fire(folder: Path, seed: int, n: int, transport: str, *overrides: str) -> Counter[str]:
    """`n` examples at BUDGETS levels, each reply odd; odd pages are asked for first, and may refuse the start."""
    rng = random.Random(seed)
    async with FaultServer(any_server(rng, 0.0)) as server:
        settings = sweep_settings(
            folder, server.base_url, "model.name=m", "kv.apply.via=none", "kv.control_repeats=0",
            "limits.concurrency=16",
            "limits.retry={max_attempts: 2, initial_s: 0.001, max_elapsed_s: 0.2}", "engine.timeouts.ttfb_s=5",
            "engine.timeouts.idle_s=5", "analysis={charts: false, resamples: 100, allow_drift: true}",
            f"engine.transport={transport}", *overrides, n=n,
        )  # fmt: skip
        report = None
        for again in range(20):
            server.steps = [any_server(rng, 0.1 if again < 3 else 0.0)]
            with suppress(KvtError):  # the server is refused at the start, in words
                report = await run(settings, options=SweepOptions(quiet=True, force=True))
            if report is None:
                continue
            assert report.responses + report.failures + report.pending == report.planned == n * BUDGETS
            if not report.pending:
                break
    assert report is not None
    await asyncio.to_thread(score_stage, settings)
    with suppress(ContradictedError):  # odd evidence may say another budget
        await asyncio.to_thread(every_stage, settings, partial=True)
    check_invariants(settings)
    assert not list(db_of(settings).parent.glob("bug-*.txt")), [
        p.read_text() for p in db_of(settings).parent.glob("bug-*")
    ]
    stored = Counter(states(settings))
    stored["tries"] = query(settings, "SELECT count(*) FROM attempts")[0][0]
    requests = query(settings, "SELECT count(*) FROM requests")[0][0]
    assert stored["response"] + stored["failure"] + stored["pending"] == requests
    return stored


@pytest.mark.parametrize("transport", ["aiohttp", "lean"])
async def test_every_reply_of_a_hostile_server_is_an_answer_or_a_failure_of_its_own(
    tmp_path: Path, transport: str, capsys: pytest.CaptureFixture[str]
) -> None:
    share = CASES // 2  # of the two transports
    stored = Counter[str]()
    for seed, at in enumerate(range(0, share, BATCH)):
        n = max(1, min(BATCH, share - at) // BUDGETS)
        evidence = ("kv.evidence.usage=kv.kept_fraction",) if seed % 2 else ()
        folder = tmp_path / str(seed)
        folder.mkdir()
        stored += await sweep_under_fire(folder, 7_000 * seed + len(transport), n, transport, *evidence)
        shutil.rmtree(folder)
        if CASES > BATCH:  # a long run: who waits for it is told how far it is
            with capsys.disabled():
                print(f"{transport}: {at + n * BUDGETS:,} of {share:,} cases, {dict(stored)}", flush=True)

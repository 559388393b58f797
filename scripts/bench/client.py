"""kvt's Sender over both transports beside a bare aiohttp client and a raw protocol, in one run: only ratios count.

    python scripts/bench/client.py [--runs 5] [--seconds 1] [--loop uvloop|asyncio|both] [--only WORDS] [--profile lean]

bare: aiohttp's session.post and iter_any, every event found, none read, no text kept. bare+json: the same with orjson
per event. raw: asyncio.Protocol, events found. aiohttp, lean: Sender.send over that transport, with all marks, text,
chunk times and usage, as the runner calls it. The client is pinned to one core, the server (server.c) to the other.
"""

import argparse
import asyncio
import gc
import statistics
import time
from dataclasses import dataclass
from typing import Any

from _clients import Send, clients, loops
from _server import prompt, serving

NAMES = ["raw", "bare", "bare+json", "aiohttp", "lean"]


@dataclass(frozen=True)
class Case:
    name: str
    concurrency: int
    tokens: int
    prompt_bytes: int = 20
    paced: bool = False  # one reply a stream, a token every 20 ms, instead of as many as fit into the time


CASES = [
    Case("1 token, 64 in flight", 64, 1),
    Case("150 KB prompts, 32 in flight", 32, 16, 150_000),
    Case("256 tokens unpaced, 64 in flight", 64, 256),
    Case("1,000 streams x 50 tokens/s", 1000, 150, paced=True),
]
Run = tuple[float, float, float]
"""requests/s, tokens/s, CPU us per request (per token where there are many)"""


async def measure(send: Send, url: str, case: Case, seconds: float) -> Run:
    body = prompt(case.tokens, case.prompt_bytes)
    requests = tokens = 0
    until = time.perf_counter() + (0 if case.paced else seconds)

    async def worker() -> None:
        nonlocal requests, tokens
        while True:
            seen = await send(url, body)
            tokens += seen
            requests += 1
            if time.perf_counter() >= until:
                return

    gc.collect()
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(case.concurrency)))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return requests / took, tokens / took, 1e6 * cpu / (tokens if case.tokens > 16 else requests)


async def compare(url: str, case: Case, runs: int, seconds: float) -> dict[str, list[Run]]:
    names = [name for name in NAMES if not (case.paced and name == "bare+json")]
    got: dict[str, list[Run]] = {name: [] for name in names}
    for _ in range(runs):
        for name in names:
            async with clients(url, [name]) as every:
                send = every[name]
                if not case.paced:
                    await measure(send, url, case, 0.1)
                got[name].append(await measure(send, url, case, seconds))
    return got


def show(case: Case, loop: str, got: dict[str, list[Run]]) -> None:
    print(f"{case.name}, {loop}")
    for name, rows in got.items():
        rate, tokens, us = (statistics.median(row[k] for row in rows) for k in range(3))
        low, high = min(row[0] for row in rows), max(row[0] for row in rows)
        k = 2 if case.paced else 0
        ratios = sorted(row[k] / base[k] for row, base in zip(rows, got["bare"], strict=True))
        print(
            f"  {name:10} {rate:9,.0f} requests/s ({low:,.0f} to {high:,.0f}) {tokens:11,.0f} tokens/s "
            f"{us:8.2f} us CPU per {'token' if case.tokens > 16 else 'request'}  "
            f"{statistics.median(ratios):5.2f} x bare ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )


async def profile(url: str, case: Case, name: str, seconds: float) -> None:
    import cProfile
    import pstats

    async with clients(url, [name]) as every:
        send = every[name]
        await send(url, prompt(1))
        watch = cProfile.Profile()
        with watch:
            rate, _, _ = await measure(send, url, case, seconds)
        print(f"{case.name}: {rate:,.0f} requests/s under the profiler")
        pstats.Stats(watch).sort_stats("tottime").print_stats(25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--loop", choices=["uvloop", "asyncio", "both"], default="uvloop")
    parser.add_argument("--only", help="cases whose name holds this")
    parser.add_argument("--profile", choices=NAMES, help="where this client's time goes, instead of a comparison")
    args = parser.parse_args()
    for case in CASES:
        if args.only and args.only not in case.name:
            continue
        pace = ("--ttft-ms", "200", "--itl-ms", "20") if case.paced else ()
        with serving(*pace) as url:
            for loop, factory in loops(args.loop):
                with asyncio.Runner(loop_factory=factory) as runner:
                    work: Any = (
                        profile(url, case, args.profile, args.seconds)
                        if args.profile
                        else compare(url, case, args.runs, args.seconds)
                    )
                    got = runner.run(work)
                if got is not None:
                    show(case, loop, got)


if __name__ == "__main__":
    main()

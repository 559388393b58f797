"""kvt's Sender beside a bare aiohttp client, in one run against one null server: only the ratios mean anything.

    python scripts/bench/client.py [--runs 5] [--seconds 2] [--loop uvloop|asyncio] [--profile]

bare: session.post and iter_any, no JSON, no text kept. bare+json: the same with orjson per event. kvt: Sender.send, all
marks, text, chunk times and usage, as the runner calls it. The client is pinned to one core, the server to the other.
"""

import argparse
import asyncio
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import orjson

from kvt_async.contract.settings import Settings
from kvt_async.engine.sender import Sender
from kvt_async.records import Attempt, Request

CASES = {
    "1 token, 64 in flight": (64, 1, 0),
    "256 tokens, 64 in flight": (64, 256, 0),
    "150 KB prompt, 32": (32, 16, 150_000),
}
Send = Callable[[str, bytes], Awaitable[int]]  # (base URL, body) -> tokens seen


def bare(session: aiohttp.ClientSession, *, with_json: bool) -> Send:
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}

    async def send(url: str, body: bytes) -> int:
        tokens, rest = 0, b""
        async with session.post(f"{url}/chat/completions", data=body, headers=headers) as reply:
            async for read in reply.content.iter_any():
                if not with_json:
                    tokens += read.count(b'"content": " word"')
                    continue
                *events, rest = (rest + read).split(b"\n\n")
                for event in events:
                    if event != b"data: [DONE]":
                        choices = orjson.loads(event[6:])["choices"]
                        tokens += bool(choices and choices[0]["delta"].get("content"))
        return tokens

    return send


def kvt(sender: Sender) -> Send:
    async def record(request: Request, attempt: Attempt) -> None:
        raise RuntimeError(f"a null server never fails: {attempt.error_message}")

    async def send(url: str, body: bytes) -> int:
        request = Request("r", "run", "e", (url,), "/chat/completions", body, True, 10, 256, expects={"requested": 1.0})
        outcome = await sender.send(request, record)
        assert outcome.last is not None, "not sent"
        assert outcome.last.reply is not None, outcome.last.error_message
        return outcome.last.marks.n_text_chunks or 0

    return send


async def measure(send: Send, url: str, body: bytes, concurrency: int, seconds: float) -> tuple[float, float, float]:
    """Closed loop. (requests/s, tokens/s, CPU seconds per wall second)"""
    requests = tokens = 0
    until = time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal requests, tokens
        while time.perf_counter() < until:
            seen = await send(url, body)
            tokens += seen
            requests += 1

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    took = time.perf_counter() - began
    return requests / took, tokens / took, (time.process_time() - cpu) / took


async def compare(url: str, runs: int, seconds: float, only: str | None) -> None:
    settings = Settings.model_validate({"engine": {"base_url": url}, "limits": {"concurrency": 64}})
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, Sender(settings) as sender:
        clients = {
            "bare": bare(session, with_json=False),
            "bare+json": bare(session, with_json=True),
            "kvt": kvt(sender),
        }
        for name, (concurrency, tokens, size) in CASES.items():
            if only and only not in name:
                continue
            body = orjson.dumps({"prompt": "x" * size, "max_tokens": tokens, "stream": True})
            body = body.replace(b'"max_tokens":', b'"max_tokens": ')
            got: dict[str, list[tuple[float, float, float]]] = {client: [] for client in clients}
            gc.collect()
            gc.freeze()  # as the runner does; for every client alike
            for _ in range(runs):
                for client, send in clients.items():
                    got[client].append(await measure(send, url, body, concurrency, seconds))
            print(name)
            middle = {c: [statistics.median(run[k] for run in rows) for k in range(3)] for c, rows in got.items()}
            for client, (rate, token_rate, cpu) in middle.items():
                ratio = rate / middle["bare"][0]
                us = 1e6 * cpu / (token_rate if tokens > 1 else rate)
                spread = [min(r[0] for r in got[client]), max(r[0] for r in got[client])]
                print(
                    f"  {client:10} {rate:9,.0f} requests/s ({spread[0]:,.0f} to {spread[1]:,.0f}) "
                    f"{token_rate:11,.0f} tokens/s  {ratio:5.2f} x bare  "
                    f"{us:7.2f} us CPU per {'token' if tokens > 1 else 'request'}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    parser.add_argument("--only", help="cases whose name holds this")
    parser.add_argument("--profile", action="store_true", help="where kvt's own time goes, instead of a comparison")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, str(Path(__file__).with_name("null_server.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
            if len(cores) > 1:
                os.sched_setaffinity(server.pid, {cores[0]})
                os.sched_setaffinity(0, {cores[-1]})
            factory = None
            if args.loop == "uvloop":
                import uvloop

                factory = uvloop.new_event_loop
            with asyncio.Runner(loop_factory=factory) as runner:
                if args.profile:
                    runner.run(profile(url, args.seconds, args.only))
                else:
                    runner.run(compare(url, args.runs, args.seconds, args.only))
        finally:
            server.terminate()


async def profile(url: str, seconds: float, only: str | None) -> None:
    import cProfile
    import pstats

    settings = Settings.model_validate({"engine": {"base_url": url}, "limits": {"concurrency": 64}})
    async with Sender(settings) as sender:
        for name, (concurrency, tokens, size) in CASES.items():
            if only and only not in name:
                continue
            body = orjson.dumps({"prompt": "x" * size, "max_tokens": tokens, "stream": True})
            watch = cProfile.Profile()
            with watch:
                rate, _, _ = await measure(kvt(sender), url, body, concurrency, seconds)
            print(f"{name}: {rate:,.0f} requests/s under the profiler")
            pstats.Stats(watch).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()

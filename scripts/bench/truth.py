"""How true are the marks? Streams started together against a server that says when it wrote their first token.

    python scripts/bench/truth.py [--streams 64 256 1000] [--transport lean aiohttp] [--loop both] [--runs 5]
    python scripts/bench/truth.py --loop asyncio --block-ms 30 --itl-ms 50       the loop blocked on purpose

server.c paces: first token 200 ms after the whole request was here, then one every 20 ms. TTFT is what kvt would
store; server: the same from the server's own clock readings; late: our stamp of the first text minus its write (both
CLOCK_MONOTONIC), so it holds the network's way and everything the client adds. waited: from `scheduled` to the first
byte written, which is the client's and never inside TTFT. held: tokens/s that arrived, of those offered.
"""

import argparse
import asyncio
import resource
import statistics
import time
from dataclasses import dataclass
from itertools import pairwise

from _clients import loops, settings_of
from _server import prompt, serving

from kvt_async.contract.formulas.chunk_encoding import decode_chunks
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Attempt, Marks, Request
from kvt_async.session.client_health import Health

TTFT_MS = 200


@dataclass(frozen=True)
class Seen:
    """One run's figures; milliseconds but for `held`."""

    ttft: tuple[float, float]
    server: tuple[float, float]
    late: tuple[float, float]
    waited: tuple[float, float]
    held: float
    covered: float  # share of requests whose stored stamp is no earlier than the truth
    verdict: str


def quantiles(values: list[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def stamp_of(marks: Marks) -> int:
    """The best stamp of the first text that is stored."""
    found = marks.first_text_kernel_ns or marks.first_content_ns
    assert found is not None
    return found


async def together(url: str, transport: str, streams: int, asked: argparse.Namespace) -> Seen:
    tokens, block_ms = asked.tokens, asked.block_ms
    body, health = prompt(tokens), Health()

    async def record(request: Request, attempt: Attempt) -> None:
        raise RuntimeError(f"this server never fails: {attempt.error_message}")

    async def one(sender: Sender, number: int) -> Attempt:
        request = Request(f"r:{number}", "r", "e", (url,), "/chat/completions", body, True, 10, tokens)
        outcome = await sender.send(request, record)
        assert outcome.last is not None, "not sent"
        assert outcome.last.reply is not None, outcome.last.error_message
        health.saw(outcome.last)
        return outcome.last

    async def block() -> None:
        while block_ms:
            await asyncio.sleep(block_ms / 1000)
            time.sleep(block_ms / 1000)  # noqa: ASYNC251 - blocking the loop is the point

    async with Sender(settings_of(url, transport)) as sender:
        health.start()
        helpers = [asyncio.create_task(health.watch()), asyncio.create_task(block())]
        attempts = await asyncio.gather(*(one(sender, number) for number in range(streams)))
        for helper in helpers:
            helper.cancel()
        health.stop()
    return figures(attempts, health, asked.itl_ms)


def figures(attempts: list[Attempt], health: Health, itl_ms: float) -> Seen:
    ttft, server, late, waited, rates = [], [], [], [], []
    for attempt in attempts:
        marks, reply = attempt.marks, attempt.reply
        assert reply is not None
        truth = {k: int(v) for k, v in (pair.split("=") for pair in reply.text.split(" word")[0].split())}
        assert marks.start_ns is not None
        assert marks.scheduled_ns is not None
        ttft.append((stamp_of(marks) - marks.start_ns) / 1e6)
        server.append((truth["t"] - truth["recv"]) / 1e6)
        late.append((stamp_of(marks) - truth["t"]) / 1e6)
        waited.append((marks.start_ns - marks.scheduled_ns) / 1e6)
        chunks = decode_chunks(marks.chunks or b"")
        span_us = sum(b - a for (a, _), (b, _) in pairwise(chunks))
        rates.append((len(chunks) - 1) * itl_ms * 1000 / max(span_us, 1))
    row = health.row()
    return Seen(
        ttft=quantiles(ttft),
        server=quantiles(server),
        late=quantiles(late),
        waited=quantiles(waited),
        held=statistics.mean(rates),
        covered=sum(ms >= 0 for ms in late) / len(late),
        verdict=f"{row['verdict']} ({row['signal']})",
    )


def middle(pairs: list[tuple[float, float]]) -> str:
    """Medians over runs of p50 and p99, and the worst p99."""
    p50, p99 = (statistics.median(pair[k] for pair in pairs) for k in range(2))
    return f"{p50:7.2f} / {p99:7.2f} ({max(pair[1] for pair in pairs):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[64, 256, 1000])
    parser.add_argument("--transport", nargs="+", choices=["aiohttp", "lean"], default=["aiohttp", "lean"])
    parser.add_argument("--loop", choices=["uvloop", "asyncio", "both"], default="both")
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--itl-ms", type=float, default=20.0, help="the server's gap between tokens")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--block-ms", type=float, default=0.0)
    args = parser.parse_args()
    print("milliseconds: p50 / p99 (worst p99 of the runs); TTFT in truth: 200 and what `server` shows beyond it")
    with serving("--ttft-ms", str(TTFT_MS), "--itl-ms", str(args.itl_ms)) as url:
        for streams in args.streams:
            for loop, factory in loops(args.loop):
                for transport in args.transport:
                    seen = []
                    for _ in range(args.runs):
                        with asyncio.Runner(loop_factory=factory) as runner:
                            seen.append(runner.run(together(url, transport, streams, args)))
                    print(
                        f"{streams:5} {transport:8} {loop:8} TTFT {middle([s.ttft for s in seen])}  "
                        f"server {middle([s.server for s in seen])}  late {middle([s.late for s in seen])}  "
                        f"waited {middle([s.waited for s in seen])}  held {min(s.held for s in seen):.3f}  "
                        f"covered {min(s.covered for s in seen):.3f}  {seen[-1].verdict}",
                        flush=True,
                    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak RSS of the client, all of the above in one process: {peak:.0f} MB")


if __name__ == "__main__":
    main()

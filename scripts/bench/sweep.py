"""A whole sweep, everything stored, beside a bare aiohttp client that keeps nothing: requests/s, in one run.

    python scripts/bench/sweep.py [--runs 5] [--requests 3000] [--concurrency 8 64] [--tokens 1] [--prompt-words 20]

Both transports, on uvloop unless --loop truth. The client is pinned to one core (its writer thread too), the server to
the other. Only the ratios mean anything.
"""

import argparse
import asyncio
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from _server import serving

from kvt_async.contract.load import load_settings
from kvt_async.contract.settings import Settings
from kvt_async.session.invocation import loop_factory
from kvt_async.sweep.sweep import SweepOptions, prepare_group, run


def experiment(
    folder: Path, url: str, concurrency: int, transport: str, nth: int, asked: argparse.Namespace
) -> Settings:
    n, data = asked.requests, folder / "examples.jsonl"
    if not data.exists():
        text = "word " * asked.prompt_words
        with data.open("wb") as out:
            for i in range(n):
                row = {"example_id": f"e{i}", "context": f"{i} {text}", "question": "Which?", "answers": ["a"]}
                out.write(orjson.dumps(row) + b"\n")
    overrides = [
        f"experiment.exp_group_id=bench_{concurrency}_{transport}_{nth}", "dataset.name=jsonl", "dataset.task=bench",
        f"dataset.path={data}", "tokenizer.name=approx:chars/4", "binning.n_bins=1", f"binning.n_per_bin={n}",
        f"engine.base_url={url}", f"engine.loop={asked.loop}", f"engine.transport={transport}",
        f"output.runs_dir={folder}/runs",
        f"output.data_dir={folder}/data", "kv.apply={via: none}", "kv.budgets=[1.0]", "kv.control_repeats=0",
        f"decoding.max_tokens={asked.tokens}", f"limits.concurrency={concurrency}",
    ]  # fmt: skip
    return load_settings(None, overrides, environ={})


async def bare(url: str, concurrency: int, asked: argparse.Namespace, *, encode: bool) -> float:
    """Requests/s of session.post and iter_any, every event found; nothing is read or kept.

    `encode`: every request has a prompt of its own, given as json=; else one body, made before, is sent each time.
    """
    n, text = int(asked.requests), "word " * asked.prompt_words

    def request(nth: int) -> dict[str, Any]:
        message = {"role": "user", "content": f"{nth} {text} Which?"}
        return {"model": "reference", "messages": [message], "max_tokens": asked.tokens, "stream": True}

    once = {"data": orjson.dumps(request(0)), "headers": {"Content-Type": "application/json"}}
    numbers = iter(range(n))

    async def worker(session: aiohttp.ClientSession) -> None:
        for nth in numbers:
            body: dict[str, Any] = {"json": request(nth)} if encode else once
            async with session.post(f"{url}/chat/completions", **body) as reply:
                rest = b""
                async for read in reply.content.iter_any():
                    data, pos = rest + read if rest else read, 0
                    while (end := data.find(b"\n\n", pos)) >= 0:
                        pos = end + 2
                    rest = data[pos:]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.perf_counter()
        await asyncio.gather(*(worker(session) for _ in range(concurrency)))
        return n / (time.perf_counter() - began)


async def sweep(settings: Settings) -> float:
    """Requests/s from the first to the last committed outcome."""
    report = await run(settings, options=SweepOptions(quiet=True))
    assert report.pending == 0, report
    return float(report.sent / report.elapsed_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--prompt-words", type=int, default=20, help="30000: prompts of 150 KB")
    parser.add_argument("--loop", choices=["volume", "truth"], default="volume")
    parser.add_argument("--transport", nargs="+", choices=["aiohttp", "lean"], default=["aiohttp", "lean"])
    parser.add_argument("--profile", action="store_true", help="where the sweep's own time goes")
    args = parser.parse_args()
    with serving() as url, tempfile.TemporaryDirectory() as name:
        for concurrency in args.concurrency:
            measure(Path(name), url, concurrency, args)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak RSS, all of the above in one process: {peak:.0f} MB")


def measure(folder: Path, url: str, concurrency: int, args: argparse.Namespace) -> None:
    rates: dict[str, list[float]] = {"bare": [], "bare, one body": [], **{name: [] for name in args.transport}}
    for nth in range(args.runs):
        for transport in args.transport:
            settings = experiment(folder, url, concurrency, transport, nth, args)
            prepare_group(settings, quiet=True)
            with asyncio.Runner(loop_factory=loop_factory(settings)) as runner:
                if args.profile:
                    profile(runner, settings)
                    return
                rates[transport].append(runner.run(sweep(settings)))
        with asyncio.Runner(loop_factory=loop_factory(settings)) as runner:
            rates["bare"].append(runner.run(bare(url, concurrency, args, encode=True)))
            rates["bare, one body"].append(runner.run(bare(url, concurrency, args, encode=False)))
    print(f"{concurrency} in flight, {args.tokens} token(s), {args.prompt_words} words, engine.loop: {args.loop}")
    for name, found in rates.items():
        ratios = sorted(k / b for k, b in zip(found, rates["bare"], strict=True))
        print(f"  {name:14} {statistics.median(found):8,.0f} requests/s ({min(found):,.0f} to {max(found):,.0f})  "
              f"{statistics.median(ratios):.2f} x bare ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)  # fmt: skip


def profile(runner: asyncio.Runner, settings: Settings) -> None:
    import cProfile
    import pstats

    with cProfile.Profile() as watch:
        runner.run(sweep(settings))
    pstats.Stats(watch).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()

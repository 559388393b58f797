"""A whole sweep, everything stored, beside a bare aiohttp client that keeps nothing: requests/s, in one run.

    python scripts/bench/sweep.py [--runs 5] [--requests 3000] [--concurrency 8 64] [--tokens 1] [--loop volume|truth]

The client is pinned to one core (its writer thread too), the null server to the other. Only the ratios mean anything.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import orjson

from kvt_async.contract.load import load_settings
from kvt_async.contract.settings import Settings
from kvt_async.run.sweep import Options, loop_factory, prepare_group, run


def experiment(folder: Path, url: str, n: int, concurrency: int, tokens: int, loop: str, nth: int) -> Settings:
    data = folder / "examples.jsonl"
    if not data.exists():
        rows = ({"example_id": f"e{i}", "context": f"{i} " + "word " * 20, "question": "Which?", "answers": ["a"]}
                for i in range(n))  # fmt: skip
        data.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    overrides = [
        f"experiment.exp_group_id=bench_{concurrency}_{nth}", "dataset.name=jsonl", "dataset.task=bench",
        f"dataset.path={data}", "tokenizer.name=approx:chars/4", "binning.n_bins=1", f"binning.n_per_bin={n}",
        f"engine.base_url={url}", f"engine.loop={loop}", f"output.runs_dir={folder}/runs",
        f"output.data_dir={folder}/data", "kv.apply={via: none}", "kv.budgets=[1.0]", "kv.control_repeats=0",
        f"decoding.max_tokens={tokens}", f"limits.concurrency={concurrency}",
    ]  # fmt: skip
    return load_settings(None, overrides, environ={})


async def bare(url: str, n: int, concurrency: int, tokens: int) -> float:
    """Requests/s of session.post and iter_any; nothing is parsed or kept."""
    message = {"role": "user", "content": "0 " + "word " * 20 + " Which?"}
    body = orjson.dumps({"model": "reference", "messages": [message], "max_tokens": tokens, "stream": True})
    headers, left = {"Content-Type": "application/json"}, n

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            async with session.post(f"{url}/chat/completions", data=body, headers=headers) as reply:
                async for _ in reply.content.iter_any():
                    pass

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.perf_counter()
        await asyncio.gather(*(worker(session) for _ in range(concurrency)))
        return n / (time.perf_counter() - began)


async def sweep(settings: Settings) -> float:
    """Requests/s from the first to the last committed outcome."""
    report = await run(settings, options=Options(quiet=True))
    assert report.pending == 0, report
    return report.sent / report.elapsed_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--loop", choices=["volume", "truth"], default="volume")
    parser.add_argument("--profile", action="store_true", help="where the sweep's own time goes")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, str(Path(__file__).with_name("null_server.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, tempfile.TemporaryDirectory() as name:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
            if len(cores) > 1:
                os.sched_setaffinity(server.pid, {cores[0]})
                os.sched_setaffinity(0, {cores[-1]})
            for concurrency in args.concurrency:
                measure(Path(name), url, concurrency, args)
        finally:
            server.terminate()


def measure(folder: Path, url: str, concurrency: int, args: argparse.Namespace) -> None:
    rates: dict[str, list[float]] = {"bare": [], "kvt": []}
    for nth in range(args.runs):
        settings = experiment(folder, url, args.requests, concurrency, args.tokens, args.loop, nth)
        prepare_group(settings, quiet=True)
        with asyncio.Runner(loop_factory=loop_factory(settings)) as runner:
            rates["bare"].append(runner.run(bare(url, args.requests, concurrency, args.tokens)))
        with asyncio.Runner(loop_factory=loop_factory(settings)) as runner:
            if args.profile:
                import cProfile
                import pstats

                with cProfile.Profile() as watch:
                    runner.run(sweep(settings))
                pstats.Stats(watch).sort_stats("tottime").print_stats(40)
                return
            rates["kvt"].append(runner.run(sweep(settings)))
    print(f"{concurrency} in flight, {args.tokens} token(s), engine.loop: {args.loop}")
    for name, found in rates.items():
        ratio = statistics.median(k / b for k, b in zip(found, rates["bare"], strict=True))
        print(f"  {name:5} {statistics.median(found):8,.0f} requests/s ({min(found):,.0f} to {max(found):,.0f})  "
              f"{ratio:.2f} x bare")  # fmt: skip


if __name__ == "__main__":
    main()

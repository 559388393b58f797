"""Does a replayed trace reuse what the trace says? Prompts as they were sent, and a server's own counters.

    python scripts/bench/trace_reuse.py [--requests 20000] [--memory]

Makes a Mooncake-like trace with shared beginnings (system prompts, conversations that go on, prompts that come again),
then prints, in Markdown:

1. the trace replayed to a server that writes down its prompts: the share of blocks that an earlier prompt had, counted
   from the tokens of the prompts, beside the share counted from the trace's hash_ids; and how the schedule was kept;
2. the same trace at a sixteenth of its length to `kvt serve --prefix-block 16`: the cached tokens of its usage and of
   its /metrics beside the trace's;
3. with --memory: peak memory of `kvt bench` over traces of 100,000 and 2,000,000 rows.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kvt_async.bench.null_server import null_server
from kvt_async.contract.load import load_settings
from kvt_async.data.tokens import load_tokenizer

BLOCK, MOST_TOKENS, GAP_MS = 512, 24_000, 100.0
SCALE, CACHE_BLOCK, CACHE_MB = 1 / 16, 16, 3000


def make_trace(path: Path, n: int, seed: int = 7) -> None:
    """Three in five begin with one of eight system prompts, half go on where one of the last 200 ended, one in fifty
    comes again."""
    rng, fresh = random.Random(seed), itertools.count()
    systems = [list(itertools.islice(fresh, rng.randint(1, 4))) for _ in range(8)]
    ended: list[list[int]] = []
    rows: list[dict[str, Any]] = []
    at_ms = 0.0
    with path.open("w") as file:
        for _ in range(n):
            at_ms += rng.expovariate(1 / GAP_MS)
            if rows and rng.random() < 0.02:
                row = {**rng.choice(rows[-200:]), "timestamp": int(at_ms)}
            else:
                head = (
                    rng.choice(ended)
                    if ended and rng.random() < 0.5
                    else rng.choice(systems)
                    if rng.random() < 0.6
                    else []
                )
                tokens = min(MOST_TOKENS, len(head) * BLOCK + max(60, int(rng.lognormvariate(6.5, 1.0))))
                ids = head[: tokens // BLOCK]
                ids = ids + list(itertools.islice(fresh, -(-tokens // BLOCK) - len(ids)))
                output = max(1, int(rng.lognormvariate(3, 1)))
                row = {"timestamp": int(at_ms), "input_length": tokens, "output_length": output, "hash_ids": ids}
                ended = [*ended, ids[: tokens // BLOCK]][-200:]
            rows = [*rows[-200:], row]
            file.write(json.dumps(row) + "\n")


def reuse(prompts: Iterable[Sequence[Any]]) -> tuple[int, int]:
    """(Blocks that an earlier prompt had at the same place after the same predecessors, blocks)."""
    seen: set[int] = set()
    found = total = 0
    for blocks in prompts:
        place, going = 0, True
        for block in blocks:
            place = hash((place, block))
            going = going and place in seen
            found += going
            seen.add(place)
        total += len(blocks)
    return found, total


def blocks_of_trace(path: Path) -> Iterator[Sequence[Any]]:
    """Ids of each request; the last block's with its length, which is part of what it is."""
    for line in path.open():
        row = json.loads(line)
        full = row["input_length"] // BLOCK
        yield [*row["hash_ids"][:full], *((one, row["input_length"]) for one in row["hash_ids"][full:])]


def blocks_of_prompts(path: Path) -> Iterator[Sequence[Any]]:
    """Blocks of tokens of each prompt, as a server of the tokenizer sees it."""
    tokenizer = load_tokenizer(load_settings(None, ["tokenizer.name=reference"], environ={}))
    assert tokenizer.chat is not None
    lines = path.open()
    while chunk := list(itertools.islice(lines, 64)):
        for ids in tokenizer.ids([tokenizer.chat.render(json.loads(line)) for line in chunk]):
            yield [tuple(ids[at : at + BLOCK]) for at in range(0, len(ids), BLOCK)]


def _recording(file: str, ready: Any) -> None:
    import asyncio

    from kvt_async.bench import null_server as null

    written = Path(file).open("w")  # noqa: SIM115 - as long as the process

    class Recorder(null.NullProtocol):
        def _answer(self, path: str, body: bytes) -> None:
            if path.endswith("/completions"):
                written.write(json.dumps(json.loads(body)["messages"]) + "\n")
                written.flush()
            super()._answer(path, body)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Recorder, "127.0.0.1", 0, backlog=4096)
        ready.put(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        await server.serve_forever()

    asyncio.run(serve())


@contextmanager
def recorder(file: Path) -> Iterator[str]:
    """A server that does nothing but answer and write down its prompts."""
    ready: Any = multiprocessing.get_context("spawn").Queue()
    process = multiprocessing.get_context("spawn").Process(target=_recording, args=(str(file), ready), daemon=True)
    process.start()
    try:
        yield ready.get(timeout=60)
    finally:
        process.terminate()
        process.join()


@contextmanager
def reference_server() -> Iterator[str]:
    room = ["--prefix-block", str(CACHE_BLOCK), "--prefill-cache-mb", str(CACHE_MB)]
    command = [sys.executable, "-m", "kvt_async.serve", "--port", "0", *room]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = re.search(r"http://\S+", process.stdout.readline())
        assert url is not None
        yield url.group(0)
    finally:
        process.terminate()
        process.wait()


def bench(folder: Path, url: str, trace: Path, *options: str) -> tuple[sqlite3.Connection, int]:
    """`kvt bench` of the trace; its database, and its peak memory in MiB."""
    name = f"g{len(list(folder.iterdir()))}"
    overrides = {
        "experiment.exp_group_id": name,
        "engine.base_url": url,
        "model.name": "reference",
        "tokenizer.name": "reference",
        "output.runs_dir": folder / "runs",
        "db.path": folder / f"{name}.sqlite",
        "bench.workload.kind": "trace",
        "bench.workload.path": trace,
    }
    words = [word for key, value in overrides.items() for word in ("--override", f"{key}={value}")]
    command = [sys.executable, "-m", "kvt_async", "bench", *words, "--quiet", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in (0, 1), f"kvt bench ended with {process.returncode}"
    return sqlite3.connect(folder / f"{name}.sqlite"), used.ru_maxrss // 1024


def sent_blocks(folder: Path, trace: Path, speed: float) -> None:
    prompts = folder / "prompts.jsonl"
    with recorder(prompts) as url:
        db, _ = bench(folder, url, trace, "--replay", "--force", "--override", f"bench.workload.speed={speed}",
                      "--override", "bench.max_s=100000")  # fmt: skip
    with prompts.open() as lines:
        first = next(lines)  # asked before the stage: is the server ready?
        rest = folder / "measured.jsonl"
        rest.write_text("".join(lines))
    assert first
    (found, total), (said, of) = reuse(blocks_of_prompts(rest)), reuse(blocks_of_trace(trace))
    n, late, worst = db.execute("SELECT n_sent, n_late, late_max_ms FROM bench_window_ends").fetchone()
    planned, sent = db.execute(
        "SELECT max(intended_ns) - min(intended_ns), max(start_ns) - min(intended_ns) FROM telemetry"
    ).fetchone()
    print(f"| replay x{speed:g}, {n:,} requests | blocks | reused | share |\n|---|---|---|---|")
    print(f"| the trace's hash_ids | {of:,} | {said:,} | {said / of:.3%} |")
    print(f"| tokens of the prompts sent | {total:,} | {found:,} | {found / total:.3%} |")
    print(f"\nSchedule: {planned / 1e9:.2f} s planned, {sent / 1e9:.2f} s sent; {late} of {n:,} late by over 10 ms, "
          f"{worst:.0f} ms at most\n")  # fmt: skip


def server_counters(folder: Path, trace: Path, n: int) -> None:
    with reference_server() as url:
        before = _counters(url)
        db, _ = bench(
            folder, url, trace, "--concurrency", "2", "--requests", str(n), "--force",
            "--override", f"bench.workload.length_scale={SCALE}",
            "--override", "bench.workload.output_tokens={kind: fixed, value: 1}",
            "--override", "bench.warm_up={requests: 0, rounds: 0}", "--override", "bench.scrape_interval_s=0",
        )  # fmt: skip
        queries, hits = (after - one for after, one in zip(_counters(url), before, strict=True))
    said, tokens, longest = db.execute(
        "SELECT sum(shared_tokens), sum(input_tokens), max(input_tokens) FROM bench_arrivals JOIN bench_requests USING "
        "(request_id)"
    ).fetchone()
    cached, prompts = db.execute(
        "SELECT sum(usage_json ->> '$.prompt_tokens_details.cached_tokens'), sum(usage_json ->> '$.prompt_tokens') "
        "FROM responses"
    ).fetchone()
    print(f"| {n:,} requests of at most {longest:,} tokens | tokens | reused | share |\n|---|---|---|---|")
    print(f"| the trace, scaled by {SCALE:g} | {tokens:,} | {said:,} | {said / tokens:.3%} |")
    print(f"| usage of the reference server | {prompts:,} | {cached:,} | {cached / prompts:.3%} |")
    print(f"| its /metrics, the ready check among them | {queries:,.0f} | {hits:,.0f} | {hits / queries:.3%} |\n")


def _counters(url: str) -> tuple[float, float]:
    page = urllib.request.urlopen(url.removesuffix("/v1") + "/metrics").read().decode()
    names = ("queries", "hits")
    found = [re.search(rf"^vllm:prefix_cache_{name}_total\S* (\S+)", page, re.MULTILINE) for name in names]
    queries, hits = (float(one[1]) if one else 0.0 for one in found)
    return queries, hits


def memory(folder: Path, sent: int) -> None:
    print(f"| trace | file | planned only: peak | {sent:,} requests sent: peak |\n|---|---|---|---|")
    for rows in (100_000, 2_000_000):
        trace = folder / f"{rows}.jsonl"
        make_trace(trace, rows)
        with null_server() as url:
            whole = ("--replay", "--force", "--override", "bench.max_s=1000000")
            _, planned = bench(folder, url, trace, *whole, "--dry-run")
            _, peak = bench(
                folder, url, trace, *whole, "--requests", str(sent), "--override", "bench.workload.speed=20"
            )
        size = trace.stat().st_size >> 20
        print(f"| {rows:,} rows | {size:,} MiB | {planned:,} MiB | {peak:,} MiB |", flush=True)
        trace.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--speed", type=float, default=10.0)
    parser.add_argument("--only", choices=("blocks", "counters", "memory"))
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kvt-trace-") as name:
        folder = Path(name)
        trace = folder / "trace.jsonl"
        make_trace(trace, arguments.requests)
        if arguments.only in (None, "blocks"):
            sent_blocks(folder, trace, arguments.speed)
        if arguments.only in (None, "counters"):
            server_counters(folder, trace, arguments.requests)
        if arguments.memory or arguments.only == "memory":
            memory(folder, min(arguments.requests, 5000))


if __name__ == "__main__":
    main()

"""Several sender processes beside one, in the same run: what they send at most, and how true their marks stay.

    python scripts/bench/processes.py sweep [--processes 2] [--requests 20000] [--concurrency 64] [--runs 5]
    python scripts/bench/processes.py bench [--processes 2] [--tokens-per-s 20000] [--seconds 8] [--runs 3]

sweep: requests/s of a whole sweep of one-token replies over lean on uvloop, everything stored; sending (first to last
mark) and the whole command (start-up, canary and merge with it) told apart, and the ratio to one process, which is free
to use all cores. bench: an open loop against a server that paces (first token 200 ms after the whole request, then one
every 20 ms) and writes into its first token when it sent it, on the clock of our marks. stamped: our stamp of the first
token minus that instant: the network's way, and the client's error. beyond: our TTFT minus the server's own, which has
also what a request waited until the server read it. Each process says whether it was clean. Nothing is pinned; only
what was measured in one run can be compared.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import orjson
from _server import serving

from kvt_async.bench import bench
from kvt_async.contract.load import load_settings
from kvt_async.contract.paths import run_paths
from kvt_async.contract.settings import Settings
from kvt_async.store.reader import Reader
from kvt_async.sweep import sweep

TTFT_MS, ITL_MS, TOKENS = 200, 20, 50
LIFE_S = (TTFT_MS + ITL_MS * (TOKENS - 1)) / 1000
_MARKS = """
SELECT p.text, t.start_ns, ifnull(t.first_text_kernel_ns, t.first_content_ns)
FROM responses p JOIN telemetry t USING (request_id, attempt_idx) JOIN bench_arrivals b USING (request_id)
WHERE b.phase = 'measured'
"""


@dataclass(frozen=True)
class Sent:
    """What one command did."""

    per_s: float  # requests (sweep) or tokens (bench) while it was sending
    seconds: float  # the whole command
    merge_s: float = 0.0  # of these, until the senders' facts were in the group's database
    detail: str = ""


def swept(folder: Path, url: str, processes: int, nth: int, asked: argparse.Namespace) -> Sent:
    data = folder / "examples.jsonl"
    if not data.exists():
        rows = (
            {"example_id": f"e{i}", "context": f"{i} some words", "question": "Which?", "answers": ["a"]}
            for i in range(asked.requests)
        )
        data.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    settings = load_settings(None, [
        f"experiment.exp_group_id=s{processes}_{nth}", "dataset.name=jsonl", "dataset.task=bench",
        f"dataset.path={data}", "tokenizer.name=approx:chars/4", "binning.n_bins=1",
        f"binning.n_per_bin={asked.requests}", "kv.apply={via: none}", "kv.budgets=[1.0]", "kv.control_repeats=0",
        "decoding.max_tokens=1", f"limits.concurrency={asked.concurrency}", *common(folder, url, processes, asked),
    ], environ={})  # fmt: skip
    sweep.prepare_group(settings, quiet=True)
    began = time.perf_counter()
    sweep.execute(settings, sweep.SweepOptions(quiet=True))
    seconds = time.perf_counter() - began
    with closing(Reader(group_db(settings))) as reader:
        n, first, last = reader.rows("SELECT count(*), min(start_ns), max(end_ns) FROM telemetry")[0]
    assert n == asked.requests, f"{n} of {asked.requests} were answered"
    events = [orjson.loads(line) for line in group_db(settings).with_name("run.log").read_bytes().splitlines()]
    merge_s = sum(event["seconds"] for event in events if event["event"] == "taken_over")
    return Sent(n * 1e9 / (last - first), seconds, merge_s)


def benched(folder: Path, url: str, processes: int, nth: int, asked: argparse.Namespace) -> Sent:
    rate = asked.tokens_per_s / TOKENS
    settings = load_settings(None, [
        f"experiment.exp_group_id=b{processes}_{nth}", "tokenizer.name=approx:chars/4", f"bench.rate={rate:g}",
        f"bench.requests={max(1, round(rate * asked.seconds))}", "bench.workload.input_tokens.value=40",
        f"bench.workload.output_tokens.value={TOKENS}", "bench.scrape_interval_s=0",
        f"bench.warm_up={{requests: {round(rate * LIFE_S * 1.25)}, latencies: 0}}",
        *common(folder, url, processes, asked),
    ], environ={})  # fmt: skip
    began = time.perf_counter()
    bench.execute(settings, bench.BenchOptions(quiet=True, force=True))
    seconds = time.perf_counter() - began
    stamped, beyond = [], []
    with closing(Reader(group_db(settings))) as reader:
        for text, start_ns, first_ns in reader.rows(_MARKS):
            truth = dict(pair.split("=") for pair in text.split(" word")[0].split())
            stamped.append((first_ns - int(truth["t"])) / 1e6)
            beyond.append((first_ns - start_ns - (int(truth["t"]) - int(truth["recv"]))) / 1e6)
        from_ns, to_ns, n_late, worst_ms, client_json = reader.rows(
            "SELECT measured_from_ns, measured_to_ns, n_late, late_max_ms, client_json FROM bench_window_ends"
        )[0]
    client = orjson.loads(client_json)
    each = client["detail"].get("processes", [client])
    verdicts = ", ".join(f"{one['verdict']} ({one['signal']})" for one in each)
    return Sent(
        (len(beyond) - 1) * TOKENS * 1e9 / (to_ns - from_ns),
        seconds,
        detail=f"stamped {quantiles(stamped)} ms, beyond {quantiles(beyond)} ms, {n_late} of {len(beyond)} sent late "
        f"(worst {worst_ms:.1f} ms); {verdicts}",
    )


def quantiles(values: list[float]) -> str:
    """Median and 99th percentile."""
    ordered = sorted(values)
    return f"p50 {statistics.median(ordered):.3f} p99 {ordered[int(len(ordered) * 0.99)]:.3f}"


def common(folder: Path, url: str, processes: int, asked: argparse.Namespace) -> list[str]:
    return [
        "model.name=m", f"engine.base_url={url}", f"engine.loop={asked.loop}", "engine.transport=lean",
        f"output.runs_dir={folder}/runs", f"output.data_dir={folder}/data", f"limits.processes={processes}",
    ]  # fmt: skip


def group_db(settings: Settings) -> Path:
    return run_paths(settings.output.runs_dir, settings.experiment.exp_group_id).db


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sweep", "bench"])
    parser.add_argument("--processes", type=int, nargs="+", default=[2])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--tokens-per-s", type=float, default=20_000)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--loop", choices=["truth", "volume"], help="sweep: volume, bench: truth")
    asked = parser.parse_args()
    is_sweep = asked.what == "sweep"
    asked.loop = asked.loop or ("volume" if is_sweep else "truth")
    send: Callable[..., Sent] = swept if is_sweep else benched
    options = () if is_sweep else ("--ttft-ms", str(TTFT_MS), "--itl-ms", str(ITL_MS))
    runs: dict[int, list[Sent]] = {n: [] for n in (1, *asked.processes)}
    cores = set(os.sched_getaffinity(0))
    with serving(*options) as url, tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(0, cores)
        for nth in range(asked.runs):
            for n, results in runs.items():  # one after the other: a slow minute touches all alike
                results.append(send(Path(folder), url, n, nth, asked))
                if results[-1].detail:
                    print(f"{n} processes: {results[-1].per_s:,.0f} tokens/s; {results[-1].detail}", flush=True)
    for n, results in runs.items():
        rate = statistics.median(one.per_s for one in results)
        seconds, merge_s = (statistics.median(getattr(r, name) for r in results) for name in ("seconds", "merge_s"))
        ratios = sorted(one.per_s / alone.per_s for one, alone in zip(results, runs[1], strict=True))
        print(
            f"{n} processes: {rate:,.0f} {'requests' if is_sweep else 'tokens'}/s while sending, the command "
            f"{seconds:.1f} s, {merge_s:.1f} s of it to take over; "
            f"ratio to one {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()

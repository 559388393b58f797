"""Peak memory of `kvt sweep` while long answers stream: beside short ones, and beside the bytes of those replies.

    python scripts/bench/long_answers.py [--answers 200] [--streams 100] [--tokens 4000] [--itl-ms 2] [--most 0.5]

server.c streams the answers, each token an event, at its pace. "grows" is the peak above that of as many answers of 16
tokens in the same run; "of replies" is that growth beside the bytes of the replies that are in flight together, which a
client that keeps them until their end holds all. Exit code 1 where it is more than --most.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _server import serving

SHORT = 16
EVENT_BYTES = 172  # about, of server.c


def sweep(folder: Path, url: str, transport: str, tokens: int, asked: argparse.Namespace) -> tuple[float, float]:
    """(peak MiB, seconds) of a sweep of so many answers."""
    name = f"{transport}_{tokens}"
    with (folder / "examples.jsonl").open("w", encoding="utf-8") as rows:
        for n in range(asked.answers):
            example = {"example_id": f"e{n}", "context": f"Text {n}.", "question": "?", "answers": ["word"]}
            rows.write(json.dumps(example) + "\n")
    overrides = [
        *(f"experiment.exp_group_id={name}", "dataset.name=jsonl", "dataset.task=long", "dataset.path=examples.jsonl"),
        *("tokenizer.name=approx:chars/4", "binning.n_bins=1", f"binning.n_per_bin={asked.answers}"),
        "model.name=null-model",
        *(f"engine.base_url={url}", f"engine.transport={transport}", "kv.budgets=[1.0]", "kv.control_repeats=0"),
        *(f"decoding.max_tokens={tokens}", f"limits.concurrency={asked.streams}", "kv.apply={via: none}"),
    ]
    (folder / "long.yaml").write_text("{}", encoding="utf-8")
    words = [word for override in overrides for word in ("--override", override)]
    began = time.perf_counter()
    command = [sys.executable, "-m", "kvt_async", "sweep", "-c", "long.yaml", *words, "--quiet"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the sweep ended with exit code {process.returncode}")
    return usage.ru_maxrss / 1024, time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--itl-ms", type=float, default=2)
    parser.add_argument("--most", type=float, default=0.5)
    asked = parser.parse_args()
    worst = 0.0
    replies_mib = asked.streams * asked.tokens * EVENT_BYTES / 2**20
    at_once = f"{asked.streams} at once: {replies_mib:,.0f} MiB of replies"
    print(f"{asked.answers:,} answers of {asked.tokens:,} tokens, {at_once}")
    with tempfile.TemporaryDirectory() as scratch, serving("--itl-ms", str(asked.itl_ms)) as url:
        for transport in ("aiohttp", "lean"):
            short_mib, _ = sweep(Path(scratch), url, transport, SHORT, asked)
            long_mib, seconds = sweep(Path(scratch), url, transport, asked.tokens, asked)
            grows = long_mib - short_mib
            worst = max(worst, grows / replies_mib)
            print(
                f"  {transport:8} {seconds:7.1f} s  peak {long_mib:5.0f} MiB, of short answers {short_mib:4.0f} MiB: "
                f"grows {grows:4.0f} MiB, {grows / replies_mib:.2f} of replies",
                flush=True,
            )
    return int(worst > asked.most)


if __name__ == "__main__":
    sys.exit(main())

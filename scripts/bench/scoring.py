"""Scoring a million short answers beside a plain Python loop.

    python scripts/bench/scoring.py [--n 1000000]

"written" is what `kvt score` does with chunks of answers: EM, F1, the task's score, labels and flags, then rows in a
database. The loop normalises, compares and counts the tokens of one answer after the other, and writes nothing.
Seconds by the clock, of CPU in brackets. metrics.py has each task metric beside its reference.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from _loops import overlaps

from analyzer.metrics.fast.overlap import normalised, overlap_scores
from analyzer.metrics.normal import normalise
from analyzer.read.row_portions import ROWS
from analyzer.scoring.score import Rules, write_scored
from kvt_async.contract.schema import connect_for_reading, connect_for_writing

_WORDS = "amber basil cedar dahlia ember fern garnet hazel iris juniper kelp linden the a of in 7 1987 Ada New York"
WORDS = _WORDS.split()


def answers(n: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(prediction, gold) of a few words; half right."""
    for i in range(n):
        gold = " ".join(rng.choices(WORDS, k=rng.randint(1, 4))) + f" {i}"
        said = f"{gold.title()}." if rng.random() < 0.5 else " ".join(rng.choices(WORDS, k=5))
        yield said, gold


def frames(pairs: list[tuple[str, str]]) -> Iterator[pl.DataFrame]:
    """Chunks as `kvt score` reads them."""
    for at in range(0, len(pairs), ROWS):
        part = pairs[at : at + ROWS]
        golds = [[gold] for _, gold in part]
        yield pl.DataFrame(
            {
                "request_id": [f"run:{at + i}" for i in range(len(part))],
                "text": [said for said, _ in part],
                "golds": golds,
                "finish_reason": "stop",
                "prompt_tokens": 100,
                "token_len": 100,
                "identical": None,
                "is_failure": False,
                "reasoned": False,
                "called": False,
                "error_type": None,
            },
            schema_overrides={"identical": pl.Int64, "error_type": pl.String},
        ).with_columns(golds_norm=pl.col("golds").list.eval(normalised(pl.element())))


@dataclass(frozen=True)
class Taken:
    wall_s: float
    cpu_s: float


def timed(work: Callable[[], object]) -> Taken:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Taken(time.perf_counter() - wall, time.process_time() - cpu)


def scored_and_written(chunks: list[pl.DataFrame], metric: str, folder: Path) -> Taken:
    path = folder / f"{metric}.sqlite"
    connect_for_writing(path).close()
    conn = connect_for_reading(path, write_derived=True)
    conn.execute("PRAGMA foreign_keys=OFF")  # there are no requests here, only their scores
    taken = timed(lambda: write_scored(conn, chunks, Rules(metric, server_counts=True)))
    (rows,) = conn.execute("SELECT count(*) FROM scores").fetchone()
    conn.close()
    if rows != sum(chunk.height for chunk in chunks):
        raise SystemExit(f"{rows} rows were written")
    return taken


def overlap_alone(chunks: list[pl.DataFrame]) -> None:
    """What the loop computes, over columns."""
    for chunk in chunks:
        overlap_scores(chunk.select("golds_norm", pred_norm=normalised(pl.col("text"))))


def report(what: str, ours: Taken, loop: Taken) -> None:
    ratio = f"ratio {loop.wall_s / ours.wall_s:.1f} ({loop.cpu_s / ours.cpu_s:.1f})"
    print(f"{what:<22} {ours.wall_s:6.2f} s ({ours.cpu_s:6.2f})  {ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=1_000_000, help="short answers")
    asked = parser.parse_args()
    pairs = list(answers(asked.n, random.Random(7)))
    chunks = list(frames(pairs))
    said, golds = [text for text, _ in pairs], [normalise(gold) for _, gold in pairs]
    loop = timed(lambda: overlaps(normalise, said, golds))
    print(f"{asked.n:,} answers; plain loop, EM and F1 alone: {loop.wall_s:.2f} s ({loop.cpu_s:.2f})")
    report("EM and F1 alone", timed(lambda: overlap_alone(chunks)), loop)
    with tempfile.TemporaryDirectory() as folder:
        for metric in ("f1", "qa_f1"):
            report(f"all of {metric}, written", scored_and_written(chunks, metric, Path(folder)), loop)


if __name__ == "__main__":
    main()

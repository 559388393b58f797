"""Scoring of many short answers beside a plain Python loop, and each task metric beside its reference algorithm.

    python scripts/bench/scoring.py [--n 1000000] [--slow 2000]

"columns" is what `kvt score` does with each chunk of answers: EM, F1, the task's score, labels and flags, then rows
written to a database. The loop normalises, compares and counts tokens of one answer after the other, and writes
nothing. The reference algorithms are plain readings of the published descriptions (dictionaries for the table of the
longest common subsequence, difflib for the ratio), not the official code. All in one process unless said otherwise.
Seconds by the clock and, in brackets, of CPU; the ratio is of CPU seconds where one process does the work, so that
other load on the machine matters little.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import polars as pl

from analyzer.derived import write_scores
from analyzer.metrics import rows
from analyzer.metrics.code import first_code_line
from analyzer.metrics.text import normalise, normalised, overlap_scores
from analyzer.score import score_frame
from analyzer.tables import CHUNK_ROWS
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
    for at in range(0, len(pairs), CHUNK_ROWS):
        part = pairs[at : at + CHUNK_ROWS]
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
                "error_type": None,
                "meta_json": None,
            },
            schema_overrides={"identical": pl.Int64, "error_type": pl.String, "meta_json": pl.String},
        ).with_columns(golds_norm=pl.col("golds").list.eval(normalised(pl.element())))


@dataclass(frozen=True)
class Taken:
    wall_s: float
    cpu_s: float


def timed(work: Callable[[], object]) -> Taken:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Taken(time.perf_counter() - wall, time.process_time() - cpu)


def by_columns(chunks: list[pl.DataFrame], metric: str, folder: Path) -> Taken:
    """Seconds to score and write all chunks."""
    path = folder / f"{metric}.sqlite"
    connect_for_writing(path).close()
    conn = connect_for_reading(path, write_derived=True)
    conn.execute("PRAGMA foreign_keys=OFF")  # there are no requests here, only their scores

    def work() -> None:
        for chunk in chunks:
            write_scores(conn, score_frame(chunk, metric, server_counts=True).rows())

    taken = timed(work)
    conn.close()
    return taken


def overlap_alone(chunks: list[pl.DataFrame]) -> None:
    """What the loop computes, over columns."""
    for chunk in chunks:
        overlap_scores(chunk.select("golds_norm", pred_norm=normalised(pl.col("text"))))


def by_loop(pairs: list[tuple[str, str]], golds: list[str]) -> float:
    """EM and F1 of all answers, one by one, golds normalised beforehand."""
    total = 0.0
    for (said, _), gold in zip(pairs, golds, strict=True):
        bare = normalise(said)
        if bare == gold:
            total += 1
            continue
        a, b = bare.split(), gold.split()
        same = sum((Counter(a) & Counter(b)).values())
        total += 2 * same / (len(a) + len(b)) if same else 0.0
    return total


def plain_rouge(said: str, gold: str) -> float:
    """ROUGE-L over sentences with a table in a dictionary."""
    hyp, ref = ([part.split() or [""] for part in text.split(".") if part] for text in (said, gold))
    if not hyp or not ref:
        return 0.0
    union: set[str] = set()
    for x in ref:
        for y in hyp:
            table: dict[tuple[int, int], int] = {}
            for i in range(len(x) + 1):
                for j in range(len(y) + 1):
                    if i == 0 or j == 0:
                        table[i, j] = 0
                    elif x[i - 1] == y[j - 1]:
                        table[i, j] = table[i - 1, j - 1] + 1
                    else:
                        table[i, j] = max(table[i - 1, j], table[i, j - 1])
            i, j = len(x), len(y)
            while i and j:
                if x[i - 1] == y[j - 1]:
                    union.add(x[i - 1])
                    i, j = i - 1, j - 1
                elif table[i - 1, j] > table[i, j - 1]:
                    i -= 1
                else:
                    j -= 1
    p, r = len(union) / len({w for s in hyp for w in s}), len(union) / len({w for s in ref for w in s})
    return 2 * (p * r / (p + r + 1e-8))


def plain_code_sim(said: str, gold: str) -> float:
    line = first_code_line(said)
    return round(100 * SequenceMatcher(None, line, gold).ratio()) / 100 if line and gold else 0.0


def summaries(n: int, rng: random.Random) -> list[tuple[str, str]]:
    def text(words: int) -> str:
        drawn = rng.choices([f"word{i}" for i in range(400)], k=words)
        return " ".join(w + "." if i % 20 == 19 else w for i, w in enumerate(drawn))

    return [(text(200), text(250)) for _ in range(n)]


def code(n: int, rng: random.Random) -> list[tuple[str, str]]:
    lines = [
        "        for index, child in enumerate(self.children):",
        "    private final Map<String, List<Integer>> cache = new HashMap<>();",
        "self.assertEqual(response.status_code, 200)",
    ]

    def changed(line: str) -> str:
        return "".join(c if rng.random() < 0.9 else rng.choice("abcdef ()_.:=") for c in line)

    return [(f"{changed(line)}\nnext = {i}", changed(line)) for i, line in enumerate(rng.choices(lines, k=n))]


def beside(name: str, pairs: list[tuple[str, str]], reference: Callable[[str, str], float]) -> None:
    """Time `name` and its reference algorithm over the same pairs, and prove that they agree."""
    given = [(said, (gold,), "") for said, gold in pairs]
    ours: list[float] = []
    theirs: list[float] = []
    fast = timed(lambda: ours.extend(score for score, _ in rows.score_slice(name, given)))
    slow = timed(lambda: theirs.extend(reference(said, gold) for said, gold in pairs))
    assert all(abs(a - b) < 1e-9 for a, b in zip(ours, theirs, strict=True)), name
    report(f"{name}, {len(pairs):,}", fast, slow)


def in_parallel(name: str, pairs: list[tuple[str, str]]) -> None:
    given = [(said, (gold,), "") for said, gold in pairs]
    rows.score_rows(name, [(f"{said} ", gold, meta) for said, gold, meta in given])  # processes start once
    several, one = timed(lambda: rows.score_rows(name, given)), timed(lambda: rows.score_slice(name, given))
    ratio = one.wall_s / several.wall_s
    print(f"{name}, {len(pairs):,}: {rows.cores()} cores {several.wall_s:.2f} s, one {one.wall_s:.2f} s, {ratio:.1f}")


def report(what: str, ours: Taken, theirs: Taken) -> None:
    times = f"{ours.wall_s:7.2f} s ({ours.cpu_s:6.2f})  reference {theirs.wall_s:7.2f} s ({theirs.cpu_s:6.2f})"
    print(f"{what:<34} {times}  ratio {theirs.cpu_s / ours.cpu_s:5.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=1_000_000, help="short answers")
    parser.add_argument("--slow", type=int, default=2_000, help="lines of code; a tenth as many summaries")
    asked = parser.parse_args()
    rng = random.Random(7)
    pairs = list(answers(asked.n, rng))
    chunks = list(frames(pairs))
    golds = [normalise(gold) for _, gold in pairs]
    loop = timed(lambda: by_loop(pairs, golds))
    report(f"EM and F1 alone, {asked.n:,}", timed(lambda: overlap_alone(chunks)), loop)
    with tempfile.TemporaryDirectory() as folder:
        for metric in ("f1", "qa_f1"):
            report(f"columns, {metric}, {asked.n:,}, written", by_columns(chunks, metric, Path(folder)), loop)
    beside("rouge", summaries(max(1, asked.slow // 10), rng), plain_rouge)
    beside("code_sim", code(asked.slow, rng), plain_code_sim)
    rows.WORTH_IT_S = 0.0
    in_parallel("code_sim", code(asked.slow * 10, rng))


if __name__ == "__main__":
    main()

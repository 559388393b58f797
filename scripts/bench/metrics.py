"""Each task metric beside a plain loop of its reference algorithm over the same answers.

    python scripts/bench/metrics.py [--scale 1.0] [--only classification code_sim] [--official LongBench/LongBench]

Answers are made to look like the tasks': 3 budgets answer the same examples, a third of their answers equal full
cache's, the others are noisy. "kvt" is what `kvt score` does with each run's answers, once it has read golds and class
lists; the references are handed these too. The loop calls the metric for one answer after the other: the published
descriptions in plain Python (a dictionary for the table of the longest common subsequence, difflib for the ratio, jieba
for Chinese words); with --official it calls the functions of the official script's checkout instead, which needs its
packages rouge and fuzzywuzzy. Both start with empty caches; dictionaries are loaded beforehand, and the least of up to
five goes counts. Seconds of CPU in one process, and of the clock as kvt does it by default, on several cores where that
pays.
"""

import argparse
import importlib.util
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import polars as pl
from _answers import ANSWERS, Answer, chinese_dictionary
from _loops import LOOPS, Loop

from analyzer.metrics import chinese_segmenter, code, rouge, word_lists
from analyzer.metrics.fast import row_scorer
from analyzer.metrics.fast.task_metric import task_scores
from analyzer.parallel import cores

OFFICIAL = {
    "classification_first_line": "classification_score",
    "classification_zh": "classification_score",
    "rouge": "rouge_score",
    "rouge_first_line": "rouge_score",
    "rouge_zh": "rouge_zh_score",
    "qa_f1_zh": "qa_f1_zh_score",
    "code_sim": "code_sim_score",
    "count": "count_score",
    "retrieval": "retrieval_score",
    "retrieval_zh": "retrieval_zh_score",
}
SIZES = {"rouge": 30, "rouge_first_line": 2_000, "rouge_zh": 150, "qa_f1_zh": 1_500, "code_sim": 2_000}
SIZE = 20_000  # examples; each is answered at 3 budgets
BUDGETS = 3
METRIC_OF = {"classification_zh": "classification_first_line"}  # the same metric on other classes
CACHES: tuple[Any, ...] = (
    *(word_lists.english_tokens, word_lists.chinese_words, word_lists.chinese_tokens),
    *(
        word_lists.bare_word,
        chinese_segmenter._segmenter,
        rouge._sentences,
        row_scorer.needed_meta,
        code.matching_characters,
    ),
)


@dataclass(frozen=True)
class Taken:
    wall_s: float
    cpu_s: float
    scores: pl.Series


def timed(work: Callable[[], pl.Series]) -> Taken:
    wall, cpu = time.perf_counter(), time.process_time()
    scores = work()
    return Taken(time.perf_counter() - wall, time.process_time() - cpu, scores)


def least(measure: Callable[[], Taken]) -> Taken:
    """The shortest of five goes, or of fewer where they take long: other load only adds."""
    goes, until = [measure()], time.perf_counter() + 4
    while len(goes) < 5 and time.perf_counter() < until:
        goes.append(measure())
    return Taken(min(go.wall_s for go in goes), min(go.cpu_s for go in goes), goes[0].scores)


def frames(runs: list[list[Answer]]) -> list[pl.DataFrame]:
    """One frame a run, as `kvt score` reads them."""
    return [
        pl.DataFrame(
            {
                "said": [a.said for a in run],
                "golds": [list(a.golds) for a in run],
                "needed_json": [f'{{"all_classes":{a.classes_json}}}' for a in run],
            },
            schema={"said": pl.String, "golds": pl.List(pl.String), "needed_json": pl.Categorical},
        )
        for run in runs
    ]


def by_kvt(metric: str, given: list[pl.DataFrame], worth_it_s: float) -> Taken:
    for cached in CACHES:
        cached.cache_clear()
    row_scorer.WORTH_IT_S = worth_it_s
    return timed(lambda: pl.concat([task_scores(frame, metric)["score"] for frame in given]))


def by_loop(loop: Loop, runs: list[list[Answer]]) -> Taken:
    classes = [[json.loads(a.classes_json) for a in run] for run in runs]  # read beforehand

    def work() -> pl.Series:
        return pl.Series(
            loop(answer.said, answer.golds, named)
            for run, lists in zip(runs, classes, strict=True)
            for answer, named in zip(run, lists, strict=True)
        )

    return timed(work)


def official_loop(checkout: Path, name: str) -> Loop:
    """The official script's way: its first-line rule, its function, best over golds."""
    spec = importlib.util.spec_from_file_location("official_metrics", checkout / "metrics.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{checkout} holds no metrics.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, OFFICIAL[name])
    first_line = "first_line" in name or name == "classification_zh"

    def loop(said: str, golds: tuple[str, ...], classes: list[str] | None) -> float:
        best = 0.0
        for gold in golds:
            text = said.lstrip("\n").split("\n")[0] if first_line else said
            best = max(best, function(text, gold, all_classes=classes))
        return best

    return loop


def beside(name: str, n: int, official: Path | None) -> None:
    metric, rng = METRIC_OF.get(name, name), random.Random(7)
    examples = [ANSWERS[name](rng) for _ in range(n)]
    runs = [[make() for make in examples] for _ in range(BUDGETS)]
    given, default = frames(runs), row_scorer.WORTH_IT_S
    one, several = (least(partial(by_kvt, metric, given, worth_it_s)) for worth_it_s in (inf, default))
    row_scorer.WORTH_IT_S = default
    loop = official_loop(official, name) if official and name in OFFICIAL else LOOPS[name]
    plain = least(lambda: by_loop(loop, runs))
    worst = max(float((taken.scores - plain.scores).abs().max() or 0.0) for taken in (one, several))  # type: ignore[arg-type]
    each = 1e6 / len(plain.scores)
    print(
        f"| {name} | {len(plain.scores):,} | {plain.cpu_s * each:,.1f} | {one.cpu_s * each:,.1f} "
        f"| {plain.cpu_s / one.cpu_s:.1f} | {plain.wall_s / several.wall_s:.1f} | {worst:.0e} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of answers")
    parser.add_argument("--only", nargs="*", choices=sorted(ANSWERS), default=list(ANSWERS))
    parser.add_argument("--official", type=Path, help="folder with the official metrics.py; its functions are timed")
    asked = parser.parse_args()
    chinese_dictionary()
    by_kvt("count", frames([[ANSWERS["count"](random.Random(1))()]]), inf)  # threads start once
    what = "official script's function" if asked.official else "plain loop"
    print(f"{cores()} cores; reference: {what}")
    print("| metric | answers | reference, µs | kvt, µs | ratio, 1 process | ratio by the clock | max difference |")
    print("|---|---|---|---|---|---|---|")
    for name in asked.only:
        beside(name, max(1, round(SIZES.get(name, SIZE) * asked.scale)), asked.official)


if __name__ == "__main__":
    main()

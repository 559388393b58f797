"""A metric over many answers, one by one: each distinct answer once, on all cores where that pays."""

import json
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, lru_cache
from typing import Any

from analyzer.metrics import Metric, find
from analyzer.parallel import cores
from kvt_async.contract import plugin_files

Answer = tuple[str, tuple[str, ...], str]
"""What was said, the golds, and the fields of the example's meta that the metric needs, as a JSON object ("" where it
needs none)."""
Scored = tuple[float, bool | None]
"""Score in [0, 1], and whether the answer has the task's form (None: the task defines none)."""

TRIAL = 200  # answers that are timed before processes are considered
WORTH_IT_S = 4.0  # a pool costs about a second, once: below this much work one process is as fast
_SLICE = 500


def score_rows(name: str, answers: Sequence[Answer]) -> list[Scored]:
    """Scores of the answers, in order. Raises ConfigError where the metric's package is missing."""
    distinct = list(dict.fromkeys(answers))
    start = time.perf_counter()
    scored = score_slice(name, distinct[:TRIAL])
    expected_s = (time.perf_counter() - start) / max(1, len(scored)) * (len(distinct) - len(scored))
    rest = distinct[TRIAL:]
    scored += _in_parallel(name, rest) if expected_s > WORTH_IT_S and cores() > 1 else score_slice(name, rest)
    if len(distinct) == len(answers):
        return scored
    score_of = dict(zip(distinct, scored, strict=True))
    return [score_of[answer] for answer in answers]


def score_slice(name: str, answers: Sequence[Answer]) -> list[Scored]:
    """The same in this process, duplicates too."""
    metric = find(name)
    if metric is None:
        raise ValueError(f"{name} is a column rule")
    return [_score(metric, *answer) for answer in answers]


def _score(metric: Metric, answer: str, golds: tuple[str, ...], needed_json: str) -> Scored:
    meta = needed_meta(needed_json)
    return (
        min(1.0, max(0.0, metric.score(answer, golds, meta))),
        metric.format_ok(answer, meta) if metric.format_ok else None,
    )


@lru_cache(maxsize=1024)
def needed_meta(needed_json: str) -> dict[str, Any]:
    """What a metric gets of an example's meta: the fields that it needs and the example has."""
    needed = json.loads(needed_json) if needed_json else {}
    return {name: value for name, value in needed.items() if value is not None}


def _in_parallel(name: str, answers: Sequence[Answer]) -> list[Scored]:
    slices = [answers[at : at + _SLICE] for at in range(0, len(answers), _SLICE)]
    try:
        return [
            one
            for part in _pool(tuple(plugin_files.loaded())).map(score_slice, [name] * len(slices), slices)
            for one in part
        ]
    except BrokenProcessPool:  # a script that can't be imported again, as new processes do: slower, not wrong
        return score_slice(name, answers)


@cache
def _pool(plugins: tuple[tuple[str, str], ...]) -> ProcessPoolExecutor:
    """Kept as long as the process, so each worker loads its dictionaries once. Spawned: Polars' threads forbid fork."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(min(cores(), 16), spawn, plugin_files.load_again, (plugins,))

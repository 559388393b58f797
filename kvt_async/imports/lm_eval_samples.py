"""lm-evaluation-harness: `samples_TASK_TIME.jsonl`, and the `results_TIME.json` beside it.

Read at 0.4.13. A line is one document under one filter: `doc_id`, `target`, `arguments`, `resps`, `filter`, `metrics`
(the names of those that are keys of the line), `prompt_hash`, `target_hash`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.imports.foreign_log import (
    ForeignAnswer,
    ForeignLog,
    LogChoice,
    as_text,
    chosen,
    records,
    unit_score,
)

_NAME = re.compile(r"samples_(?P<task>.+)_(?P<time>\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")
_SCHEMA = "A line of lm-eval's samples_*.jsonl has doc_id, target, arguments, resps and metrics."
_FIELDS = ("doc_id", "target", "arguments", "resps", "metrics")
MOST_RESULTS_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class _Results:
    """What the results file beside the samples says."""

    model: str = "unknown"
    tool: str = "lm-eval"
    made_at: str = ""
    scores: dict[str, Any] | None = None
    lower_is_better: frozenset[str] = frozenset()


def is_samples(record: dict[str, Any]) -> bool:
    """Whether the first line of a file is lm-eval's."""
    return "doc_id" in record and "resps" in record


def read(path: Path, wanted: LogChoice) -> list[ForeignLog]:
    """The log of a samples file: one task. Raises ConfigError where it holds several metrics or filters and none is
    chosen, or where a line is none of lm-eval's."""
    named = _NAME.fullmatch(path.name)
    task = named["task"] if named else path.stem
    if wanted.task is not None and wanted.task != task:
        return []
    metrics, filters = _kinds(path)
    results = _results(path, task, named["time"] if named else "")
    metric = chosen(sorted(metrics), wanted.metric, "metric", "--metric", path)
    variant = chosen(sorted(filters), wanted.filter, "filter", "--filter", path)
    if metric in results.lower_is_better:
        raise ConfigError(
            f"of {metric} less is better: a loss can't be judged by it",
            where=str(path),
            do="Choose another metric with --metric.",
        )
    first = next(_answers(path, metric, variant), None)
    notes: tuple[str, ...] = (
        f"{task}: lm-eval records no reason why an answer ended: whether one was cut at its length can't be told.",
    )
    if first is not None and first.finish_reason == "loglikelihood":
        notes = (
            f"{task}: scored by log-likelihood: nothing is generated, so what a smaller cache does to answers while "
            "they are written can't show.",
        )
    mean = None if results.scores is None else results.scores.get(f"{metric},{variant}")
    return [
        ForeignLog(
            path=path,
            tool=results.tool,
            model=results.model,
            task=task,
            metric=metric,
            variant="" if variant == "none" and len(filters) == 1 else variant,
            made_at=results.made_at or datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(),
            answers=partial(_answers, path, metric, variant),
            mean=float(mean) if isinstance(mean, int | float) else None,
            notes=notes,
        )
    ]


def _kinds(path: Path) -> tuple[set[str], set[str]]:
    """Metrics and filters that the file holds."""
    metrics: set[str] = set()
    filters: set[str] = set()
    for where, record in records(path, _FIELDS, _SCHEMA):
        if not isinstance(record["metrics"], list):
            raise ConfigError("metrics is no list of names", where=where, do=_SCHEMA)
        metrics.update(str(name) for name in record["metrics"])
        filters.add(str(record.get("filter", "none")))
    if not metrics:
        raise ConfigError("this file holds no samples", where=str(path), do="lm-eval writes them with --log_samples.")
    return metrics, filters


def _answers(path: Path, metric: str, variant: str) -> Iterator[ForeignAnswer]:
    for where, record in records(path, _FIELDS, _SCHEMA):
        if str(record.get("filter", "none")) != variant:
            continue
        if metric not in record:
            raise ConfigError(f"the metric {metric} is missing", where=where, do=_SCHEMA)
        asked = list(record["arguments"].values()) if isinstance(record["arguments"], dict) else record["arguments"]
        is_generated = not _is_likelihood(record["resps"])
        target = record["target"]
        yield ForeignAnswer(
            example_id=str(record["doc_id"]),
            epoch=0,
            prompt=_prompt(asked),
            golds=tuple(map(as_text, target)) if isinstance(target, list) else (as_text(target),),
            text=_answer(record["resps"]) if is_generated else as_text(record["resps"]),
            score=unit_score(record[metric], metric, where),
            finish_reason=None if is_generated else "loglikelihood",
        )


def _prompt(asked: Any) -> str:
    """The prompt of one request, or of all choices of a question."""
    prompts = []
    for one in asked if isinstance(asked, list) else [asked]:
        first = one.get("arg_0") if isinstance(one, dict) else one
        while isinstance(first, list) and len(first) == 1:
            first = first[0]
        prompts.append(as_text(first))
    return prompts[0] if len(prompts) == 1 else as_text(prompts)


def _answer(resps: Any) -> str:
    """The first reply as it came, before any filter."""
    while isinstance(resps, list) and resps:
        resps = resps[0]
    return as_text(resps) if resps != [] else ""


def _is_likelihood(resps: Any) -> bool:
    """Whether a reply is (log-likelihood, is it the greedy one) and no text."""
    while isinstance(resps, list) and len(resps) > 0 and isinstance(resps[0], list):
        resps = resps[0]
    return isinstance(resps, list) and len(resps) == 2 and str(resps[1]) in ("True", "False")


def _results(samples: Path, task: str, time: str) -> _Results:
    path = samples.with_name(f"results_{time}.json")
    if not time or not path.is_file() or path.stat().st_size > MOST_RESULTS_BYTES:
        return _Results()
    try:
        record = orjson.loads(path.read_bytes())
        higher = record.get("higher_is_better", {}).get(task, {})
        return _Results(
            model=str(record.get("model_name") or "unknown"),
            tool=f"lm-eval {record.get('lm_eval_version') or ''}".strip(),
            made_at=_instant(record.get("date")),
            scores=record.get("results", {}).get(task),
            lower_is_better=frozenset(name for name, is_higher in higher.items() if is_higher is False),
        )
    except (orjson.JSONDecodeError, AttributeError, TypeError) as error:
        raise ConfigError(f"not the results of lm-eval: {error}", where=str(path)) from None


def _instant(seconds: object) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if isinstance(seconds, int | float) else ""

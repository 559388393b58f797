"""Every Eval Ever: instance-level JSON lines (`*_samples.jsonl`), and the aggregate JSON beside them.

Read by its published schemas 0.2.2 and 0.3.0. A line is one sample under one evaluation result: `evaluation_name` is
the task, `evaluation_result_id` tells its metrics apart, `sample_id` its samples; several lines of a sample under one
result are its epochs.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from kvt_async.contract.errors import ConfigError
from kvt_async.imports.foreign_log import ForeignAnswer, ForeignLog, LogChoice, as_text, chosen, records, unit_score

_SCHEMA = "A line of Every Eval Ever has evaluation_name, sample_id, input, output and evaluation."
_FIELDS = ("evaluation_name", "sample_id", "input", "evaluation")
MOST_AGGREGATE_BYTES = 256 << 20


def is_instances(record: dict[str, Any]) -> bool:
    """Whether the first line of a file is of this format."""
    return "evaluation_name" in record and "sample_id" in record and "evaluation" in record


def read(path: Path, wanted: LogChoice) -> list[ForeignLog]:
    """The logs of a file of instances, one for each task. Raises ConfigError where a task has several metrics and none
    is chosen, or where a line is none of this format."""
    tasks: dict[str, set[str]] = {}
    first: dict[str, Any] = {}
    for _, record in _lines(path):
        first = first or record
        tasks.setdefault(str(record["evaluation_name"]), set()).add(_result(record))
    if not tasks:
        raise ConfigError("this file holds no instances", where=str(path), do=_SCHEMA)
    aggregate = _aggregate(path)
    version = str(first.get("schema_version", "")).strip()
    library = aggregate.get("eval_library") or {}
    made_by = f" from {library.get('name')} {library.get('version') or ''}".rstrip() if library.get("name") else ""
    logs = []
    for task, results in sorted(tasks.items()):
        if wanted.task is not None and wanted.task != task:
            continue
        result = chosen(sorted(results), wanted.metric, "metric", "--metric", path)
        logs.append(
            ForeignLog(
                path=path,
                tool=f"Every Eval Ever {version}{made_by}",
                model=str(first.get("model_id") or "unknown"),
                task=task,
                metric=result,
                variant="",
                made_at=datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(),
                answers=partial(_answers, path, task, result),
                mean=_mean(aggregate, result, path),
            )
        )
    return logs


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, record in records(path, _FIELDS, _SCHEMA):
        for name in ("input", "evaluation"):
            if not isinstance(record[name], dict):
                raise ConfigError(f"{name} is no object", where=where, do=_SCHEMA)
        yield where, record


def _result(record: dict[str, Any]) -> str:
    return str(record.get("evaluation_result_id") or record["evaluation_name"])


def _answers(path: Path, task: str, result: str) -> Iterator[ForeignAnswer]:
    epochs: dict[str, int] = {}
    for where, record in _lines(path):
        if str(record["evaluation_name"]) != task or _result(record) != result:
            continue
        sample = str(record["sample_id"])
        epochs[sample] = _epoch(record, epochs.get(sample, -1) + 1)
        asked, output, judged = record["input"], record.get("output") or {}, record["evaluation"]
        reference, usage = asked.get("reference"), record.get("token_usage") or {}
        error = record.get("error")
        yield ForeignAnswer(
            example_id=sample,
            epoch=epochs[sample],
            prompt=as_text(asked.get("formatted") or asked.get("raw") or ""),
            golds=tuple(map(as_text, reference if isinstance(reference, list) else [reference or ""])),
            text=_text(record, output.get("raw") if isinstance(output, dict) else output),
            score=None if error else unit_score(judged.get("score"), result, where),
            error=as_text(error)[:300] if error else None,
            prompt_tokens=_count(usage.get("input_tokens"), usage.get("input_tokens_cache_read")),
            completion_tokens=_count(usage.get("output_tokens")),
        )


def _epoch(record: dict[str, Any], otherwise: int) -> int:
    """From 0, as the metadata number them from 1; `otherwise` the place among the lines of a sample."""
    stated = str((record.get("metadata") or {}).get("epoch", ""))
    return int(stated) - 1 if stated.isdecimal() and int(stated) > 0 else otherwise


def _text(record: dict[str, Any], raw: Any) -> str:
    """The answer: the output, or what the assistant said last of several messages."""
    if raw is None:
        messages = [m for m in record.get("messages") or [] if isinstance(m, dict) and m.get("role") == "assistant"]
        raw = messages[-1].get("content") if messages else ""
    return as_text(raw[0] if isinstance(raw, list) and len(raw) == 1 else raw if raw is not None else "")


def _count(*parts: object) -> int | None:
    known = [part for part in parts if isinstance(part, int) and not isinstance(part, bool)]
    return sum(known) if known else None


def _aggregate(instances: Path) -> dict[str, Any]:
    """The aggregate file of these instances, which has their name without `_samples`; empty where there is none."""
    path = instances.with_name(f"{instances.stem.removesuffix('_samples')}.json")
    if not path.is_file() or path.stat().st_size > MOST_AGGREGATE_BYTES:
        return {}
    try:
        record = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        return {}
    return record if isinstance(record, dict) else {}


def _mean(aggregate: dict[str, Any], result: str, path: Path) -> float | None:
    for row in aggregate.get("evaluation_results") or []:
        if isinstance(row, dict) and result in (row.get("evaluation_result_id"), row.get("evaluation_name")):
            if (row.get("metric_config") or {}).get("lower_is_better") is True:
                raise ConfigError(
                    f"of {result} less is better: a loss can't be judged by it",
                    where=str(path),
                    do="Choose another metric with --metric.",
                )
            details = row.get("score_details") or {}
            # kvt's own score weighs length bins alike, and says the plain mean beside it
            plain = (details.get("details") or {}).get("mean_of_instances")
            score = plain if plain is not None else details.get("score")
            with suppress(ValueError):
                return float(score) if isinstance(score, int | float | str) else None
            return None
    return None

"""The rows of an imported group, each as (table, columns by name).

What a log can't tell is not made up: there are no instants, no attempts but the one that answered, no page of a server.
The score that the tool gave is a fact of the answer (`responses.usage_json`, `given`); the metric `given_score` reads
it.
"""

import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.errors import EndState, ErrorType
from kvt_async.contract.formulas.metric_needs import GIVEN_SCORE
from kvt_async.contract.formulas.prompt_text import cluster_sha256, messages_sha256
from kvt_async.contract.load import dump_yaml
from kvt_async.contract.settings import Settings
from kvt_async.data.bins import bin_of, bins_of, quantile_edges
from kvt_async.imports.foreign_log import ForeignAnswer, ForeignLog
from kvt_async.imports.imported_tasks import ImportedTask
from kvt_async.records import Json, Level
from kvt_async.session.experiment_rows import command_line

Row = tuple[str, Json]

ENDPOINT = "imported"
FROM = "imported.from"  # in the contract of an imported group, and of no other
PER_BIN = 25  # examples that make a length bin worth having
MOST_BINS = 5
_TEMPLATE = "{context}{question}"  # the context is empty: what the tool recorded as its prompt is the question
_CHARS = "approx:chars/4"
_COUNTED = "approx:as the log counted"


@dataclass(frozen=True, slots=True)
class ImportSession:
    """Where rows belong: the group and the session that imports."""

    group: str
    session_id: str

    @property
    def key(self) -> Json:
        return {"exp_group_id": self.group, "generation": 1}


def experiment_row(session: ImportSession, tool: str, model: str) -> Row:
    return "experiments", {**session.key, **_contract({FROM: tool, "model.name": model})}


def session_row(session: ImportSession, settings: Settings, notes: Sequence[str]) -> Row:
    config = dump_yaml(settings)
    return "sessions", {
        **session.key,
        "session_id": session.session_id,
        "started_at": utc_now(),
        "command": command_line(settings),
        "config_yaml": config,
        "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        "kvt_version": metadata.version("kvt"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node() or None,
        "notes_json": orjson.dumps(list(notes)).decode() if notes else None,
    }


def session_end_row(session: ImportSession) -> Row:
    end = {"ended_at": utc_now(), "exit_code": 0, "reason": "finished"}
    return "session_ends", {"session_id": session.session_id, **end}


def task_rows(session: ImportSession, task: ImportedTask) -> Iterator[Row]:
    """A task's data: bins by the lengths of its prompts, and its examples in the order of the first log."""
    log, dataset_id = task.first, task.dataset_id
    tokenizer = _COUNTED if task.is_counted else _CHARS
    selection = {"source": log.tool_name, "metric": log.metric, "variant": log.variant, "strategy": "imported"}
    yield (
        "datasets",
        {
            "dataset_id": dataset_id,
            "name": log.tool_name,
            "task": task.name,
            "tokenizer_name": tokenizer,
            "tokenizer_sha256": hashlib.sha256(tokenizer.encode()).hexdigest(),
            "metric": GIVEN_SCORE,
            "prompt_json": orjson.dumps({"template": _TEMPLATE, "system": None, "endpoint": "chat"}).decode(),
            "selection_json": _sorted(selection),
        },
    )
    histogram: dict[int, int] = {}
    for example_id in task.questions:
        length = task.lengths[example_id]
        histogram[length] = histogram.get(length, 0) + 1
    edges = quantile_edges(histogram, max(1, min(MOST_BINS, len(task.questions) // PER_BIN)))
    for b in bins_of(edges):
        limits = {"lo_tokens": b.lo_tokens, "hi_tokens": b.hi_tokens}
        yield "bins", {"dataset_id": dataset_id, "bin_idx": b.bin_idx, **limits}
    seen: set[str] = set()
    for answer in log.answers():
        if answer.example_id in task.questions and answer.example_id not in seen:
            length = task.lengths[answer.example_id]
            yield from _example_rows(dataset_id, answer, len(seen), length, bin_of(length, edges) or 0)
            seen.add(answer.example_id)
    whole = hashlib.sha256("".join(task.questions.values()).encode()).hexdigest()
    version = {"version": 1, "sha256": whole, "created_at": utc_now(), "n_entries": len(seen)}
    yield "manifests", {"dataset_id": dataset_id, **version}
    contract = {"dataset.id": dataset_id, "dataset.task": task.name, "dataset.metric": GIVEN_SCORE}
    own = {"task": task.name, "dataset_id": dataset_id, "look": 1}
    yield "task_contracts", {**session.key, **own, **_contract({**contract, "imported.measure": log.measure})}
    plan = {"dataset_id": dataset_id, "samples": task.epochs, "session_id": session.session_id, "created_at": utc_now()}
    yield "sample_plans", {**session.key, **plan}


def run_row(session: ImportSession, run_id: str, dataset_id: str, level: Level, log: ForeignLog) -> Row:
    return "runs", {
        **session.key,
        "run_id": run_id,
        "dataset_id": dataset_id,
        "model_name": log.model,
        "base_url": ENDPOINT,
        "engine_name": log.tool,
        "series": level.series,
        "kv_policy": level.policy,
        "kv_budget": level.budget,
        "kv_unit": level.unit,
        "kv_mode": level.mode,
        "kv_when": level.when,
        "is_full": int(level.is_full),
        "kv_apply": level.apply_via,
        "kv_params_json": "{}",
        "apply_json": _sorted({"apply": level.apply, "evidence": level.evidence}),
        "repeat_idx": level.repeat_idx,
        "prompt_template_version": log.tool,
        "decoding_json": "{}",
        "level_idx": level.level_idx,
        "created_at": utc_now(),
    }


def answer_rows(
    session: ImportSession, request_id: str, answer: ForeignAnswer, level: Level, log: ForeignLog
) -> Iterator[Row]:
    """A request with the one attempt that is known of it, and its response, or that there is none."""
    failed, run_id = answer.score is None, request_id.rpartition(":")[0]
    key, at = {"request_id": request_id, "attempt_idx": 0}, log.made_at
    asked = {"example_id": answer.example_id, "sample_idx": answer.epoch, "turn_idx": 0}
    sent = {"prompt_sha256": _prompt_sha256(answer), "created_at": at}
    yield "requests", {"request_id": request_id, "run_id": run_id, **asked, **sent}
    end = {
        "end_state": str(EndState.ERROR_EVENT if failed else EndState.JSON),
        "error_type": str(ErrorType.STREAM_ERROR) if failed else None,
        "error_message": answer.error,
    }
    when = {"session_id": session.session_id, "started_at": at, "endpoint": ENDPOINT, "latency_s": 0.0}
    yield "attempts", {**key, "series_idx": 0, **when, **end}
    counted = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
    yield "telemetry", {**key, "stamp_source": "user", **counted}
    if failed:
        yield "give_ups", {"request_id": request_id, "series_idx": 0, "reason": "not_retryable", "created_at": at}
        return
    given = {"score": answer.score, "metric": log.metric, "variant": log.variant, "by": log.tool}
    usage = {**{name: n for name, n in counted.items() if n is not None}, "given": given}
    stated = {"requested": level.budget, "unit": str(level.unit), "effective": level.budget, "source": "configured"}
    yield (
        "responses",
        {
            **key,
            "text": answer.text,
            "reasoning": answer.reasoning,
            "finish_reason": answer.finish_reason,
            "usage_json": orjson.dumps(usage).decode(),
            "kv_evidence_json": orjson.dumps(stated).decode(),
            "kv_effective": level.budget,
            "created_at": at,
        },
    )


def _example_rows(dataset_id: str, answer: ForeignAnswer, seq: int, length: int, bin_idx: int) -> Iterator[Row]:
    key = {"dataset_id": dataset_id, "example_id": answer.example_id}
    yield (
        "examples",
        {
            **key,
            "question": answer.prompt,
            "context": "",
            "answers_json": orjson.dumps(answer.golds).decode(),
            "meta_json": "{}",
            "context_sha256": cluster_sha256("", answer.example_id),
        },
    )
    lengths = {"token_len": length, "context_tokens": 0, "original_tokens": length, "prompt_truncated": 0}
    entry = {"seq": seq, "version": 1, "bin_idx": bin_idx, **lengths, "prompt_sha256": _prompt_sha256(answer)}
    yield "manifest_entries", {**key, **entry}


def _prompt_sha256(answer: ForeignAnswer) -> str:
    """Of the prompt as one message."""
    return messages_sha256([{"role": "user", "content": answer.prompt}])


def _contract(contract: Mapping[str, object]) -> Json:
    text = _sorted(contract)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return {"created_at": utc_now(), "contract_json": text, "contract_sha256": sha256}


def _sorted(value: Mapping[str, object]) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()

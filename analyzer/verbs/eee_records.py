"""One level's records as Every Eval Ever has them, by its published schemas 0.3.0 of an aggregate and of an instance.

Values of `additional_details`, `details` and `metadata` are texts there, whatever they say.
"""

import hashlib
import json
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from analyzer.read.runs import Run
from analyzer.results.results import Results
from analyzer.results.suite_results import SuiteResults
from analyzer.stage_answers import Json
from kvt_async.contract.settings import Settings

SCHEMA_VERSION = "0.3.0"
NO_DEVELOPER = "unspecified"  # of a model whose name has no owner; the datastore takes no `unknown`
_NO_FILE_NAME = re.compile(r'[<>:"\\|?*/\x00-\x1f]')


@dataclass(frozen=True)
class LevelRecord:
    """What all records of one level share."""

    evaluation_id: str
    model_id: str
    started: str  # seconds since 1970

    @classmethod
    def of(cls, suite: SuiteResults, run: Run, level: str) -> "LevelRecord":
        began = [session.started_at for session in suite.first.sessions[:1]]
        started = f"{datetime.fromisoformat(began[0]).timestamp():.0f}" if began else "0"
        model_id = "/".join(map(file_name, filter(None, run.model_name.split("/")))) or "model"
        return cls(f"{suite.first.group}/{model_id}/{level}/{started}", model_id, started)

    @property
    def folder(self) -> tuple[str, str]:
        """Developer and model, as the datastore's paths have them."""
        first, *rest = self.model_id.split("/")
        return (first, "_".join(rest)) if rest else (NO_DEVELOPER, first)

    @property
    def file_id(self) -> uuid.UUID:
        """The same for the same level, so that a second export takes the place of the first."""
        return uuid.UUID(bytes=hashlib.sha256(self.evaluation_id.encode()).digest()[:16], version=4)


def instance(row: dict[str, Any], record: LevelRecord, task: Results) -> Json:
    asked = f"{row['context']}\n\n{row['question']}" if row.get("context") else row["question"]
    text = [] if row["is_failure"] else [row["text"] or ""]
    is_later = row["turn_idx"] > 0
    told = [{"turn_idx": 0, "role": "user", "content": asked}]
    told += [{"turn_idx": 1, "role": "assistant", "content": answer} for answer in text]
    tokens = row["prompt_tokens"], row["completion_tokens"]
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": record.evaluation_id,
        "model_id": record.model_id,
        "evaluation_name": task.task,
        "evaluation_result_id": _result_id(task),
        "sample_id": row["example_id"],
        "sample_hash": hashlib.sha256((asked + "".join(row["golds"])).encode()).hexdigest(),
        "interaction_type": "multi_turn" if is_later else "single_turn",
        "input": {"raw": asked, "formatted": None, "reference": row["golds"], "choices": None},
        "output": None if is_later else {"raw": text, "reasoning_trace": None},
        "messages": told if is_later else None,
        "answer_attribution": [],
        "evaluation": {
            "score": row["score"],
            "is_correct": row["score"] >= 1,
            "num_turns": row["turn_idx"] + 1,
            "tool_calls_count": len(json.loads(row["tool_calls_json"] or "[]")),
        },
        "token_usage": None
        if None in tokens
        else {"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens)},
        "performance": {
            "latency_ms": _ms(row["latency_s"]),
            "time_to_first_token_ms": _ms(row["ttft_s"]),
        },
        "error": row["error_type"],
        "metadata": _texts(
            {
                "epoch": row["sample_idx"] + 1,
                "request_id": row["request_id"],
                "bin_idx": row["bin_idx"],
                "token_len": row["token_len"],
                "kept_tokens": row["kept_tokens"],
                "cached_tokens": row["cached_tokens"],
                "stop_reason": row["finish_reason"],
                "failure_label": row["failure_label"],
                "flags": row["flags"] or None,
                "tool_calls": row["tool_calls_json"],
                "context_sha256": row["context_sha256"],
                "earlier_turns": "left out" if is_later else None,
            }
        ),
    }


def aggregate_of(
    record: LevelRecord,
    runs: list[tuple[Results, Run]],
    means: dict[str, tuple[int, float]],
    settings: Settings,
    organization: str,
) -> Json:
    results, run = runs[0]
    evidence = results.evidence.get(run.run_id)
    developer, _ = record.folder
    versions = [session.kvt_version for session in results.sessions[-1:]]
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": record.evaluation_id,
        "evaluation_timestamp": record.started,
        "retrieved_timestamp": f"{datetime.now(UTC).timestamp():.0f}",
        "source_metadata": {
            "source_name": "kvt",
            "source_type": "evaluation_run",
            "source_organization_name": organization,
            "evaluator_relationship": "other",
            "additional_details": {"group": results.group, "contract_sha256": results.contract_sha256},
        },
        "eval_library": {
            "name": "kvt",
            "version": versions[0] if versions else "unknown",
            "additional_details": _texts({"analyzer_version": results.analyzer_version}),
        },
        "model_info": {
            "name": run.model_name,
            "id": record.model_id,
            "developer": developer,
            "inference_engine": {"name": run.engine_name},
            "additional_details": {"deployment_type": "unknown", "model_availability": "unknown"}
            | _texts(
                {
                    "kv_policy": run.kv_policy,
                    "kv_budget": run.kv_budget,
                    "kv_unit": run.kv_unit,
                    "kv_mode": run.kv_mode,
                    "kv_when": run.kv_when,
                    "kv_apply": run.kv_apply,
                    "kv_params": run.kv_params_json,
                    "series": run.series,
                    "is_full_cache": run.is_full,
                    "repeat": run.repeat_idx,
                    "budget_evidence": evidence and evidence.status,
                    "budget_evidence_reason": evidence and evidence.reason,
                    "budget_shown": evidence and evidence.effective_p50,
                }
            ),
        },
        "evaluation_results": [_result(record, task, of, means[of.run_id], settings) for task, of in runs],
    }


def _result(record: LevelRecord, task: Results, run: Run, mean: tuple[int, float], settings: Settings) -> Json:
    stat, drop = task.stat(run), task.drop(run)
    assert stat is not None, "a level without figures is left out"
    verdict = task.verdict(run.series)
    alpha = verdict.asked.get("alpha", settings.analysis.alpha) if verdict else settings.analysis.alpha
    score = stat.acc_mean if stat.acc_mean is not None else mean[1]
    uncertainty: Json = {"num_samples": stat.n}
    if stat.acc_std is not None:
        uncertainty["standard_deviation"] = stat.acc_std
    if stat.acc_ci_low is not None and stat.acc_ci_high is not None:
        uncertainty["confidence_interval"] = {
            "lower": stat.acc_ci_low,
            "upper": stat.acc_ci_high,
            "confidence_level": 1 - alpha,
            "method": stat.acc_ci_method or "unknown",
        }
    decoding = json.loads(run.decoding_json)
    generation = {name: decoding[name] for name in ("temperature", "top_p", "max_tokens") if decoding.get(name)}
    dataset = task.datasets[0]
    return {
        "evaluation_result_id": _result_id(task),
        "evaluation_name": task.task,
        "evaluation_timestamp": record.started,
        "source_data": {
            "dataset_name": f"{dataset['name']}/{dataset['task']}",
            "source_type": "other",
            "additional_details": _texts(
                {name: dataset[name] for name in ("dataset_id", "source_revision", "tokenizer_name")}
            ),
        },
        "metric_config": {
            "evaluation_description": f"{task.metric}, 0 for a request that failed; each length bin weighs the same",
            "metric_id": task.metric,
            "metric_name": task.metric,
            "metric_unit": "proportion",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
        },
        "score_details": {
            "score": score,
            "details": _texts(
                {
                    "mean_of_instances": mean[1],
                    "n_failures": stat.n_failures,
                    "n_contexts": stat.n_clusters,
                    "n_bins": len(task.bins),
                    "partial": "true" if task.partial else None,
                    "loss_against_full_cache": drop and drop.drop_mean,
                    "loss_ci_low": drop and drop.drop_ci_low,
                    "loss_ci_high": drop and drop.drop_ci_high,
                    "verdict_of_series": verdict and verdict.verdict_text,
                }
            ),
            "uncertainty": uncertainty,
        },
        "generation_config": {"generation_args": generation, "additional_details": _texts(decoding)},
    }


def _result_id(task: Results) -> str:
    return f"{task.task}:{task.metric}"


def file_name(word: str) -> str:
    """A part of a path as any system takes it."""
    name = _NO_FILE_NAME.sub("_", word).rstrip(". ") or "_"
    return f"{name}_" if name == "data" else name


def _texts(values: dict[str, Any]) -> dict[str, str]:
    """Those that are known, as texts."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if value is not None
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)

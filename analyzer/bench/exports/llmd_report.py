"""A stage as a benchmark report of llm-d, version 0.2.1: kvt's own figures and definitions, in its keys.

The schema is llmdbenchmark/analysis/benchmark_report/schema_v0_2_1.py of llm-d/llm-d-benchmark (2026-11), which forbids
keys that it does not know. It has no place for intervals. What is not known is left out: a mean is required wherever
there are statistics at all, and gaps between chunks of several tokens are none between tokens. Of the stack only the
name that the server calls itself is known.
"""

import hashlib
import json
import math
from importlib import metadata
from typing import Any

import numpy as np
import polars as pl

from analyzer.bench.figures.points import RATES
from analyzer.bench.figures.quantiles import Floats
from analyzer.bench.figures.stage_results import StageResult

Json = dict[str, Any]
VERSION = "0.2.1"
TIMES = {  # kvt's name -> (the report's, unit)
    "ttft": ("time_to_first_token", "s"),
    "tpot": ("time_per_output_token", "s/token"),
    "itl": ("inter_token_latency", "s/token"),
    "latency": ("request_latency", "s"),
}
RATE_NAMES = {
    "requests_per_s": ("request_rate", "queries/s"),
    "input_tokens_per_s": ("input_token_rate", "tokens/s"),
    "output_tokens_per_s": ("output_token_rate", "tokens/s"),
    "total_tokens_per_s": ("total_token_rate", "tokens/s"),
}
DISTRIBUTIONS = {"fixed": "fixed", "uniform": "uniform", "normal": "gaussian"}


def llmd_report(result: StageResult, frame: pl.DataFrame, group: str) -> Json:
    """`frame`: with_metrics of the stage's requests."""
    answered = frame.filter((pl.col("phase") == "measured") & (pl.col("state") == "response"))
    stage = result.stage
    rates = {name: RATES[name](result.rates).value for name in RATE_NAMES}
    throughput = {
        key: {"units": unit, "mean": rates[name]}
        for name, (key, unit) in RATE_NAMES.items()
        if math.isfinite(rates[name])
    }
    shown = TIMES if "itl_token" not in result.summaries else {n: t for n, t in TIMES.items() if n != "itl"}
    latency = {
        key: statistics for name, (key, unit) in shown.items() if (statistics := _statistics(result.values[name], unit))
    }
    requests = {
        "total": result.n_started + stage.n_owed,
        "failures": result.n_failed,
        "incomplete": stage.n_owed,
        "input_length": _statistics(answered["prompt_tokens"].cast(pl.Float64).to_numpy(), "count"),
        "output_length": _statistics(answered["tokens"].cast(pl.Float64).to_numpy(), "count"),
    }
    aggregate = {"requests": _known(requests), "latency": latency, "throughput": throughput}
    return {
        "version": VERSION,
        "run": _known({"uid": stage.run_id, "eid": group, "time": _time(result), "description": stage.series}),
        "scenario": {"stack": [_stack(result)], "load": _load(result)},
        "results": _known(
            {
                "request_performance": {"aggregate": {name: part for name, part in aggregate.items() if part}},
                "observability": _observability(result),
            }
        ),
    }


def _statistics(values: Floats, units: str) -> Json | None:
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    levels = {f"p{p}": float(np.percentile(values, p)) for p in (1, 5, 10, 25, 50, 75, 90, 95, 99)}
    return {
        "units": units,
        "mean": float(values.mean()),
        "stddev": float(values.std()),
        "min": float(values.min()),
        **levels,
        "max": float(values.max()),
    }


def _time(result: StageResult) -> Json:
    """When the stage began and for how long its windows were measured."""
    windows = result.stage.windows
    seconds = sum((w.drained_ns - w.start_ns) / 1e9 for w in windows if w.drained_ns is not None)
    return {"start": windows[0].started_at, "duration": f"PT{seconds:.3f}S"} if windows else {}


def _stack(result: StageResult) -> Json:
    tool, _, version = result.stage.engine_name.partition(" ")
    stage = result.stage
    standardized = {"kind": "generic", "tool": tool or "unknown", "tool_version": version or "unknown"}
    budget = {"level": stage.level, "kv_budget": stage.kv_budget} if stage.level else {}
    return {
        "metadata": {"label": "server", "cfg_id": _hash([stage.engine_name, stage.model_name, stage.level])},
        "standardized": {**standardized, "model": {"name": stage.model_name}, **budget},
        "native": {},
    }


def _load(result: StageResult) -> Json:
    stage = result.stage
    work = stage.workload
    lengths = result.lengths
    asked = {
        "input_seq_len": _length(
            work.get("input_tokens"), lengths.input_got / lengths.n_input if lengths.n_input else 0.0
        ),
        "output_seq_len": _length(
            work.get("output_tokens"), lengths.output_got / lengths.n_output if lengths.n_output else 0.0
        ),
    }
    standardized = {
        "tool": "kvt",
        "tool_version": metadata.version("kvt"),
        "source": "random" if work.get("kind") == "synthetic" else "sampled",
        "stage": stage.stage_idx,
        "rate_qps": stage.rate_per_s,
        "concurrency": stage.concurrency,
        **asked,
    }
    return {
        "metadata": {"cfg_id": _hash(work)},
        "standardized": _known(standardized),
        "native": {"config": {"workload": work, "plan": stage.plan, "load": stage.load, "repeat": stage.repeat_idx}},
    }


def _length(asked: Any, mean: float) -> Json:
    """A length's distribution as it was asked for; of prompts from a file the mean that was seen."""
    if not isinstance(asked, dict) or asked.get("kind") not in DISTRIBUTIONS:
        return {"distribution": "other", "value": mean}
    shape: Json = {"distribution": DISTRIBUTIONS[asked["kind"]], "value": asked["value"]}
    if asked["kind"] == "uniform":
        shape |= {"value": (asked["low"] + asked["high"]) / 2, "min": asked["low"], "max": asked["high"]}
    if asked["kind"] == "normal":
        shape |= {"std_dev": asked["std"]}
    return shape


def _observability(result: StageResult) -> Json | None:
    """Gauges of the server's page over the stage, as far as the report has places for them."""
    if result.server is None:
        return None
    places = {"kv_usage": ("kv_cache_usage", "fraction"), "running": ("running_requests", "count")}
    places["waiting"] = ("waiting_requests", "count")
    spans = result.server.gauges
    aggregate = {
        key: {"units": unit, "mean": spans[name].mean, "max": spans[name].maximum}
        for name, (key, unit) in places.items()
        if name in spans
    }
    return {"components": [{"component_label": "server", "aggregate": aggregate}]} if aggregate else None


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _known(row: Json) -> Json:
    return {name: value for name, value in row.items() if value is not None}

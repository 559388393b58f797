"""A stage as `vllm bench serve --save-result --save-detailed` writes it: its keys, under its formulas.

The keys are those of vllm/benchmarks/serve.py at 009e6d4 (2026-11), the marks and gaps those of `--as vllm`. A list has
an entry for every measured request, a failed one with zeros and its error, as there. The figures are of the lists.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from analyzer.bench.figures.stage_results import StageResult
from analyzer.bench.report.as_tools import Floats, as_tool, replies_of, vllm_gaps
from kvt_async.contract.errors import ConfigError

Json = dict[str, Any]
PERCENTILES = (50, 90, 95, 99)
TIMES = {"ttft": "ttft", "tpot": "tpot", "e2el": "latency"}  # vLLM's names of the columns


def vllm_file(
    result: StageResult, frame: pl.DataFrame, texts: Mapping[str, str] | None, metadata: Mapping[str, str]
) -> Json:
    """`frame`: with_metrics of the stage's requests. `texts`: of the replies, by request; None: they stay out."""
    stage = result.stage
    measured = frame.filter((pl.col("phase") == "measured") & (pl.col("state") != "pending")).sort("start_ns", "number")
    answered = measured.filter(pl.col("state") == "response")
    figures, replies = as_tool("vllm", answered), replies_of("vllm", answered)
    gaps = vllm_gaps(replies)
    head: Json = {
        "date": _date(result),
        "endpoint_type": "openai-chat",
        "backend": "openai-chat",
        "label": stage.series,
        "model_id": stage.model_name,
        "tokenizer_id": stage.workload.get("tokenizer"),
        "num_prompts": measured.height,
        "request_rate": "inf" if stage.rate_per_s is None else stage.rate_per_s,
        "burstiness": {"constant": "inf", "gamma": stage.burstiness}.get(stage.arrival or "", 1.0),
        "max_concurrency": stage.concurrency if stage.concurrency is not None else stage.max_in_flight,
    }
    body: Json = {
        "duration": figures.duration_s,
        "completed": answered.height,
        "failed": measured.height - answered.height,
        "total_input_tokens": int(replies["prompt"].sum()),
        "total_output_tokens": int(replies["tokens"].sum()),
        "request_throughput": _finite(figures.requests_per_s),
        "request_goodput": result.n_good / figures.duration_s if stage.slo and figures.duration_s else None,
        "output_throughput": _finite(figures.output_tokens_per_s),
        "total_token_throughput": _finite(figures.total_tokens_per_s),
        **_per_request(measured, replies, gaps, texts),
        **_peaks(replies, gaps),
        "rtfx": 0.0,
        **_drafting(result),
    }
    for name, column in TIMES.items():
        body |= _statistics(name, replies[column].drop_nulls().cast(pl.Float64).to_numpy())
    body |= _statistics("itl", np.concatenate(gaps) if gaps else np.empty(0))
    if taken := sorted(set(metadata) & {*head, *body}):
        raise ConfigError(f"{taken[0]!r} is a key of the file itself", where="--metadata", do="Choose another name.")
    return {**head, **metadata, **body}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _date(result: StageResult) -> str:
    started = result.stage.windows[0].started_at if result.stage.windows else ""
    return datetime.fromisoformat(started).strftime("%Y%m%d-%H%M%S") if started else ""


def _per_request(
    measured: pl.DataFrame, replies: pl.DataFrame, gaps: list[Floats], texts: Mapping[str, str] | None
) -> Json:
    """The lists, in the order in which requests were sent; times in seconds, starts on the client's own clock."""
    rows = {row["request_id"]: (row, own) for row, own in zip(replies.iter_rows(named=True), gaps, strict=True)}
    lists: Json = {
        name: [] for name in ("input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "errors")
    }
    for request in measured.iter_rows(named=True):
        reply, own = rows.get(request["request_id"], (None, np.empty(0)))
        lists["input_lens"].append(reply["prompt"] if reply else request["prompt_tokens"] or request["input_tokens"])
        lists["output_lens"].append((reply["tokens"] or 0) if reply else 0)
        lists["ttfts"].append((reply["ttft"] or 0.0) if reply else 0.0)
        lists["itls"].append(own.tolist())
        lists["latencies"].append((reply["latency"] or 0.0) if reply else 0.0)
        lists["start_times"].append((reply["start"] if reply else request["start_ns"] or 0) / 1e9)
        status = f" (HTTP {request['http_status']})" if request["http_status"] else ""
        lists["errors"].append("" if reply else f"{request['error_type'] or 'unknown'}{status}")
    if texts is not None:
        lists["generated_texts"] = [texts.get(request_id, "") for request_id in measured["request_id"]]
    return lists


def _peaks(replies: pl.DataFrame, gaps: list[Floats]) -> Json:
    """The most events of a whole second since the first start, and the most requests between start and end at once."""
    times = replies.select("start", "ttft", "latency").drop_nulls()
    if not times.height:
        return {"max_output_tokens_per_s": 0.0, "max_concurrent_requests": 0}
    starts = replies["start"].cast(pl.Float64).to_numpy() / 1e9
    begin = starts - starts.min()
    first, latency = replies["ttft"].fill_null(0).to_numpy(), replies["latency"].fill_null(0).to_numpy()
    arrived = [b + f + np.concatenate(([0.0], np.cumsum(own))) for b, f, own in zip(begin, first, gaps, strict=True)]
    per_second = np.bincount(np.concatenate(arrived).astype(np.int64))
    instants, steps = np.concatenate((begin, begin + latency)), np.repeat([1, -1], len(begin))
    order = np.lexsort((steps, instants))  # who leaves at an instant goes before who comes
    return {
        "max_output_tokens_per_s": float(per_second.max()),
        "max_concurrent_requests": int(np.cumsum(steps[order]).max()),
    }


def _statistics(name: str, values: Floats) -> Json:
    """Milliseconds; of nothing vLLM says 0."""
    ms = 1000 * (values[~np.isnan(values)] if len(values) else np.zeros(1))
    ms = ms if len(ms) else np.zeros(1)
    return {
        f"mean_{name}_ms": float(ms.mean()),
        f"median_{name}_ms": float(np.median(ms)),
        f"std_{name}_ms": float(ms.std()),
        **{f"p{p}_{name}_ms": float(np.percentile(ms, p)) for p in PERCENTILES},
    }


def _drafting(result: StageResult) -> Json:
    """Speculative decoding, where the server says of it: the rate in percent."""
    drafting = result.server.drafting if result.server is not None else None
    if drafting is None:
        return {}
    rows = {
        "spec_decode_acceptance_rate": _finite(100 * drafting.acceptance),
        "spec_decode_acceptance_length": _finite(drafting.accepted_length),
        "spec_decode_per_position_acceptance_rates": list(drafting.by_position),
    }
    return {name: value for name, value in rows.items() if value not in (None, [])}

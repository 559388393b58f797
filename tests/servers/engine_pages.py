"""Metrics pages as engines write them: short excerpts in each one's format, made from one state of a server.

A page says what its engine says and no more. Label values are awkward on purpose: names hold braces and spaces.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

BUCKETS = (0.01, 0.1, 1.0)


@dataclass
class Done:
    """What a server has done since it was started, and what it does now. Seconds are those of every request."""

    requests: int = 0
    prompt_tokens: int = 0  # cached ones among them
    cached_tokens: int = 0
    generated: int = 0
    drafts: int = 0
    draft_tokens: int = 0
    accepted: tuple[int, ...] = ()  # by place in the draft
    preempted: int = 0
    ttft_s: float = 0.05
    queue_s: float = 0.02
    running: int = 0
    waiting: int = 0
    paused: int = 0
    kv_usage: float = 0.0
    accept_length: float = 0.0
    accept_rate: float = 0.0
    drafted: tuple[int, ...] = field(default=())  # by place in the draft


def vllm(now: Done, engines: int = 1) -> str:
    """vLLM 0.33, with as many engines (data parallel) as asked, each of which does the same."""
    lines: list[str] = []
    for name, kind, value in (
        ("num_requests_running", "gauge", now.running),
        ("num_requests_waiting", "gauge", now.waiting),
        ("kv_cache_usage_perc", "gauge", now.kv_usage),
        ("prefix_cache_queries_total", "counter", 30 * now.prompt_tokens),  # as under load: looked up step by step
        ("prefix_cache_hits_total", "counter", 20 * now.cached_tokens),
        ("prompt_tokens_cached_total", "counter", now.cached_tokens),
        ("num_preemptions_total", "counter", now.preempted),
        ("prompt_tokens_total", "counter", now.prompt_tokens),
        ("generation_tokens_total", "counter", now.generated),
        ("spec_decode_num_drafts_total", "counter", now.drafts),
        ("spec_decode_num_draft_tokens_total", "counter", now.draft_tokens),
        ("spec_decode_num_accepted_tokens_total", "counter", sum(now.accepted)),
    ):
        lines += _family(f"vllm:{name}", kind, [(_vllm(n), value) for n in range(engines)])
    per_place = [(_vllm(n) | {"position": str(at)}, k) for n in range(engines) for at, k in enumerate(now.accepted)]
    lines += _family("vllm:spec_decode_num_accepted_tokens_per_pos_total", "counter", per_place)
    for name, seconds in (("time_to_first_token_seconds", now.ttft_s), ("request_queue_time_seconds", now.queue_s)):
        lines += _histogram(f"vllm:{name}", [_vllm(n) for n in range(engines)], now.requests, seconds)
    return "\n".join(lines) + "\n"


def sglang(now: Done) -> str:
    """SGLang 0.5, scheduling by priority: its queues are told in all and by priority."""
    own = {"engine_type": "unified", "model_name": "a {b}", "tp_rank": "0"}
    lines: list[str] = []
    for name, kind, value in (
        ("num_retracted_reqs", "gauge", now.paused),
        ("token_usage", "gauge", now.kv_usage),
        ("cache_hit_rate", "gauge", 0.5),
        ("spec_accept_length", "gauge", now.accept_length),
        ("spec_accept_rate", "gauge", now.accept_rate),
        ("num_retracted_requests_total", "counter", now.preempted),
        ("prompt_tokens_total", "counter", now.prompt_tokens),
        ("generation_tokens_total", "counter", now.generated),
        ("spec_verify_calls_total", "counter", now.drafts),
    ):
        lines += _family(f"sglang:{name}", kind, [(own, value)])
    for name, value in (("num_running_reqs", now.running), ("num_queue_reqs", now.waiting)):
        lines += _family(f"sglang:{name}", "gauge", [(own | {"priority": p}, value) for p in ("", "1")])
    half = now.cached_tokens // 2
    sources = [(own | {"cache_source": "device"}, half), (own | {"cache_source": "host"}, now.cached_tokens - half)]
    lines += _family("sglang:cached_tokens_total", "counter", sources)
    for name, seconds in (("time_to_first_token_seconds", now.ttft_s), ("queue_time_seconds", now.queue_s)):
        lines += _histogram(f"sglang:{name}", [own], now.requests, seconds)
    return "\n".join(lines) + "\n"


def llama_cpp(now: Done) -> str:
    """llama.cpp's server since August 2026: prompt tokens from the cache are counted apart."""
    lines: list[str] = []
    for name, kind, value in (
        ("prompt_tokens_total", "counter", now.prompt_tokens - now.cached_tokens),
        ("prompt_tokens_cached_total", "counter", now.cached_tokens),
        ("tokens_predicted_total", "counter", now.generated),
        ("n_tokens_max", "counter", 77),
        ("spec_decode_num_draft_tokens_total", "counter", now.draft_tokens),
        ("spec_decode_num_accepted_tokens_total", "counter", sum(now.accepted)),
        ("spec_decode_num_drafts_total", "counter", now.drafts),
        ("requests_processing", "gauge", now.running),
        ("requests_deferred", "gauge", now.waiting),
    ):
        lines += _family(f"llamacpp:{name}", kind, [({}, value)])
    per_place = [({"position": str(at)}, k) for at, k in enumerate(now.accepted)]
    lines += _family("llamacpp:spec_decode_num_accepted_tokens_per_pos_total", "counter", per_place)
    return "\n".join(lines) + "\n"


def tensorrt_llm(now: Done) -> str:
    """trtllm-serve 1.2, /prometheus/metrics."""
    own = {"engine_type": "trtllm", "model_name": "a {b}"}
    lines: list[str] = []
    for name, kind, value in (
        ("num_requests_running", "gauge", now.running),
        ("num_requests_waiting", "gauge", now.waiting),
        ("num_paused_requests", "gauge", now.paused),
        ("kv_cache_utilization", "gauge", now.kv_usage),
        ("prompt_tokens_total", "counter", now.prompt_tokens),
        ("generation_tokens_total", "counter", now.generated),
        ("prompt_cached_tokens_total", "counter", now.cached_tokens),
    ):
        lines += _family(f"trtllm_{name}", kind, [(own, value)])
    for name, counts in (("drafted", now.drafted), ("accepted", now.accepted)):
        places = [(own | {"token_position": str(at)}, n) for at, n in enumerate(counts)]
        lines += _family(f"trtllm_spec_decode_{name}_tokens_total", "counter", places)
    for name, seconds in (("time_to_first_token_seconds", now.ttft_s), ("request_queue_time_seconds", now.queue_s)):
        lines += _histogram(f"trtllm_{name}", [own], now.requests, seconds)
    return "\n".join(lines) + "\n"


def iterations(now: Done, drafts: Sequence[tuple[int, int, int]] = ()) -> str:
    """trtllm-serve 1.2, /metrics: what was done since the last reading; `drafts`: (requests with drafts, tokens
    drafted, tokens accepted) of each iteration."""
    entries = []
    for n, (requests, drafted, accepted) in enumerate(drafts or [(0, 0, 0)]):
        spec = {"numDraftTokens": drafted, "numAcceptedTokens": accepted, "numRequestsWithDraftTokens": requests}
        entries.append(
            {
                "iter": n,
                "numActiveRequests": now.running,
                "numQueuedRequests": now.waiting,
                "inflightBatchingStats": {"numPausedRequests": now.paused, "numScheduledRequests": now.running},
                "kvCacheStats": {"maxNumBlocks": 200, "usedNumBlocks": round(200 * now.kv_usage), "reusedBlocks": 3},
                **({"specDecodingStats": spec} if drafts else {}),
            }
        )
    return orjson.dumps(entries).decode()


PAGES: Mapping[str, Callable[[Done], str]] = {
    "vLLM": vllm,
    "SGLang": sglang,
    "llama.cpp": llama_cpp,
    "TensorRT-LLM": tensorrt_llm,
}


def _vllm(n: int) -> dict[str, str]:
    return {"engine": str(n), "model_name": 'a "model" {of} ours'}


def _family(name: str, kind: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> list[str]:
    head = [f"# HELP {name} Of this.", f"# TYPE {name.removesuffix('_total')} {kind}"]
    return [*head, *(f"{name}{_labels(labels)} {float(value)}" for labels, value in samples)]


def _histogram(name: str, owners: Sequence[Mapping[str, str]], n: int, seconds: float) -> list[str]:
    """`n` observations of so many seconds, of each owner."""
    lines = [f"# TYPE {name} histogram"]
    for own in owners:
        edges = [*((repr(edge), n if seconds <= edge else 0) for edge in BUCKETS), ("+Inf", n)]
        lines += [f"{name}_bucket{_labels({**own, 'le': edge})} {float(count)}" for edge, count in edges]
        lines += [f"{name}_sum{_labels(own)} {n * seconds}", f"{name}_count{_labels(own)} {float(n)}"]
    return lines


def _labels(labels: Mapping[str, str]) -> str:
    escaped = ((key, value.replace('"', r"\"")) for key, value in labels.items())
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped) + "}" if labels else ""

"""What servers say of themselves on their metrics pages: the one table of names, figure by figure and engine by engine.

Runner and analyzer read it alike: who takes samples of a page, who counts prefix hits, who puts a stage beside them.
Today's name of an engine comes first, older ones follow. `_total`, which pages write behind a counter or not, is left
off. `name{position="0"}` is that position's sample alone: see `joined_key`. docs/BENCH.md names the sources.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from kvt_async.contract.formulas.metric_samples import Metrics, keys_of, value_of


class FigureKind(StrEnum):
    """How a figure's label sets, and its endpoints, are put together: shares and means by the largest, all others by
    their sum."""

    COUNTER = "counter"
    GAUGE = "gauge"
    SHARE = "share"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class ServerFigure:
    """One figure. `names`: engine -> its names; an engine without any doesn't say."""

    kind: FigureKind
    unit: str
    says: str
    names: Mapping[str, tuple[str, ...]]

    def name_on(self, metrics: Metrics) -> str | None:
        """The first of the names that a page has; None: it has none."""
        return next((name for names in self.names.values() for name in names if keys_of(metrics, name)), None)

    def value(self, metrics: Metrics) -> float | None:
        """The figure on one page, for counters, gauges and shares; None: the page doesn't say."""
        name = self.name_on(metrics)
        return None if name is None else value_of(metrics, name)


ENGINES: Mapping[str, str] = {  # engine -> how names on its page begin that no engine before it has
    "kvt": "kvt:",
    "vLLM": "vllm:",
    "SGLang": "sglang:",
    "llama.cpp": "llamacpp:",
    "TensorRT-LLM": "trtllm_",
    "Dynamo": "dynamo_",
    "TGI": "tgi_",
}
# kvt's own server speaks vLLM's names where the meaning is the same, so it has no names of its own below.
FIGURES: Mapping[str, ServerFigure] = {
    "ttft": ServerFigure(
        FigureKind.HISTOGRAM,
        "seconds",
        "time to first token",
        {
            "vLLM": ("vllm:time_to_first_token_seconds",),
            "SGLang": ("sglang:time_to_first_token_seconds",),
            "TensorRT-LLM": ("trtllm_time_to_first_token_seconds",),
            "Dynamo": ("dynamo_frontend_time_to_first_token_seconds",),
        },
    ),
    "queue": ServerFigure(
        FigureKind.HISTOGRAM,
        "seconds",
        "wait before a request runs",
        {
            "vLLM": ("vllm:request_queue_time_seconds",),
            "SGLang": ("sglang:queue_time_seconds",),
            "TensorRT-LLM": ("trtllm_request_queue_time_seconds",),
            "TGI": ("tgi_request_queue_duration",),
        },
    ),
    "prefill": ServerFigure(
        FigureKind.HISTOGRAM,
        "seconds",
        "reading of the prompt",
        {
            "vLLM": ("vllm:request_prefill_time_seconds",),
            "TensorRT-LLM": ("trtllm_request_prefill_time_seconds",),
        },
    ),
    "decode": ServerFigure(
        FigureKind.HISTOGRAM,
        "seconds",
        "generation after the first token",
        {
            "vLLM": ("vllm:request_decode_time_seconds",),
            "TensorRT-LLM": ("trtllm_request_decode_time_seconds",),
        },
    ),
    "itl": ServerFigure(
        FigureKind.HISTOGRAM,
        "seconds",
        "time between tokens",
        {
            "vLLM": ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
            "SGLang": ("sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds"),
            "TensorRT-LLM": ("trtllm_time_per_output_token_seconds",),
            "Dynamo": ("dynamo_frontend_inter_token_latency_seconds",),
            "TGI": ("tgi_request_mean_time_per_token_duration",),
        },
    ),
    "e2e": ServerFigure(
        FigureKind.HISTOGRAM,
        "seconds",
        "whole request",
        {
            "vLLM": ("vllm:e2e_request_latency_seconds",),
            "SGLang": ("sglang:e2e_request_latency_seconds",),
            "TensorRT-LLM": ("trtllm_e2e_request_latency_seconds",),
            "Dynamo": ("dynamo_frontend_request_duration_seconds",),
            "TGI": ("tgi_request_duration",),
        },
    ),
    "running": ServerFigure(
        FigureKind.GAUGE,
        "requests",
        "running now",
        {
            "vLLM": ("vllm:num_requests_running",),
            "SGLang": ("sglang:num_running_reqs",),
            "llama.cpp": ("llamacpp:requests_processing",),
            "TensorRT-LLM": ("trtllm_num_requests_running", "trtllm_iteration_num_active_requests"),
            "Dynamo": ("dynamo_frontend_active_requests", "dynamo_frontend_inflight_requests"),
            "TGI": ("tgi_batch_current_size",),
        },
    ),
    "waiting": ServerFigure(
        FigureKind.GAUGE,
        "requests",
        "waiting now",
        {
            "vLLM": ("vllm:num_requests_waiting",),
            "SGLang": ("sglang:num_queue_reqs",),
            "llama.cpp": ("llamacpp:requests_deferred",),
            "TensorRT-LLM": ("trtllm_num_requests_waiting", "trtllm_iteration_num_queued_requests"),
            "Dynamo": ("dynamo_frontend_queued_requests",),
            "TGI": ("tgi_queue_size",),
        },
    ),
    "preemptions": ServerFigure(
        FigureKind.COUNTER,
        "requests",
        "running requests that lost their KV cache and began again",
        {
            "vLLM": ("vllm:num_preemptions",),
            "SGLang": ("sglang:num_retracted_requests",),
        },
    ),
    "paused": ServerFigure(
        FigureKind.GAUGE,
        "requests",
        "begun, and paused for want of KV cache now",
        {
            "SGLang": ("sglang:num_retracted_reqs",),
            "TensorRT-LLM": ("trtllm_num_paused_requests", "trtllm_iteration_num_paused_requests"),
        },
    ),
    "kv_usage": ServerFigure(
        FigureKind.SHARE,
        "share of the KV cache",
        "KV cache in use now",
        {
            "vLLM": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
            "SGLang": ("sglang:token_usage",),
            "llama.cpp": ("llamacpp:kv_cache_usage_ratio",),
            "TensorRT-LLM": ("trtllm_kv_cache_utilization", "trtllm_iteration_kv_cache_utilization"),
        },
    ),
    "prompt_tokens": ServerFigure(
        FigureKind.COUNTER,
        "tokens",
        "prompt tokens that came in",
        {
            "vLLM": ("vllm:prompt_tokens",),
            "SGLang": ("sglang:prompt_tokens",),
            "TensorRT-LLM": ("trtllm_prompt_tokens",),
        },
    ),
    "computed_prompt_tokens": ServerFigure(
        FigureKind.COUNTER,
        "tokens",
        "prompt tokens that came in and were in no cache",
        {"llama.cpp": ("llamacpp:prompt_tokens",)},
    ),
    "cached_tokens": ServerFigure(
        FigureKind.COUNTER,
        "tokens",
        "prompt tokens taken from the prefix cache",
        {
            "vLLM": ("vllm:prompt_tokens_cached", "vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"),
            "SGLang": ("sglang:cached_tokens",),
            "llama.cpp": ("llamacpp:prompt_tokens_cached",),
            "TensorRT-LLM": ("trtllm_prompt_cached_tokens",),
        },
    ),
    "generation_tokens": ServerFigure(
        FigureKind.COUNTER,
        "tokens",
        "tokens generated",
        {
            "vLLM": ("vllm:generation_tokens",),
            "SGLang": ("sglang:generation_tokens",),
            "llama.cpp": ("llamacpp:tokens_predicted",),
            "TensorRT-LLM": ("trtllm_generation_tokens",),
            "Dynamo": ("dynamo_frontend_output_tokens",),
        },
    ),
    "drafts": ServerFigure(
        FigureKind.COUNTER,
        "drafts",
        "drafts that the model has checked",
        {
            "vLLM": ("vllm:spec_decode_num_drafts",),
            "SGLang": ("sglang:spec_verify_calls",),
            "llama.cpp": ("llamacpp:spec_decode_num_drafts",),
            "TensorRT-LLM": ('trtllm_spec_decode_drafted_tokens{position="0"}', "trtllm_iteration_drafts"),
        },
    ),
    "draft_tokens": ServerFigure(
        FigureKind.COUNTER,
        "tokens",
        "tokens drafted",
        {
            "vLLM": ("vllm:spec_decode_num_draft_tokens",),
            "llama.cpp": ("llamacpp:spec_decode_num_draft_tokens",),
            "TensorRT-LLM": (
                "trtllm_spec_decode_drafted_tokens",
                "trtllm_spec_decode_num_draft_tokens",
                "trtllm_iteration_draft_tokens",
            ),
        },
    ),
    "accepted_tokens": ServerFigure(
        FigureKind.COUNTER,
        "tokens",
        "drafted tokens that were accepted",
        {
            "vLLM": ("vllm:spec_decode_num_accepted_tokens",),
            "llama.cpp": ("llamacpp:spec_decode_num_accepted_tokens",),
            "TensorRT-LLM": (
                "trtllm_spec_decode_accepted_tokens",
                "trtllm_spec_decode_num_accepted_tokens",
                "trtllm_iteration_accepted_tokens",
            ),
        },
    ),
    "accepted_per_position": ServerFigure(
        FigureKind.COUNTER,
        "tokens",
        "of them, by their place in the draft",
        {
            "vLLM": ("vllm:spec_decode_num_accepted_tokens_per_pos",),
            "llama.cpp": ("llamacpp:spec_decode_num_accepted_tokens_per_pos",),
            "TensorRT-LLM": ("trtllm_spec_decode_accepted_tokens",),
        },
    ),
    "accept_length": ServerFigure(
        FigureKind.SHARE,
        "tokens a draft",
        "tokens that a draft brings, the model's own next one included, lately",
        {"SGLang": ("sglang:spec_accept_length",), "TensorRT-LLM": ("trtllm_spec_decode_acceptance_length",)},
    ),
    "accept_rate": ServerFigure(
        FigureKind.SHARE,
        "share of drafted tokens",
        "drafted tokens that are accepted, lately",
        {"SGLang": ("sglang:spec_accept_rate",)},
    ),
}
_POSITIONED = {  # counters whose samples are kept apart by their place in a draft
    "vllm:spec_decode_num_accepted_tokens_per_pos",
    "llamacpp:spec_decode_num_accepted_tokens_per_pos",
    "trtllm_spec_decode_accepted_tokens",
    "trtllm_spec_decode_drafted_tokens",
}
_POSITION_LABELS = ("position", "token_position")


@dataclass(frozen=True, slots=True)
class CacheCounters:
    """Prefix hits of one engine. `hits`: prompt tokens found in the cache; `queries`: counters whose sum is of so many
    that were looked up."""

    hits: str
    queries: tuple[str, ...]


# vLLM's hits and queries count look-ups, which a request that found no room may repeat; what it counts of a prompt as
# it is taken in is counted once.
CACHE_COUNTERS = (  # the first of them that a page has holds
    CacheCounters("vllm:prompt_tokens_cached", ("vllm:prompt_tokens",)),
    CacheCounters("vllm:prefix_cache_hits", ("vllm:prefix_cache_queries",)),
    CacheCounters("vllm:gpu_prefix_cache_hits", ("vllm:gpu_prefix_cache_queries",)),  # vLLM before 0.10
    CacheCounters("sglang:cached_tokens", ("sglang:prompt_tokens",)),
    CacheCounters("llamacpp:prompt_tokens_cached", ("llamacpp:prompt_tokens", "llamacpp:prompt_tokens_cached")),
    CacheCounters("trtllm_prompt_cached_tokens", ("trtllm_prompt_tokens",)),
    CacheCounters(
        "trtllm_iteration_reused_blocks", ("trtllm_iteration_reused_blocks", "trtllm_iteration_missed_blocks")
    ),
)


def engine_of(metrics: Iterable[str]) -> str | None:
    """Whose page has these names; None: nobody's that the table knows."""
    names = list(metrics)
    return next((engine for engine, head in ENGINES.items() if any(name.startswith(head) for name in names)), None)


def joined_key(name: str, labels: Mapping[str, str]) -> str:
    """Under which key a page's sample is stored: its name, and its place in a draft where the table wants that."""
    if name.removesuffix("_total") in _POSITIONED:
        place = next((labels[label] for label in _POSITION_LABELS if label in labels), None)
        if place is not None:
            return f'{name}{{position="{place}"}}'
    return name


def is_part(labels: Mapping[str, str]) -> bool:
    """Whether a sample is a part of another one that holds the whole: SGLang's queues by priority."""
    return bool(labels.get("priority"))


@cache
def sample_names() -> frozenset[str]:
    """Names of all counters, gauges and shares of the table, `_total` left off."""
    figures = [figure for figure in FIGURES.values() if figure.kind != FigureKind.HISTOGRAM]
    names = {name for figure in figures for engine in figure.names.values() for name in engine}
    names |= {name for counters in CACHE_COUNTERS for name in (counters.hits, *counters.queries)}
    return frozenset(name.partition("{")[0] for name in names)

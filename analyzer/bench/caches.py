"""Cold, warm or mixed: how much of the prompts the server took from a prefix cache."""

from dataclasses import dataclass

import polars as pl

from analyzer.bench.facts import Stage
from analyzer.bench.server_side import counter_delta

COLD_SHARE, WARM_SHARE = 0.01, 0.5
HITS = ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total", "kvt:prefix_cache_hits_total")
QUERIES = ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total", "kvt:prefix_cache_queries_total")


@dataclass(frozen=True, slots=True)
class CacheState:
    """`label`: cold | warm | mixed | unknown; `share` of prompt tokens; `source`: usage | counters | none."""

    label: str
    share: float | None
    source: str


def cache_state(stage: Stage, frame: pl.DataFrame) -> CacheState:
    """By `cached_tokens` of the measured replies, else by the server's counters over the stage, else unknown."""
    told = frame.filter((pl.col("phase") == "measured") & pl.col("cached_tokens").is_not_null())
    prompts = told["prompt_tokens"].sum()
    if told.height and prompts:
        return _labelled(float(told["cached_tokens"].sum()) / float(prompts), "usage")
    for hits, queries in zip(HITS, QUERIES, strict=True):
        looked_up = counter_delta(stage, queries)
        if looked_up:
            return _labelled((counter_delta(stage, hits) or 0.0) / looked_up, "counters")
    return CacheState("unknown", None, "none")


def _labelled(share: float, source: str) -> CacheState:
    label = "cold" if share < COLD_SHARE else "warm" if share >= WARM_SHARE else "mixed"
    return CacheState(label, share, source)

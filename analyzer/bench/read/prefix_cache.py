"""Cold, warm or mixed: how much of the prompts the server took from a prefix cache."""

from dataclasses import dataclass

import polars as pl

from analyzer.bench.read.server_side import counter_delta
from analyzer.bench.read.stage_facts import Stage
from analyzer.results.cache_state import cache_state as state_of
from kvt_async.contract.formulas.cache_counters import CACHE_COUNTERS


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
    for names in CACHE_COUNTERS:
        hits = counter_delta(stage, names.hits)
        looked_up = counter_delta(stage, names.queries) if names.queries else None
        if hits is not None and looked_up:
            return _labelled(hits / looked_up, "counters")
    return CacheState("unknown", None, "none")


def _labelled(share: float, source: str) -> CacheState:
    return CacheState(state_of(share), share, source)

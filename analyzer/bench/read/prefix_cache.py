"""Cold, warm or mixed: how much of the prompts the server took from a prefix cache."""

from dataclasses import dataclass

import polars as pl

from analyzer.bench.read.server_series import cache_growth
from analyzer.bench.read.stage_facts import StageFacts
from kvt_async.contract.cache_state import cache_state
from kvt_async.contract.vocabulary import CacheState


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """How much of a stage's prompts came out of a prefix cache. `share`: of prompt tokens; `source`: usage | counters |
    none. `by_trace`: the share that began like an earlier prompt, as the trace says that was replayed: what a cache
    without limits would find; None: no trace, or it doesn't say."""

    state: CacheState
    share: float | None
    source: str
    by_trace: float | None = None


def prefix_cache(stage: StageFacts, frame: pl.DataFrame) -> PrefixCache:
    """The prefix cache of a stage, by `cached_tokens` of the measured replies, else by the server's counters over the
    stage, else unknown."""
    by_trace = _by_trace(stage, frame)
    counted = frame.filter((pl.col("phase") == "measured") & pl.col("cached_tokens").is_not_null())
    prompts = counted["prompt_tokens"].sum()
    if counted.height and prompts:
        share = float(counted["cached_tokens"].sum()) / float(prompts)
        return PrefixCache(cache_state(share), share, "usage", by_trace)
    if (counted_by_server := cache_growth(stage)) is not None:
        hits, looked_up = counted_by_server
        return PrefixCache(cache_state(hits / looked_up), hits / looked_up, "counters", by_trace)
    return PrefixCache(CacheState.UNKNOWN, None, "none", by_trace)


def _by_trace(stage: StageFacts, frame: pl.DataFrame) -> float | None:
    if stage.workload.get("kind") != "trace":
        return None
    said = frame.filter((pl.col("phase") == "measured") & pl.col("shared_tokens").is_not_null())
    prompts = said["input_tokens"].sum()
    return float(said["shared_tokens"].sum()) / float(prompts) if prompts else None

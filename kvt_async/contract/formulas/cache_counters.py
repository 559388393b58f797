"""Names under which servers count prompt tokens that came from a prefix cache, on their metrics pages.

One table for the sweep (session/metrics_page.py) and for the bench (bench/read/prefix_cache.py): a server that one
half knows is known to the other. `_total` is left off; pages write it or not. What replies count is in
engine/reply/token_counts.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CacheCounters:
    """`hits`: prompt tokens found in the cache; `queries`: of so many that were looked up."""

    hits: str
    queries: str


CACHE_COUNTERS = (  # kvt's own server counts under vLLM's names
    CacheCounters("vllm:prefix_cache_hits", "vllm:prefix_cache_queries"),
    CacheCounters("vllm:gpu_prefix_cache_hits", "vllm:gpu_prefix_cache_queries"),  # vLLM before 0.10
    CacheCounters("sglang:cached_tokens", "sglang:prompt_tokens"),
)


def grown(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> float | None:
    """By how much a counter grew, over all its labels; from 0 where it was reset. None: the page has no such one."""
    mine = [key for key in after if key.partition("{")[0].removesuffix("_total") == name]
    if not mine:
        return None
    total = 0.0
    for key in mine:
        was, now = float(before.get(key, 0.0)), float(after[key])
        total += now - was if now >= was else now
    return total

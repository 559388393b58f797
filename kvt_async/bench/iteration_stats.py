"""TensorRT-LLM's other metrics page: `GET /metrics` of trtllm-serve is a JSON list of what its last iterations did.

A reading empties the list, so what iterations count is added up here, from the first reading on, under names of the
table in contract/formulas/server_figures.py.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from kvt_async.records import Json

HEAD = "trtllm_iteration_"
_ADDED = {
    "draft_tokens": "numDraftTokens",
    "accepted_tokens": "numAcceptedTokens",
    "drafts": "numRequestsWithDraftTokens",
}
_CUMULATIVE = {"reused_blocks": "reusedBlocks", "missed_blocks": "missedBlocks"}


class IterationStats:
    """The pages of one server, one after the other."""

    def __init__(self) -> None:
        self._added: dict[str, float] = {}
        self._last: Json = {}

    def read(self, text: str) -> Json | None:
        """A page as metrics by name; None: it is no such page. An empty list leaves the gauges as they were."""
        if not text.lstrip().startswith("["):
            return None
        try:
            iterations = orjson.loads(text)
        except orjson.JSONDecodeError:
            return None
        entries = [entry for entry in iterations if isinstance(entry, dict)]
        if iterations and not any("numActiveRequests" in entry or "iter" in entry for entry in entries):
            return None
        for entry in entries:
            if spec := _part(entry, "specDecodingStats"):
                for name, field in _ADDED.items():
                    self._added[name] = self._added.get(name, 0.0) + (_number(spec.get(field)) or 0.0)
        if entries:
            self._last = dict(_gauges(entries))
        return {f"{HEAD}{name}": value for name, value in {**self._last, **self._added}.items()}


def _gauges(entries: list[Json]) -> Iterable[tuple[str, float]]:
    """Of the newest iteration; of how many were paused, and how full the cache was, the most of any of them."""
    for name, field in (("num_active_requests", "numActiveRequests"), ("num_queued_requests", "numQueuedRequests")):
        if (value := _number(entries[-1].get(field))) is not None:
            yield name, value
    paused = [_number(_part(entry, "inflightBatchingStats").get("numPausedRequests")) for entry in entries]
    if known := [value for value in paused if value is not None]:
        yield "num_paused_requests", max(known)
    caches = [_part(entry, "kvCacheStats") for entry in entries]
    blocks = [(_number(cache.get("usedNumBlocks")), _number(cache.get("maxNumBlocks"))) for cache in caches]
    if shares := [used / most for used, most in blocks if used is not None and most]:
        yield "kv_cache_utilization", max(shares)
    for name, field in _CUMULATIVE.items():
        if (value := _number(caches[-1].get(field))) is not None:
            yield name, value


def _part(entry: Json, name: str) -> Json:
    part = entry.get(name)
    return part if isinstance(part, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None

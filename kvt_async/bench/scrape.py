"""The server's own metrics page before, during and after a stage.

A scrape goes over a connection of its own. While requests are timed a page is only cut to the lines we know by name;
parsing waits for the end of the stage, since it would stand in somebody's TTFB.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from kvt_async.clock import utc_now
from kvt_async.contract.errors import ServerError
from kvt_async.contract.urls import public_url, server_root, url_under
from kvt_async.records import Json
from kvt_async.session.metrics_page import families

_KNOWN = re.compile(r"^(?:# TYPE )?(?:vllm|sglang|llamacpp|kvt)[:_].*$", re.MULTILINE)
_AT_MOST = re.compile(r"(_perc|_usage|usage_ratio|_ratio)$")  # shares: the maximum of several, not their sum


def metrics_urls(endpoints: Sequence[str], metrics_url: str | None) -> list[str]:
    """The URLs of the metrics pages: one per server."""
    if metrics_url is not None:
        return [metrics_url]
    return list(dict.fromkeys(url_under(server_root(endpoint), "/metrics") for endpoint in endpoints))


def parse_page(text: str) -> Json:
    """{name: number | {count, sum, buckets: {le: cumulative count}}}, label sets of one name joined.

    Counters, gauges and histograms are summed over label sets; shares (`..._perc`, `..._usage`, `..._ratio`) are not:
    the largest stands. Raises ValueError for what is no metrics page.
    """
    metrics: dict[str, Any] = {}
    for family in families(text):
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            if family.type == "histogram":
                histogram = metrics.setdefault(family.name, {"count": 0.0, "sum": 0.0, "buckets": {}})
                if sample.name.endswith("_bucket"):
                    le = sample.labels["le"]
                    histogram["buckets"][le] = histogram["buckets"].get(le, 0.0) + sample.value
                else:
                    histogram[sample.name.rpartition("_")[2]] += sample.value
            elif sample.name in metrics:
                join = max if _AT_MOST.search(sample.name) else sum
                metrics[sample.name] = join((metrics[sample.name], sample.value))
            else:
                metrics[sample.name] = sample.value
    return metrics


@dataclass(slots=True)
class _Sample:
    phase: str
    at_ns: int
    took_ms: float
    taken_at: str
    endpoint: str
    text: str | None
    error: str | None


@dataclass(slots=True)
class Sampler:
    """Takes samples of every page; `rows` gives them parsed, once."""

    get_text: Callable[[str], Awaitable[str]]
    urls: Sequence[str]
    every_s: float
    _samples: list[_Sample] = field(default_factory=list)
    _alive: set[str] = field(default_factory=set)

    async def take(self, phase: str) -> None:
        """Sample every page, before or after a stage."""
        await asyncio.gather(*(self._one(url, phase) for url in self.urls))

    async def during(self) -> None:
        """Sample the pages that answered before, at absolute instants; runs until cancelled."""
        if self.every_s <= 0 or not self._alive:
            return
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self.every_s, loop.time())
            await asyncio.sleep(due - loop.time())
            await asyncio.gather(*(self._one(url, "during") for url in self._alive))

    def rows(self, session_id: str, run_id: str) -> list[Json]:
        """Rows of server_samples, taken out; parsing takes a while: call it in a thread."""
        samples, self._samples = self._samples, []
        rows = []
        for sample in samples:
            metrics, error = None, sample.error
            if sample.text is not None:
                try:
                    metrics = orjson.dumps(parse_page(sample.text), option=orjson.OPT_NON_STR_KEYS).decode()
                except (ValueError, KeyError) as problem:
                    error = f"not a metrics page: {problem}"[:200]
            rows.append(
                {
                    "session_id": session_id,
                    "run_id": run_id,
                    "phase": sample.phase,
                    "at_ns": sample.at_ns,
                    "took_ms": sample.took_ms,
                    "taken_at": sample.taken_at,
                    "endpoint": public_url(sample.endpoint),
                    "metrics_json": metrics,
                    "error": error,
                }
            )
        return rows

    async def _one(self, url: str, phase: str) -> None:
        began = time.perf_counter_ns()
        try:
            page: str | None = await self.get_text(url)
            error = None
        except ServerError as problem:
            page, error = None, problem.what
        now = time.perf_counter_ns()
        lines = None if page is None else "\n".join(_KNOWN.findall(page)) + "\n"
        if phase == "before" and lines is not None and lines.strip():
            self._alive.add(url)
        self._samples.append(_Sample(phase, now, (now - began) / 1e6, utc_now(), url, lines, error))

"""The server's own metrics page before, during and after a stage.

A scrape goes over a connection of its own. While requests are timed a page is only searched for the counters and gauges
of the table; parsing it whole, histograms too, waits for the end of the stage, since it would stand in somebody's TTFB.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from kvt_async.bench.iteration_stats import IterationStats
from kvt_async.clock import utc_now
from kvt_async.contract.errors import ServerError
from kvt_async.contract.formulas.metric_samples import joined, without_nan
from kvt_async.contract.formulas.server_figures import ENGINES, FIGURES, is_part, joined_key, sample_names
from kvt_async.contract.live_figures import ServerNow
from kvt_async.contract.urls import public_url, server_root, url_under
from kvt_async.records import Json
from kvt_async.session.metrics_page import families

_KNOWN = re.compile(rf"^(?:# TYPE )?(?:{'|'.join(map(re.escape, ENGINES.values()))}).*$", re.MULTILINE)
_SAMPLE = re.compile(
    rf"^((?:{'|'.join(map(re.escape, sorted(sample_names(), key=len, reverse=True)))})(?:_total)?)(\{{.*\}})? +(\S+)",
    re.MULTILINE,
)
_LABEL = re.compile(r'(position|token_position|priority)="([^"]*)"')
_ELSEWHERE = "/prometheus/metrics"  # where TensorRT-LLM has its Prometheus page; its /metrics is JSON

Save = Callable[[Json], Awaitable[None]]


def metrics_urls(endpoints: Sequence[str], metrics_url: str | None) -> list[str]:
    """The URLs of the metrics pages: one per server."""
    if metrics_url is not None:
        return [metrics_url]
    return list(dict.fromkeys(url_under(server_root(endpoint), "/metrics") for endpoint in endpoints))


def parse_page(text: str) -> Json:
    """{name: number | {count, sum, buckets: {le: cumulative count}}}, label sets of one name joined: see `joined` in
    server_figures.py. Raises ValueError for what is no metrics page."""
    metrics: dict[str, Any] = {}
    for family in families(text):
        for sample in family.samples:
            if sample.name.endswith("_created") or is_part(sample.labels):
                continue
            if family.type == "histogram":
                histogram = metrics.setdefault(family.name, {"count": 0.0, "sum": 0.0, "buckets": {}})
                if sample.name.endswith("_bucket"):
                    le = sample.labels["le"]
                    float(le)  # an edge that is no number raises ValueError
                    histogram["buckets"][le] = histogram["buckets"].get(le, 0.0) + sample.value
                else:
                    histogram[sample.name.rpartition("_")[2]] += sample.value
            else:
                key = joined_key(sample.name, sample.labels)
                metrics[key] = joined(key, metrics[key], sample.value) if key in metrics else sample.value
    return without_nan(metrics)


def search_page(text: str) -> dict[str, float]:
    """What `parse_page` gives for the counters and gauges of the table alone, in a fraction of its time; what can't be
    read is left out."""
    metrics: dict[str, float] = {}
    for name, text_of_labels, number in _SAMPLE.findall(text):
        labels = dict(_LABEL.findall(text_of_labels)) if text_of_labels else {}
        if is_part(labels):
            continue
        try:
            value = float(number)
        except ValueError:
            continue
        key = joined_key(name, labels)
        metrics[key] = joined(key, metrics[key], value) if key in metrics else value
    return without_nan(metrics)


@dataclass(frozen=True, slots=True)
class _Page:
    """What one reading brought: the lines of a Prometheus page that are known, or metrics; else what went wrong."""

    at_ns: int
    took_ms: float
    taken_at: str
    lines: str = ""
    metrics: Json | None = None
    error: str | None = None


@dataclass(slots=True)
class Sampler:
    """Takes samples of every page. `save` writes a row of server_samples."""

    get_text: Callable[[str], Awaitable[str]]
    urls: Sequence[str]
    every_s: float
    session_id: str
    run_id: str
    save: Save
    _newest: dict[str, Json] = field(default_factory=dict)  # of the pages that answered before
    _last: dict[str, _Page] = field(default_factory=dict)  # read during the stage: stands in for one after it
    _moved: dict[str, str] = field(default_factory=dict)  # url -> where the page really is
    _stats: dict[str, IterationStats] = field(default_factory=dict)

    async def take(self, phase: str) -> None:
        """Sample every page, before or after a stage, and parse it whole in a thread."""
        for url, page in zip(
            self.urls, await asyncio.gather(*(self._outer(url, phase) for url in self.urls)), strict=True
        ):
            if phase == "after" and page.error is not None and url in self._last:
                await self.save(await asyncio.to_thread(self._row, "during", url, self._last[url]))
            await self.save(await asyncio.to_thread(self._row, phase, url, page))

    async def during(self) -> None:
        """Sample the pages that answered before, at absolute instants; runs until cancelled."""
        if self.every_s <= 0 or not self._newest:
            return
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self.every_s, loop.time())
            await asyncio.sleep(due - loop.time())
            await self.take_quickly()

    async def take_quickly(self) -> None:
        """Sample the pages that answered before, while requests are timed."""
        await asyncio.gather(*(self._page_during(url) for url in list(self._newest)))

    def now(self) -> ServerNow | None:
        """What the pages said last, put together; None: none of them answers."""
        if not self._newest:
            return None
        figures: dict[str, float | None] = {}
        for name in ("running", "waiting", "kv_usage"):
            values = [FIGURES[name].value(page) for page in self._newest.values()]
            known = [value for value in values if value is not None]
            figures[name] = (max(known) if name == "kv_usage" else sum(known)) if known else None
        return ServerNow(**figures)

    async def _outer(self, url: str, phase: str) -> _Page:
        page = await self._read(self._moved.get(url, url), url)
        if phase == "before" and page.error is None and not page.lines and url.endswith("/metrics"):
            there = url.removesuffix("/metrics") + _ELSEWHERE
            other = await self._read(there, url)
            if other.error is None and other.lines:
                self._moved[url], page = there, other
        if page.lines or page.metrics is not None:
            self._newest[url] = page.metrics if page.metrics is not None else search_page(page.lines)
        return page

    async def _page_during(self, url: str) -> None:
        page = await self._read(self._moved.get(url, url), url)
        metrics = page.metrics
        if page.error is None and metrics is None:
            metrics = search_page(page.lines)
            self._last[url] = page
        if metrics is not None:
            self._newest[url] = metrics
        await self.save(self._columns("during", url, page, metrics, page.error))

    async def _read(self, url: str, of: str) -> _Page:
        began = time.perf_counter_ns()
        try:
            text, error = await self.get_text(url), None
        except ServerError as problem:
            text, error = "", problem.what
        now = time.perf_counter_ns()
        metrics = None if error else self._stats.setdefault(of, IterationStats()).read(text)
        known = "" if error or metrics is not None else "\n".join(_KNOWN.findall(text))
        return _Page(now, (now - began) / 1e6, utc_now(), known and known + "\n", metrics, error)

    def _row(self, phase: str, url: str, page: _Page) -> Json:
        metrics, error = page.metrics, page.error
        if error is None and metrics is None:
            try:
                metrics = parse_page(page.lines)
            except (ValueError, KeyError) as problem:
                error = f"not a metrics page: {problem}"[:200]
        return self._columns(phase, url, page, metrics, error)

    def _columns(self, phase: str, url: str, page: _Page, metrics: Json | None, error: str | None) -> Json:
        told = None if metrics is None else orjson.dumps(metrics, option=orjson.OPT_NON_STR_KEYS).decode()
        return {
            "session_id": self.session_id,
            "run_id": self.run_id,
            "phase": phase,
            "at_ns": page.at_ns,
            "took_ms": page.took_ms,
            "taken_at": page.taken_at,
            "endpoint": public_url(self._moved.get(url, url)),
            "metrics_json": told,
            "error": error,
        }

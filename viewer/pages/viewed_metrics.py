"""`/metrics`: what is known of the groups, for Prometheus. The names are a contract: docs/VIEW.md lists them."""

from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kvt_async.contract.vocabulary import ClientVerdict
from viewer.groups.group_places import GroupPlace

CONTENT_TYPE = CONTENT_TYPE_LATEST
Json = dict[str, Any]
_LABELS = ["group", "folder"]
_COUNTS = {"answered": "responses", "failed": "failures", "pending": "pending"}
_LIVE = {
    "kvt_sent_per_second": ("sent_per_s", "Requests sent a second, over the last seconds."),
    "kvt_done_per_second": ("done_per_s", "Requests answered or given up a second, over the last seconds."),
    "kvt_output_tokens_per_second": ("output_tokens_per_s", "Output tokens a second, over the last seconds."),
    "kvt_in_flight": ("in_flight", "Requests in flight."),
    "kvt_retries": ("retries", "Tries beyond the first, of the part at work."),
    "kvt_seconds_left": ("left_s", "Seconds until the part at work ends, at this rate or by its schedule."),
}
_TTFT = {"0.5": "ttft_p50_ms", "0.99": "ttft_p99_ms"}


class _Groups(Collector):
    def __init__(self, progress: Sequence[tuple[GroupPlace, Json]]) -> None:
        self._readable = [(place, now) for place, now in progress if "error" not in now]

    def collect(self) -> Iterator[Metric]:
        requests = GaugeMetricFamily("kvt_requests", "Requests of the newest generation.", labels=[*_LABELS, "state"])
        failures = GaugeMetricFamily("kvt_failures", "Requests given up, by cause.", labels=[*_LABELS, "type"])
        running = GaugeMetricFamily("kvt_running", "1: a session is at work on the group.", labels=_LABELS)
        bound = GaugeMetricFamily("kvt_client_bound", "1: this client limits what is measured.", labels=_LABELS)
        ttft = GaugeMetricFamily(
            "kvt_ttft_seconds", "Time to first token over the last seconds.", labels=[*_LABELS, "quantile"]
        )
        live = {name: GaugeMetricFamily(name, says, labels=_LABELS) for name, (_, says) in _LIVE.items()}
        for place, now in self._readable:
            labels = [place.name, place.folder]
            for state, key in _COUNTS.items():
                requests.add_metric([*labels, state], now[key])
            for kind, n in now["failures_by_type"].items():
                failures.add_metric([*labels, kind], n)
            running.add_metric(labels, int(now["running"]))
            figures = now["live"] or {}
            for name, (key, _) in _LIVE.items():
                if figures.get(key) is not None:
                    live[name].add_metric(labels, figures[key])
            for quantile, key in _TTFT.items():
                if figures.get(key) is not None:
                    ttft.add_metric([*labels, quantile], figures[key] / 1000)
            if figures:
                bound.add_metric(labels, int(figures["client"] == ClientVerdict.BOUND))
        yield from (requests, failures, running, *live.values(), ttft, bound)


def metrics_page(progress: Sequence[tuple[GroupPlace, Json]]) -> bytes:
    """The page in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Groups(progress))
    return generate_latest(registry)

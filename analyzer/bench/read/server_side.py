"""What the server says of the same stage: deltas of its counters and histograms, and where the TTFT went.

The pages were read before the stage, every second during it, and after it had drained; the difference of the outer two
is the stage's own, warm-up included, so it is compared with the means of all its requests.
"""

import math
from dataclasses import dataclass

import polars as pl

from analyzer.bench.read.stage_facts import Json, PageReading, StageFacts
from kvt_async.contract.formulas.cache_counters import grown

TTFT = ("vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds")
QUEUE = ("vllm:request_queue_time_seconds", "sglang:queue_time_seconds")
PREFILL = ("vllm:request_prefill_time_seconds",)
DECODE = ("vllm:request_decode_time_seconds",)
E2E = ("vllm:e2e_request_latency_seconds", "sglang:e2e_request_latency_seconds")
KV_USAGE = (
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "sglang:token_usage",
    "llamacpp:kv_cache_usage_ratio",
)
RUNNING = ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing")
WAITING = ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred")


@dataclass(frozen=True, slots=True)
class ServerHistogram:
    """What a server's histogram says of one stage: count, mean seconds, and quantiles read off the buckets (upper edge
    exact, inside linear)."""

    name: str
    count: float
    mean: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Mean time to first token in seconds, in parts that add up to what the client saw. NaN: the server doesn't say.

    `beyond`: client's mean minus server's mean: network, the server's HTTP side, and the client's own delay.
    """

    client: float
    server: float
    queue: float
    prefill: float
    beyond: float

    @property
    def other(self) -> float:
        """The part of the server's own time that is neither queue nor prefill."""
        return self.server - self.queue - self.prefill


def histogram(stage: StageFacts, names: tuple[str, ...]) -> ServerHistogram | None:
    """The histogram of the first of these names that the server has; None where it has none or nothing was observed."""
    for name in names:
        pairs = [(before.get(name), after.get(name)) for before, after in _outer(stage)]
        deltas = [_minus(after, before) for before, after in pairs if isinstance(after, dict)]
        count = sum(delta["count"] for delta in deltas)
        if count > 0:
            buckets: dict[float, float] = {}
            for delta in deltas:
                for edge, n in delta["buckets"].items():
                    buckets[float(edge)] = buckets.get(float(edge), 0.0) + n
            mean = sum(delta["sum"] for delta in deltas) / count
            return ServerHistogram(name, count, mean, _quantile(buckets, 0.5), _quantile(buckets, 0.99))
    return None


def counter_delta(stage: StageFacts, name: str) -> float | None:
    """How much a counter grew over the stage, `_total` left off its name; None where the server has no such counter."""
    deltas = [delta for before, after in _outer(stage) if (delta := grown(before, after, name)) is not None]
    return sum(deltas) if deltas else None


def gauge(stage: StageFacts, names: tuple[str, ...]) -> list[tuple[str, int, float]]:
    """(session_id, ns, value) of every reading of the first of these gauges that the server has."""
    for name in names:
        readings = [(s.session_id, s.at_ns, float(s.metrics[name])) for s in stage.samples if name in s.metrics]
        if readings:
            return readings
    return []


def breakdown(stage: StageFacts, frame: pl.DataFrame) -> Breakdown | None:
    """The parts of TTFT; None where the server has no histogram of its own time to first token."""
    served = histogram(stage, TTFT)
    seen = frame.filter(pl.col("state") == "response")["ttft_s"].mean()
    if served is None or seen is None:
        return None
    queue, prefill = histogram(stage, QUEUE), histogram(stage, PREFILL)
    client = float(seen)  # type: ignore[arg-type]
    return Breakdown(
        client=client,
        server=served.mean,
        queue=queue.mean if queue else math.nan,
        prefill=prefill.mean if prefill else math.nan,
        beyond=client - served.mean,
    )


def _outer(stage: StageFacts) -> list[tuple[Json, Json]]:
    """(before, after) of every window and endpoint; the last page during it stands in for a missing one after."""
    pairs: dict[tuple[str, str], list[PageReading]] = {}
    for sample in stage.samples:
        if sample.metrics:
            pairs.setdefault((sample.session_id, sample.endpoint), []).append(sample)
    return [(read[0].metrics, read[-1].metrics) for read in pairs.values() if len(read) > 1]


def _minus(after: Json, before: Json | None) -> Json:
    if not isinstance(before, dict) or before["count"] > after["count"]:  # a server that was started again counts anew
        return after
    return {
        "count": after["count"] - before["count"],
        "sum": after["sum"] - before["sum"],
        "buckets": {edge: n - before["buckets"].get(edge, 0.0) for edge, n in after["buckets"].items()},
    }


def _quantile(cumulative: dict[float, float], q: float) -> float:
    """As Prometheus' histogram_quantile: linear inside a bucket; the last finite edge for what lies beyond it."""
    edges = sorted(cumulative)
    total = cumulative[edges[-1]] if edges else 0.0
    if total <= 0:
        return math.nan
    below_edge, below_n = 0.0, 0.0
    for edge in edges:
        n = cumulative[edge]
        if n >= q * total:
            if math.isinf(edge):
                return below_edge
            return below_edge + (edge - below_edge) * (q * total - below_n) / max(n - below_n, 1e-12)
        below_edge, below_n = edge, n
    return below_edge

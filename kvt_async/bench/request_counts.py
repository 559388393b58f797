"""How many requests a stage warms up with and measures: what was asked for, or what its rates need."""

import math

from kvt_async.bench.arrivals import n_in_shape, n_within
from kvt_async.bench.ladder import Next
from kvt_async.bench.load_steps import Load
from kvt_async.contract.bench_settings import Bench
from kvt_async.contract.formulas.throughput import WANTED_LATENCIES, WANTED_REQUESTS, WANTED_ROUNDS


def warm_up_requests(bench: Bench, load: Load, latency_s: float | None) -> int:
    """How many requests warm up: in open loop until as many are under way as the rate keeps under way."""
    if load.speed is not None:  # a replay begins as its trace did
        return 0
    least, size = bench.warm_up.requests, load.size if load.shape is None else load.shape.first
    if (places := bench.warm_up.places) is not None:
        kept_busy = size * (latency_s or 0.0) if load.is_open else size
        return math.ceil(places * kept_busy) if load.is_open else math.ceil(places) * round(kept_busy)
    if not load.is_open:
        return max(least, bench.warm_up.rounds * round(size))
    if least == 0 or latency_s is None or size == 0:
        return least if size else 0
    return max(least, math.ceil(bench.warm_up.latencies * size * latency_s))


def measured_requests(
    bench: Bench, step: Next, n_warm_up: int, latency_s: float | None, n_prompts: int | None
) -> int | None:
    """How many requests are measured; None: as many as go in bench.duration_s, or in a shape. `n_prompts`: as of
    `wanted`."""
    if step.load.shape is not None:
        return n_in_shape(step.load, n_warm_up, (bench.seed, step.repeat)) if step.load.is_open else None
    if bench.duration_s is not None and not step.load.unloaded:
        if step.load.is_open:
            return n_within(step.load, n_warm_up, bench.duration_s, (bench.seed, step.repeat))
        return None
    return wanted(bench, step.load, latency_s, n_prompts)


def wanted(bench: Bench, load: Load, latency_s: float | None, n_prompts: int | None = None) -> int:
    """How many requests are wanted: bench.requests; `auto`: what the rates need. An open loop's are cut where they
    would fall due beyond bench.max_s, a closed loop's as it runs.

    `n_prompts`: of the workload, before the first comes again. Where answers are scored, `auto` asks each of them; all
    are asked unloaded that a load asks, once.
    """
    every = n_prompts if bench.scored else None
    if load.unloaded and every is not None:
        return every if bench.requests == "auto" or bench.duration_s is not None else min(every, bench.requests)
    if bench.requests != "auto":
        return bench.requests
    n = max(needed(load, latency_s), every or 0)
    return n if load.rate_per_s is None else max(1, min(n, int(load.rate_per_s * bench.max_s)))


def needed(load: Load, latency_s: float | None) -> int:
    """How many the rates need: 12 rounds of a closed loop, 6 latencies of an open one, at least 100 of either."""
    if load.rate_per_s is None:
        return max(WANTED_REQUESTS, WANTED_ROUNDS * (load.concurrency or 1))
    return max(WANTED_REQUESTS, math.ceil(WANTED_LATENCIES * load.rate_per_s * (latency_s or 0.0)) + 1)

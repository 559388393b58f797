"""A stage's readings of the servers' metrics pages, put together: growth of counters, gauges over time, histograms.

Counters and histograms are of the whole stage, from the page before it to the one after it had drained, warm-up
included; a counter is followed from reading to reading, so what it counted before its server began anew is not lost. A
resumed stage has such a span in each of its windows. Of several endpoints, and of the engines of one (data parallel),
counts are added and of shares the largest holds.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from analyzer.bench.read.stage_facts import Json, PageReading, StageFacts
from kvt_async.contract.formulas.metric_samples import keys_of, since, value_of
from kvt_async.contract.formulas.server_figures import CACHE_COUNTERS, FIGURES, FigureKind, ServerFigure


@dataclass(frozen=True, slots=True)
class ServerHistogram:
    """What a server's histogram says of one stage: count, mean seconds, and quantiles read off the buckets (upper edge
    exact, inside linear)."""

    name: str
    count: float
    mean: float
    p50: float
    p99: float


def spans(stage: StageFacts) -> list[list[PageReading]]:
    """The readings of every window and endpoint that brought something, in the order of time."""
    by_place: dict[tuple[str, str], list[PageReading]] = {}
    for sample in stage.samples:
        if sample.metrics:
            by_place.setdefault((sample.session_id, sample.endpoint), []).append(sample)
    return list(by_place.values())


def between(stage: StageFacts, session_id: str, from_ns: int, to_ns: int) -> StageFacts:
    """The stage with the readings of a span of time alone, and of each endpoint the last one before it, from which its
    counters grow. Histograms are read around a stage: of a span they say nothing."""
    readings: list[PageReading] = []
    last: dict[str, PageReading] = {}
    for sample in stage.samples:
        if sample.session_id != session_id or not sample.metrics or sample.at_ns > to_ns:
            continue
        if sample.at_ns >= from_ns:
            readings.append(sample)
        else:
            last[sample.endpoint] = replace(sample, phase="before")
    return replace(stage, samples=(*last.values(), *readings))


def growth(stage: StageFacts, name: str) -> float | None:
    """By how much the counter of this name grew over the stage; None: no page has it."""
    parts = [part for read in spans(stage) if (part := _grown_over(read, name)) is not None]
    return sum(parts) if parts else None


def figure_growth(stage: StageFacts, figure: ServerFigure) -> float | None:
    """By how much a counter of the table grew; 0: it is there and stood still; None: no server says."""
    return growth(stage, name) if (name := _name_of(stage, figure)) is not None else None


def cache_growth(stage: StageFacts) -> tuple[float, float] | None:
    """(prompt tokens from the prefix cache, of so many) over the stage; None: no server counts both."""
    for names in CACHE_COUNTERS:
        hits, looked_up = growth(stage, names.hits), sum(growth(stage, name) or 0.0 for name in names.queries)
        if hits is not None and looked_up:
            return hits, looked_up
    return None


def position_growth(stage: StageFacts, figure: ServerFigure) -> tuple[float, ...]:
    """By how much a counter grew at each place in a draft, the first one first; empty: no server says."""
    name = _name_of(stage, figure)
    keys = {key for read in spans(stage) for key in keys_of(read[-1].metrics, name)} if name is not None else set()
    places = sorted(int(place) for key in keys if (place := key.partition('position="')[2].rstrip('"}')).isdigit())
    return tuple(growth(stage, f'{name}{{position="{place}"}}') or 0.0 for place in places)


def gauge(stage: StageFacts, figure: ServerFigure) -> list[tuple[str, int, float]]:
    """(session_id, ns, value) at every reading during the stage, or around it where none was taken during it; what the
    other endpoints said last is put together with it."""
    during = [sample for sample in stage.samples if sample.metrics and sample.phase == "during"]
    newest: dict[tuple[str, str], float] = {}
    values = []
    for sample in during or [sample for sample in stage.samples if sample.metrics]:
        if (value := figure.value(sample.metrics)) is None:
            continue
        newest[sample.session_id, sample.endpoint] = value
        mine = [known for (session, _), known in newest.items() if session == sample.session_id]
        values.append((sample.session_id, sample.at_ns, max(mine) if figure.kind == FigureKind.SHARE else sum(mine)))
    return values


def histogram(stage: StageFacts, figure: ServerFigure) -> ServerHistogram | None:
    """The histogram of the first of the figure's names that a server has; None where it has none or nothing was
    observed."""
    for name in (name for names in figure.names.values() for name in names):
        deltas = [delta for read in spans(stage) for delta in _observed(read, name)]
        count = sum(delta["count"] for delta in deltas)
        if count > 0:
            buckets: dict[float, float] = {}
            for delta in deltas:
                for edge, n in delta["buckets"].items():
                    buckets[float(edge)] = buckets.get(float(edge), 0.0) + n
            mean = sum(delta["sum"] for delta in deltas) / count
            return ServerHistogram(name, count, mean, _quantile(buckets, 0.5), _quantile(buckets, 0.99))
    return None


def acceptance(stage: StageFacts) -> list[tuple[str, int, float]]:
    """(session_id, ns, share) of the tokens drafted since the reading before that were accepted."""
    drafted, accepted = FIGURES["draft_tokens"], FIGURES["accepted_tokens"]
    values = []
    for read in spans(stage):
        for before, after in pairwise(read):
            pair = [before, after]
            n = _grown_over(pair, name) if (name := drafted.name_on(after.metrics)) is not None else None
            m = _grown_over(pair, name) if (name := accepted.name_on(after.metrics)) is not None else None
            if n and m is not None:
                values.append((after.session_id, after.at_ns, m / n))
    return values


def restarts(stage: StageFacts) -> int:
    """How often a server's counters began anew: between two readings one of the table fell."""
    counters = [name for figure in FIGURES.values() if figure.kind == FigureKind.COUNTER for name in _all_names(figure)]
    return sum(
        any(_fell(before.metrics, after.metrics, name) for name in counters)
        for read in spans(stage)
        for before, after in pairwise(read)
    )


def _name_of(stage: StageFacts, figure: ServerFigure) -> str | None:
    return next((name for read in spans(stage) if (name := figure.name_on(read[-1].metrics)) is not None), None)


def _all_names(figure: ServerFigure) -> Iterable[str]:
    return (name for names in figure.names.values() for name in names)


def _grown_over(read: list[PageReading], name: str) -> float | None:
    """A counter that appears later counts from 0: some pages hold it from its first count on."""
    if len(read) < 2 or not any(keys_of(reading.metrics, name) for reading in read[1:]):
        return None
    last: dict[str, float] = {key: float(read[0].metrics[key]) for key in keys_of(read[0].metrics, name)}
    total = 0.0
    for reading in read[1:]:
        for key in keys_of(reading.metrics, name):
            total += since(last.get(key), reading.metrics[key])
            last[key] = float(reading.metrics[key])
    return total


def _fell(before: Json, after: Json, name: str) -> bool:
    was, now = value_of(before, name), value_of(after, name)
    return was is not None and now is not None and now < was


def _observed(read: list[PageReading], name: str) -> Iterable[Json]:
    """What was observed between each two whole pages; those during a stage may hold no histograms."""
    if len(read) < 2:
        return
    pages: list[Json | None] = [page for reading in read if isinstance(page := reading.metrics.get(name), dict)]
    if not isinstance(read[0].metrics.get(name), dict):
        pages = [None, *pages]  # it was not there yet
    for before, after in pairwise(pages):
        yield _minus(after, before)


def _minus(after: Json | None, before: Json | None) -> Json:
    assert after is not None
    if before is None or before["count"] > after["count"]:  # a server that was started again counts anew
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

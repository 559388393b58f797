"""Requests of a stage by its parts: steps of its load, slices of a ramp's time, models that share it."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from analyzer.bench.figures.quantiles import Floats
from analyzer.bench.figures.rates import lives_in
from analyzer.bench.read.stage_facts import StageFacts, WindowFacts
from kvt_async.contract.formulas.step_throughput import of_step
from kvt_async.contract.formulas.throughput import SHAPED, Throughput, nothing
from kvt_async.contract.load_shape import LoadShape

SLICES = 10  # of a ramp's time
STEP, SLICE, MODEL = "step", "slice", "model"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a load's shape, in seconds of it. `value`: its size, of a ramp the mean of the slice."""

    kind: str  # step | slice
    idx: int
    begins_s: float
    ends_s: float
    value: float
    is_last: bool

    @property
    def until_s(self) -> float:
        """Requests due before it are the span's; those due just at the end of the whole load are of its last one."""
        return math.inf if self.is_last else self.ends_s


@dataclass(frozen=True, slots=True)
class SpanFacts:
    """What a stage shows of a span: requests in flight (mean, most) and rates, behind the margin at its head."""

    span: Span
    margin_s: float
    n_planned: int  # due (open) or begun (closed) in it, the margin too
    in_flight_mean: float
    in_flight_peak: int
    rates: Throughput


@dataclass(frozen=True, slots=True)
class PartFacts:
    """Of one stage: `spans`, empty where its load does not change; when each request was due within the shape, seconds
    [n], NaN without a shape; and the model that it asked, "" where there is one for all. Aligned with
    StageResult.values (answered) and the failures in their order."""

    spans: tuple[SpanFacts, ...]
    answered_at: Floats
    failed_at: Floats
    answered_model: tuple[str, ...]
    failed_model: tuple[str, ...]
    in_flight_mean: float  # over the measured part of its windows
    in_flight_peak: int


def spans_of(shape: LoadShape) -> list[Span]:
    """Steps as they are; a ramp in slices of equal time, and what it holds at its end as one more."""
    edges, kind = [0.0], STEP
    if shape.kind == "ramp":
        kind, ramp = SLICE, shape.legs[0]
        edges = [float(at) for at in np.linspace(0, ramp.for_s, SLICES + 1)]
    for leg in shape.legs[len(edges) > 1 :]:
        edges.append(edges[-1] + leg.for_s)
    return [
        Span(kind, idx, low, high, shape.size_at((low + high) / 2), idx == len(edges) - 2)
        for idx, (low, high) in enumerate(pairwise(edges))
    ]


def part_facts(stage: StageFacts, frame: pl.DataFrame, answered: pl.DataFrame, failed: pl.DataFrame) -> PartFacts:
    """`frame`: all requests of the stage with metrics; `answered`, `failed`: the measured ones among them."""
    shape, is_open = stage.shape, stage.loop == "open"
    origins = {window.session_id: _origin_ns(stage, window, frame) for window in stage.windows}
    spans: tuple[SpanFacts, ...] = ()
    if shape is not None:
        at = _at(frame.filter(pl.col("phase") == "measured"), stage, origins)
        latency = _latencies(answered, _at(answered, stage, origins), shape, is_open=is_open)
        spans = tuple(
            _span(stage, frame, span, origins, min(latency[span.idx], (span.ends_s - span.begins_s) / 2), at)
            for span in spans_of(shape)
        )
    busy = [_in_flight(frame, window, *_measured(window)) for window in stage.windows if window.closed]
    seconds = [max(high - low, 0) for low, high in (_measured(window) for window in stage.windows if window.closed)]
    weighted = float(np.average([mean for mean, _ in busy], weights=seconds)) if sum(seconds) > 0 else math.nan
    return PartFacts(
        spans=spans,
        answered_at=_at(answered, stage, origins),
        failed_at=_at(failed, stage, origins),
        answered_model=tuple(answered["model"].fill_null("").to_list()),
        failed_model=tuple(failed["model"].fill_null("").to_list()),
        in_flight_mean=weighted,
        in_flight_peak=max((window.peak_in_flight for window in stage.windows), default=0),
    )


def _origin_ns(stage: StageFacts, window: WindowFacts, frame: pl.DataFrame) -> float:
    """The instant of the window's clock at which the shape would have begun; NaN where it sent nothing measured."""
    shape = stage.plan.get("shape")
    mine = frame.filter((pl.col("session_id") == window.session_id) & (pl.col("phase") == "measured"))
    if shape is None or mine.is_empty():
        return math.nan
    if shape["from_ns"] is not None:
        gaps = mine.select(pl.col("intended_ns") - (pl.col("offset_ns") - shape["from_ns"])).to_series().drop_nulls()
        return float(gaps[0]) if len(gaps) else math.nan
    passed = 0.0
    for earlier in stage.windows[: stage.windows.index(window)]:
        low, high = _measured(earlier)
        if not earlier.closed:
            sent = frame.filter((pl.col("session_id") == earlier.session_id) & (pl.col("phase") == "measured"))
            low, high = sent["start_ns"].min() or 0, sent["end_ns"].max() or 0  # type: ignore[assignment]
        passed += max(high - low, 0)
    begun = window.measured_from_ns or mine["start_ns"].min()
    return math.nan if begun is None else float(begun) - passed  # type: ignore[arg-type]


def _at(rows: pl.DataFrame, stage: StageFacts, origins: dict[str, float]) -> Floats:
    """When each was due (open) or started (closed), seconds of the shape."""
    shape = stage.plan.get("shape")
    if shape is None:
        return np.full(rows.height, math.nan)
    due_s: Floats
    if shape["from_ns"] is not None:
        due_s = (rows["offset_ns"].cast(pl.Float64).to_numpy() - shape["from_ns"]) / 1e9
        return due_s
    origin = np.array([origins.get(session, math.nan) for session in rows["session_id"].to_list()], dtype=np.float64)
    due_s = (rows["start_ns"].cast(pl.Float64).to_numpy() - origin) / 1e9
    return due_s


def _latencies(answered: pl.DataFrame, at: Floats, shape: LoadShape, *, is_open: bool) -> list[float]:
    """The margin at the head of each span: a latency. Of steps in an open loop the shortest of theirs, for a queue
    makes latencies longer than a server needs; of slices none, for their load never stands still."""
    spans = spans_of(shape)
    if spans[0].kind == SLICE:
        return [0.0] * len(spans)
    took = answered["latency_s"].cast(pl.Float64).to_numpy()
    each = [took[(at >= span.begins_s) & (at < span.until_s)] for span in spans]
    medians = [float(np.nanmedian(some)) if np.isfinite(some).any() else 0.0 for some in each]
    return [min(medians)] * len(spans) if is_open else medians


def _span(
    stage: StageFacts, frame: pl.DataFrame, span: Span, origins: dict[str, float], margin_s: float, at: Floats
) -> SpanFacts:
    begins, rates = span.begins_s + margin_s, nothing("the stage was resumed, its rates are of no one window", None)
    busy: list[tuple[float, int]] = []
    for window in stage.windows:
        origin = origins[window.session_id]
        if math.isnan(origin):
            continue
        busy.append(_in_flight(frame, window, origin + begins * 1e9, origin + span.ends_s * 1e9))
        if len(stage.windows) == 1 and span.kind == STEP:
            sent = frame.filter((pl.col("session_id") == window.session_id) & (pl.col("state") != "pending"))
            lives = lives_in(sent, window, is_open=stage.loop == "open")
            zero = (origin - window.start_ns) / 1e9
            places = None if stage.loop == "open" else round(span.value)
            rates = of_step(lives, zero + begins, zero + span.ends_s, places)
    return SpanFacts(
        span=span,
        margin_s=margin_s,
        n_planned=int(((at >= span.begins_s) & (at < span.until_s)).sum()),
        in_flight_mean=sum(mean for mean, _ in busy) if busy else math.nan,
        in_flight_peak=max((peak for _, peak in busy), default=0),
        rates=rates if span.kind == STEP else nothing(SHAPED, None),
    )


def _measured(window: WindowFacts) -> tuple[float, float]:
    return float(window.measured_from_ns or 0), float(window.measured_to_ns or 0)


def _in_flight(frame: pl.DataFrame, window: WindowFacts, low_ns: float, high_ns: float) -> tuple[float, int]:
    """(mean, most) requests under way between two instants, warm-up and failures among them."""
    sent = frame.filter(
        (pl.col("session_id") == window.session_id) & pl.col("start_ns").is_not_null() & pl.col("end_ns").is_not_null()
    )
    if high_ns <= low_ns or sent.is_empty():
        return math.nan, 0
    starts, ends = (sent[name].cast(pl.Float64).to_numpy() for name in ("start_ns", "end_ns"))
    mean = float(np.clip(np.minimum(ends, high_ns) - np.maximum(starts, low_ns), 0, None).sum() / (high_ns - low_ns))
    instants = np.concatenate(([low_ns], starts[(starts >= low_ns) & (starts < high_ns)]))
    under_way = np.searchsorted(np.sort(starts), instants, side="right") - np.searchsorted(
        np.sort(ends), instants, side="right"
    )
    return mean, int(under_way.max())

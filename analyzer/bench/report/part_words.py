"""What is said of a load's steps, slices and breaks in sentences."""

import math

from analyzer.bench.figures.load_parts import RampBreak
from analyzer.bench.figures.part_facts import SLICE, STEP
from analyzer.bench.figures.points import Point
from analyzer.bench.report.numbers import ms


def parts_sentence(point: Point) -> str | None:
    """'steps 2, 8, 2/s of 30 s: TTFT p99 was 120 ms at 2/s, 3,400 ms at 8/s, 130 ms at 2/s'; None: it has no such
    parts."""
    spans = [part for part in point.parts if part.kind in (STEP, SLICE)]
    if not spans:
        return None
    if spans[0].kind == SLICE:  # a ramp: its first and last slices
        spans = spans if len(spans) < 3 else [spans[0], spans[len(spans) // 2], spans[-1]]
    seen = ", ".join(f"{ms(part.figures['ttft_p99_s'].value)} ms at {part.name}" for part in spans)
    back = [part for part in point.parts if part.settled_s is not None]
    words = [f"{point.load}: TTFT p99 was {seen}"]
    words += [
        f"back at {part.name} after the peak, TTFT was as before after {part.settled_s:.3g} s"
        if part.settled_s is not None and not math.isnan(part.settled_s)
        else f"back at {part.name} after the peak, TTFT did not come back within the step"
        for part in back
    ]
    return "; ".join(words + [break_words(point, one) for one in point.breaks])


def break_words(point: Point, one: RampBreak) -> str:
    """'TTFT p99 <= 500 ms was first broken at about 12.3/s ...'."""
    metric = one.objective.metric if one.objective.metric == "latency" else one.objective.metric.upper()
    limit = f"{metric} {one.objective.stat} <= {ms(one.objective.limit_s)} ms"
    unit = "/s" if point.loop == "open" else " in flight"
    shape = point.results[0].stage.shape
    assert shape is not None
    if math.isnan(one.value):
        return f"{limit}: no break can be told up to {shape.highest:g}{unit}"
    each = [value for value in one.each if not math.isnan(value)]
    repeats = f"; repeats alone: {', '.join(f'{value:.3g}' for value in each)}" if each else ""
    return (
        f"{limit} was first broken at about {one.value:.3g}{unit} ({one.n_beyond:,} of {one.n:,} requests beyond it"
        f"{repeats}): an estimate, late by as much load as the ramp adds while a queue builds up"
    )

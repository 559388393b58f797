"""Figures of a load by its parts, repeats together: steps, slices of a ramp, models; and where a ramp broke a limit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.bench.figures.distributions import binomial_sf
from analyzer.bench.figures.part_facts import MODEL, SLICE, STEP, PartFacts, Span, SpanFacts
from analyzer.bench.figures.pooled import estimate
from analyzer.bench.figures.quantiles import LEVELS, Floats, summarise
from analyzer.bench.figures.slo import Finding, Objective, judge
from analyzer.bench.figures.spread import FEWEST_REPEATS, OVER_REPEATS, WITHIN, Estimate, rate_over_repeats
from analyzer.bench.figures.stage_results import StageResult
from kvt_async.contract.formulas.throughput import Rate, Throughput

METRICS = ("ttft", "tpot", "latency")
STATS = ("p50", "p90", "p99")
IN_A_ROW = 10  # requests that are as fast as an earlier step's slowest: the server has settled
BREAK_LEVEL = 0.0025  # of the test behind a break: a server that just keeps its limit then breaks it in 1.3% of ramps


@dataclass(frozen=True, slots=True)
class LoadPart:
    """`value`: requests a second or in flight, of a slice their mean, of a model its weight's share. `n` measured
    requests had an outcome; the `n_margin` first of them (of each repeat) are in no figure of the part.

    `figures`: METRIC_STAT_s; of steps also requests_per_s, output_tokens_per_s and kept_up (open loop).
    `settled_s`: of a step that comes back to the size of an earlier one, seconds until ten requests in a row were no
    slower to their first token than the slowest of that one; NaN: not within the step, None: it comes back to none.
    """

    kind: str  # step | slice | model
    idx: int
    name: str
    value: float
    begins_s: float | None
    ends_s: float | None
    n: int
    n_failed: int
    n_margin: int
    margin_s: float
    in_flight_mean: float
    in_flight_peak: int
    figures: dict[str, Estimate]
    findings: tuple[Finding, ...]
    settled_s: float | None = None


@dataclass(frozen=True, slots=True)
class RampBreak:
    """Where a rising ramp first broke an objective: an estimate. NaN: it kept it as far as can be told."""

    objective: Objective
    value: float
    each: tuple[float, ...]  # of each repeat alone, where there are several
    n: int
    n_beyond: int


def parts_of(results: Sequence[StageResult], alpha: float) -> tuple[LoadPart, ...]:
    """Steps or slices first, then models; empty for a load without either."""
    return (*_spans(results, alpha), *_models(results, alpha))


def breaks_of(results: Sequence[StageResult]) -> tuple[RampBreak, ...]:
    """For each objective on a percentile of a time per request, where a rising ramp broke it."""
    stage = results[0].stage
    shape = stage.shape
    if shape is None or shape.kind != "ramp" or not shape.rises:
        return ()
    breaks = []
    for name, limit in stage.slo.items():
        objective = Objective.of(name, limit)
        if objective.stat not in LEVELS or objective.metric == "itl":
            continue
        sizes, beyond = [], []
        for result in results:
            times = np.concatenate((result.parts.answered_at, result.parts.failed_at))
            values = np.concatenate((result.values[objective.metric], np.full(len(result.parts.failed_at), math.inf)))
            kept = ~np.isnan(values) & ~np.isnan(times)
            order = np.argsort(times[kept], kind="stable")
            sizes.append(np.array([shape.size_at(float(at)) for at in times[kept][order]]))
            beyond.append(values[kept][order] > objective.limit_s)
        share = 1 - LEVELS[objective.stat]
        pooled, hits = np.concatenate(sizes), np.concatenate(beyond)
        order = np.argsort(pooled, kind="stable")
        each = tuple(first_break(a, b, share) for a, b in zip(sizes, beyond, strict=True)) if len(results) > 1 else ()
        value = first_break(pooled[order], hits[order], share)
        breaks.append(RampBreak(objective, value, each, len(hits), int(hits.sum())))
    return tuple(breaks)


def first_break(sizes: Floats, beyond: np.ndarray, allowed: float) -> float:
    """The least size from which on more than `allowed` of the requests are beyond a limit, by isotonic regression of
    `beyond` on `sizes` (rising): the chance of being beyond is taken never to fall as the load rises. NaN: nowhere, or
    no more of those behind it than chance makes of a server that keeps the limit."""
    if not len(sizes):
        return math.nan
    blocks: list[list[float]] = []  # [sum, n, first place]
    for place, hit in enumerate(beyond):
        blocks.append([float(hit), 1.0, float(place)])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            hits, n, _ = blocks.pop()
            blocks[-1][0] += hits
            blocks[-1][1] += n
    for hits, n, first in blocks:
        if hits / n > allowed:
            rest = beyond[int(first) :]
            told = binomial_sf(int(rest.sum()) - 1, len(rest), allowed) <= BREAK_LEVEL
            return float(sizes[int(first)]) if told else math.nan
    return math.nan


def _spans(results: Sequence[StageResult], alpha: float) -> list[LoadPart]:
    facts = [list(result.parts.spans) for result in results]
    if not facts[0]:
        return []
    parts: list[LoadPart] = []
    is_open = results[0].stage.loop == "open"
    for n, of_span in enumerate(zip(*facts, strict=True)):
        span, margin_s = of_span[0].span, max(one.margin_s for one in of_span)
        begins = span.begins_s + margin_s
        picked = [_within(result.parts, begins, span.until_s) for result in results]
        whole = [_within(result.parts, span.begins_s, span.until_s) for result in results]
        n_all, n_failed = sum(len(a) + len(f) for a, f in whole), sum(len(f) for _, f in picked)
        n_in = sum(len(a) + len(f) for a, f in picked)
        figures = _times(results, [a for a, _ in picked], alpha)
        if span.kind == STEP:
            figures |= _rates([one.rates for one in of_span], alpha, is_open=is_open)
        parts.append(
            LoadPart(
                kind=span.kind,
                idx=n,
                name=_title(span, results[0], is_open=is_open),
                value=span.value,
                begins_s=span.begins_s,
                ends_s=span.ends_s,
                n=n_in,
                n_failed=n_failed,
                n_margin=n_all - n_in,
                margin_s=margin_s,
                in_flight_mean=float(np.mean([one.in_flight_mean for one in of_span])),
                in_flight_peak=max(one.in_flight_peak for one in of_span),
                figures=figures,
                findings=_findings(results, picked, alpha),
                settled_s=_settled(results, of_span[0], facts[0][:n]),
            )
        )
    return parts


def _models(results: Sequence[StageResult], alpha: float) -> list[LoadPart]:
    asked: dict[str, float] = {}
    for result in results:
        asked |= {model["name"]: float(model["weight"]) for model in result.stage.plan.get("models", ())}
    parts = []
    for idx, (name, weight) in enumerate(asked.items()):
        picked = [
            (
                np.flatnonzero([model == name for model in result.parts.answered_model]),
                np.flatnonzero([model == name for model in result.parts.failed_model]),
            )
            for result in results
        ]
        parts.append(
            LoadPart(
                kind=MODEL,
                idx=idx,
                name=name,
                value=weight / sum(asked.values()),
                begins_s=None,
                ends_s=None,
                n=sum(len(a) + len(f) for a, f in picked),
                n_failed=sum(len(f) for _, f in picked),
                n_margin=0,
                margin_s=0.0,
                in_flight_mean=math.nan,
                in_flight_peak=0,
                figures=_times(results, [a for a, _ in picked], alpha),
                findings=_findings(results, picked, alpha),
            )
        )
    return parts


def _within(facts: PartFacts, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Places of the answered and of the failed requests that were due in a stretch of the shape."""
    answered, failed = facts.answered_at, facts.failed_at
    return np.flatnonzero((answered >= low) & (answered < high)), np.flatnonzero((failed >= low) & (failed < high))


def _times(results: Sequence[StageResult], picked: Sequence[np.ndarray], alpha: float) -> dict[str, Estimate]:
    figures = {}
    for metric in METRICS:
        each = [result.values[metric][places] for result, places in zip(results, picked, strict=True)]
        values = [one[~np.isnan(one)] for one in each]
        for stat in STATS:
            figures[f"{metric}_{stat}_s"] = estimate(stat, values, alpha)
    return figures


def _rates(rates: Sequence[Throughput], alpha: float, *, is_open: bool) -> dict[str, Estimate]:
    method = OVER_REPEATS if len(rates) >= FEWEST_REPEATS else WITHIN
    untold = next((one for one in rates if one.reason is not None), None)
    names = {"requests_per_s": "requests", "output_tokens_per_s": "output_tokens"} | (
        {"kept_up": "kept_up"} if is_open else {}
    )
    if untold is not None:
        none = Estimate(math.nan, math.nan, math.nan, method, untold.reason, untold.n_needed)
        return dict.fromkeys(names, none)
    figures = {}
    for name, field in names.items():
        each: list[Rate] = [getattr(one, field) for one in rates]
        rate = rate_over_repeats(each)
        figures[name] = Estimate(rate.value, *rate.interval(alpha), method)
    return figures


def _findings(
    results: Sequence[StageResult], picked: Sequence[tuple[np.ndarray, np.ndarray]], alpha: float
) -> tuple[Finding, ...]:
    """Of the objectives on a time that a request has one of."""
    findings = []
    for name, limit in results[0].stage.slo.items():
        objective = Objective.of(name, limit)
        if objective.metric == "itl":
            continue
        values = [result.values[objective.metric][a] for result, (a, _) in zip(results, picked, strict=True)]
        n_failed = sum(len(failed) for _, failed in picked)
        findings.append(judge(objective, np.concatenate(values), n_failed, alpha))
    return tuple(findings)


def _settled(results: Sequence[StageResult], mine: SpanFacts, before: Sequence[SpanFacts]) -> float | None:
    """Of the first repeat. See LoadPart.settled_s."""
    span = mine.span
    alike = [one.span for one in before if one.span.kind == STEP and one.span.value == span.value]
    if not alike or max(one.span.value for one in before) <= span.value:
        return None
    result = results[0]
    earlier, _ = _within(result.parts, alike[0].begins_s, alike[0].ends_s)
    limit = summarise(result.values["ttft"][earlier]).maximum
    answered, failed = _within(result.parts, span.begins_s, span.until_s)
    at = np.concatenate((result.parts.answered_at[answered], result.parts.failed_at[failed]))
    slow = np.concatenate((~(result.values["ttft"][answered] <= limit), np.ones(len(failed), dtype=bool)))
    order = np.argsort(at, kind="stable")
    in_a_row = 0
    for place in order:
        in_a_row = 0 if slow[place] else in_a_row + 1
        if in_a_row == IN_A_ROW:
            first = order[int(np.flatnonzero(order == place)[0]) - IN_A_ROW + 1]
            return float(at[first]) - span.begins_s
    return math.nan


def _title(span: Span, result: StageResult, *, is_open: bool) -> str:
    """'8/s', '4 in flight'; of a slice '4.8 to 6.7/s'."""
    unit, shape = "/s" if is_open else " in flight", result.stage.shape
    assert shape is not None
    if span.kind == SLICE:
        low, high = shape.size_at(span.begins_s), shape.size_at(span.ends_s - 1e-9)
        return f"{low:.3g} to {high:.3g}{unit}" if abs(high - low) > 1e-6 else f"{high:.3g}{unit}"
    return f"{span.value:g}{unit}"

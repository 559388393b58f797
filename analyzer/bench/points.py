"""Repeats of one load at one level, put together: each figure with its interval."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from analyzer.bench.budget import Budget, of_all
from analyzer.bench.quantiles import LEVELS, Floats, Summary, summarise
from analyzer.bench.results import BOUND, METRICS, UNKNOWN, Client, Result
from analyzer.bench.slo import Finding, Objective, judge
from analyzer.bench.spread import FEWEST_REPEATS, WITHIN, Estimate, over_repeats, quantile_interval, t_interval

RATES: dict[str, Callable[[Result], float]] = {
    "requests_per_s": lambda r: r.rates.requests,
    "input_tokens_per_s": lambda r: r.rates.input_tokens,
    "output_tokens_per_s": lambda r: r.rates.output_tokens,
    "total_tokens_per_s": lambda r: r.rates.total_tokens,
    "arrivals_per_s": lambda r: r.rates.arrivals,
    "goodput_per_s": lambda r: r.goodput,
}
_BATCH = {"requests_per_s": [0], "input_tokens_per_s": [1], "output_tokens_per_s": [2], "total_tokens_per_s": [1, 2],
          "arrivals_per_s": [3]}  # fmt: skip
STATS = ("mean", *LEVELS, "max")


@dataclass(frozen=True, slots=True)
class Point:
    """One load at one level. `figures` by name: requests_per_s ..., and METRIC_STAT_s such as ttft_p99_s.

    `censored` has the percentiles with failures as +inf, without intervals. `findings` are of all repeats together.
    """

    level: str | None
    load: str
    loop: str
    value: float  # requests per second, or requests in flight
    stage_idx: int
    results: tuple[Result, ...]
    figures: dict[str, Estimate]
    censored: dict[str, float]
    findings: tuple[Finding, ...]

    @property
    def partial(self) -> bool:
        return any(result.stage.partial for result in self.results)

    @property
    def n_started(self) -> int:
        return sum(result.n_started for result in self.results)

    @property
    def n_failed(self) -> int:
        return sum(result.n_failed for result in self.results)

    @property
    def attainment(self) -> float:
        return sum(r.n_good for r in self.results) / self.n_started if self._has_slo and self.n_started else math.nan

    @property
    def client(self) -> Client:
        order = {BOUND: 2, UNKNOWN: 1}
        return max((r.client for r in self.results), key=lambda c: (order.get(c.verdict, 0), c.error_bound_ms))

    @property
    def budget(self) -> Budget | None:
        """What shows that the level's budget was applied, the worst of the repeats; None: levels aren't benched."""
        return of_all([result.budget for result in self.results])

    @property
    def cache(self) -> str:
        """cold | warm | mixed | unknown; repeats that differ are mixed."""
        labels = {result.cache.label for result in self.results}
        return labels.pop() if len(labels) == 1 else "mixed"

    @property
    def _has_slo(self) -> bool:
        return bool(self.results[0].stage.slo)


def points(results: Sequence[Result], alpha: float) -> list[Point]:
    """In the order in which the stages were planned."""

    def key(result: Result) -> tuple[int, str, str]:
        return first[result.stage.level, result.stage.load], result.stage.level or "", result.stage.load

    first: dict[tuple[str | None, str], int] = {}
    for result in results:
        name = (result.stage.level, result.stage.load)
        first[name] = min(first.get(name, result.stage.stage_idx), result.stage.stage_idx)
    return [_point(list(group), alpha) for _, group in groupby(sorted(results, key=key), key)]


def _point(results: list[Result], alpha: float) -> Point:
    stage = results[0].stage
    figures = {name: _rate(name, results, alpha) for name in RATES}
    censored = {}
    for metric in sorted({name for result in results for name in result.summaries}):
        for stat in STATS:
            figures[f"{metric}_{stat}_s"] = _latency(metric, stat, results, alpha)
            censored[f"{metric}_{stat}_s"] = _pooled(metric, results).stat(stat, with_failures=True)
    return Point(
        level=stage.level,
        load=stage.load,
        loop=stage.loop,
        value=stage.value,
        stage_idx=stage.stage_idx,
        results=tuple(results),
        figures=figures,
        censored=censored,
        findings=tuple(_finding(name, limit, results, alpha) for name, limit in stage.slo.items()),
    )


def _rate(name: str, results: list[Result], alpha: float) -> Estimate:
    values = [RATES[name](result) for result in results]
    if len(results) >= FEWEST_REPEATS:
        return over_repeats(values, alpha)
    if name not in _BATCH:
        return Estimate(float(np.mean(values)), math.nan, math.nan, WITHIN)
    batches = np.concatenate([result.rates.batches[:, _BATCH[name]].sum(axis=1) for result in results])
    return Estimate(float(np.mean(values)), *t_interval(batches, alpha), WITHIN)


def _latency(metric: str, stat: str, results: list[Result], alpha: float) -> Estimate:
    having = [result for result in results if metric in result.summaries]
    if len(having) >= FEWEST_REPEATS:
        return over_repeats([result.summaries[metric].stat(stat) for result in having], alpha)
    pooled = _values(metric, having)
    value = _pooled(metric, having).stat(stat)
    if stat == "mean":
        return Estimate(value, *t_interval(pooled, alpha), WITHIN)
    if stat == "max" or metric.startswith("itl"):  # a maximum has no interval; gaps of one reply aren't independent
        return Estimate(value, math.nan, math.nan, WITHIN)
    return Estimate(value, *quantile_interval(pooled, LEVELS[stat], alpha), WITHIN)


def _pooled(metric: str, results: list[Result]) -> Summary:
    if metric == "itl_token" and len(results) == 1:
        return results[0].summaries[metric]
    n_failed = 0 if metric.startswith("itl") else sum(result.n_failed for result in results)
    return summarise(_values(metric, results), n_failed)


def _values(metric: str, results: list[Result]) -> Floats:
    found = np.concatenate([r.values["itl" if metric == "itl_token" else metric] for r in results])
    kept: Floats = found[~np.isnan(found)]
    return kept


def _finding(name: str, limit: float, results: list[Result], alpha: float) -> Finding:
    objective = Objective.of(name, limit)
    units = sum(r.n_answered for r in results) if objective.metric == "itl" else None
    return judge(objective, _values(objective.metric, results), sum(r.n_failed for r in results), alpha, units)


__all__ = ["METRICS", "RATES", "STATS", "Point", "points"]

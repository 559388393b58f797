"""Repeats of one load at one level, put together: each figure with its interval."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from analyzer.bench.figures.conversation_figures import ConversationFigures, TurnStats, by_conversation, by_turn
from analyzer.bench.figures.load_parts import LoadPart, RampBreak, breaks_of, parts_of
from analyzer.bench.figures.pooled import estimate
from analyzer.bench.figures.quantiles import LEVELS, Floats, Summary, summarise
from analyzer.bench.figures.slo import Finding, Objective, judge
from analyzer.bench.figures.spread import FEWEST_REPEATS, OVER_REPEATS, WITHIN, Estimate, rate_over_repeats
from analyzer.bench.figures.stage_results import ClientPart, StageResult
from analyzer.bench.read.applied_budget import AppliedBudget, of_all
from analyzer.bench.read.length_check import LengthCheck, together
from kvt_async.contract.formulas.throughput import Rate, Throughput
from kvt_async.contract.vocabulary import CacheState, ClientVerdict

RATES: dict[str, Callable[[Throughput], Rate]] = {
    "requests_per_s": lambda t: t.requests,
    "input_tokens_per_s": lambda t: t.input_tokens,
    "output_tokens_per_s": lambda t: t.output_tokens,
    "total_tokens_per_s": lambda t: t.total_tokens,
    "arrivals_per_s": lambda t: t.arrivals,
}
BESIDE: dict[str, Callable[[StageResult], float]] = {  # without an interval
    "goodput_per_s": lambda r: r.goodput,
    "requests_by_share_per_s": lambda r: r.rates.by_share,
    "output_tokens_by_arrival_per_s": lambda r: r.rates.by_arrival,
    "in_flight_mean": lambda r: r.parts.in_flight_mean,
    "in_flight_peak": lambda r: float(r.parts.in_flight_peak),
}
STATS = ("mean", *LEVELS, "max")
HEADLINES = ("ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s", "latency_p50_s", "latency_p99_s")
BOUND_SHARE = 0.05  # a client's error above this share of a figure makes the figure the client's


@dataclass(frozen=True, slots=True)
class Point:
    """One load at one level. `figures` by name: requests_per_s ..., and METRIC_STAT_s such as ttft_p99_s, of all
    repeats' answered requests together; `repeats` has the same figure of each repeat, where there are several.

    `censored` has the percentiles with failures (and replies without a token) as +inf: equal to `figures` where nothing
    failed. `findings` are of all repeats together.
    """

    level: str | None
    load: str
    loop: str
    value: float  # requests per second, or requests in flight
    stage_idx: int
    results: tuple[StageResult, ...]
    figures: dict[str, Estimate]
    repeats: dict[str, tuple[float, ...]]
    censored: dict[str, float]
    findings: tuple[Finding, ...]
    parts: tuple[LoadPart, ...] = ()  # steps or slices of the load, and models that share it
    breaks: tuple[RampBreak, ...] = ()  # where a ramp broke its objectives
    turns: tuple[TurnStats, ...] = ()  # of conversations, else empty
    conversations: ConversationFigures | None = None

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
    def n_answered(self) -> int:
        return sum(result.n_answered for result in self.results)

    @property
    def n_empty(self) -> int:
        """Replies without a token."""
        return sum(result.n_empty for result in self.results)

    @property
    def n_one_arrival(self) -> int:
        """Replies of several tokens that one read brought."""
        return sum(result.n_one_arrival for result in self.results)

    @property
    def n_coalesced(self) -> int:
        """Replies whose first token came in a read with the next."""
        return sum(result.n_coalesced for result in self.results)

    @property
    def n_done_alone(self) -> int:
        """Replies that [DONE] ended, without a finish_reason."""
        return sum(result.n_done_alone for result in self.results)

    @property
    def lengths(self) -> LengthCheck:
        return together([result.lengths for result in self.results])

    @property
    def client(self) -> ClientPart:
        """This client's part in the figures: the worst of the repeats."""
        clients = [result.client for result in self.results]
        short = [client for client in clients if client.sent_share is not None]
        if short:
            return min(short, key=lambda client: client.sent_share or 0.0)
        if unknown := [client for client in clients if client.verdict == ClientVerdict.UNKNOWN]:
            return unknown[0]
        return replace(self._latest, verdict=ClientVerdict.BOUND) if self.client_bound else self._latest

    @property
    def _latest(self) -> ClientPart:
        clients = [result.client for result in self.results]
        return max(clients, key=lambda client: -1.0 if math.isnan(client.error_bound_ms) else client.error_bound_ms)

    def client_error_s(self, name: str) -> float:
        """How far this client's own lateness may have moved a time, in seconds; NaN: nobody could say. TPOT: the span's
        error over the tokens that it is divided by. From the intended start: what late sending made of it, too."""
        bound, lengths = self._latest.error_bound_ms / 1000, self.lengths
        if not name.startswith(("tpot", "itl_token")) or not lengths.n_output:
            return bound + self._late_s(name)
        return bound / max(lengths.output_got / lengths.n_output - 1, 1.0)

    def _late_s(self, name: str) -> float:
        """What sending late has added to a time that counts from the intended start, where nothing held it back."""
        metric, _, stat = name.partition("_")
        sent = self.figures.get(f"{metric}_sent_{stat}")
        if sent is None or any(r.audit is not None and r.audit.n_held for r in self.results):
            return 0.0
        return abs(self.figures[name].value - sent.value)

    @property
    def client_bound(self) -> tuple[str, ...]:
        """Headline figures of which this client's own error may be over 5%."""
        return tuple(
            name
            for name in HEADLINES
            if name in self.figures and self.client_error_s(name) > BOUND_SHARE * self.figures[name].value
        )

    @property
    def budget(self) -> AppliedBudget | None:
        """What shows that the level's budget was applied, the worst of the repeats; None: levels aren't benched."""
        return of_all([result.budget for result in self.results])

    @property
    def cache(self) -> CacheState:
        """Where the prompts came from; repeats that differ are mixed."""
        states = {result.cache.state for result in self.results}
        return states.pop() if len(states) == 1 else CacheState.MIXED

    @property
    def _has_slo(self) -> bool:
        return bool(self.results[0].stage.slo)


def points(results: Sequence[StageResult], alpha: float) -> list[Point]:
    """Every load at every level, in the order in which the stages were planned."""

    def key(result: StageResult) -> tuple[int, str, str]:
        return first[result.stage.level, result.stage.load], result.stage.level or "", result.stage.load

    first: dict[tuple[str | None, str], int] = {}
    for result in results:
        name = (result.stage.level, result.stage.load)
        first[name] = min(first.get(name, result.stage.stage_idx), result.stage.stage_idx)
    return [_point(list(group), alpha) for _, group in groupby(sorted(results, key=key), key)]


def _point(results: list[StageResult], alpha: float) -> Point:
    stage = results[0].stage
    figures = {name: _rate(name, results, alpha) for name in RATES}
    figures |= {name: _beside(name, results) for name in BESIDE}
    censored, repeats = {}, {}
    for metric in sorted({name for result in results for name in result.summaries}):
        for stat in STATS:
            figures[f"{metric}_{stat}_s"] = _latency(metric, stat, results, alpha)
            censored[f"{metric}_{stat}_s"] = _pooled(metric, results).stat(stat, with_failures=True)
            each = tuple(r.summaries[metric].stat(stat) for r in results if metric in r.summaries)
            if len(each) > 1:
                repeats[f"{metric}_{stat}_s"] = each
    talks = [result.turns for result in results if result.turns is not None]
    return Point(
        level=stage.level,
        load=stage.load,
        loop=stage.loop,
        value=stage.value,
        stage_idx=stage.stage_idx,
        results=tuple(results),
        figures=figures,
        repeats=repeats,
        censored=censored,
        findings=tuple(finding_of(name, limit, results, alpha) for name, limit in stage.slo.items()),
        parts=parts_of(results, alpha),
        breaks=breaks_of(results),
        turns=tuple(by_turn(talks)) if talks else (),
        conversations=by_conversation(talks) if talks else None,
    )


def rate_of(name: str, results: Sequence[StageResult]) -> Rate:
    """A rate of RATES over the repeats of a load; NaN where it can't be told."""
    return rate_over_repeats([RATES[name](result.rates) for result in results])


def _rate(name: str, results: list[StageResult], alpha: float) -> Estimate:
    rate = rate_of(name, results)
    method = OVER_REPEATS if len(results) >= FEWEST_REPEATS else WITHIN
    untold = [result.rates for result in results if result.rates.reason is not None]
    if untold:
        worst = max(untold, key=lambda rates: rates.n_needed or 0)
        also = "; in one of them" if len(untold) > 1 else ""
        where = f"in {len(untold)} of {len(results)} repeats{also} " if len(results) > 1 else ""
        return Estimate(math.nan, math.nan, math.nan, method, f"{where}{worst.reason}", worst.n_needed)
    return Estimate(rate.value, *rate.interval(alpha), method)


def _beside(name: str, results: list[StageResult]) -> Estimate:
    values = [BESIDE[name](result) for result in results]
    most = max(values) if name == "in_flight_peak" else float(np.mean(values))
    return Estimate(most, math.nan, math.nan, WITHIN)


def _latency(metric: str, stat: str, results: list[StageResult], alpha: float) -> Estimate:
    if metric == "itl_token":  # weighted: each gap stands for the tokens of its arrival, and what that is worth is open
        return Estimate(_pooled(metric, results).stat(stat), math.nan, math.nan, WITHIN)
    values = [_values(metric, [result]) for result in results]
    return estimate(stat, values, alpha, independent=metric != "itl")


def _pooled(metric: str, results: list[StageResult]) -> Summary:
    if metric == "itl_token":
        return summarise(_values(metric, results), 0, np.concatenate([r.itl_weights for r in results]))
    n_beyond = 0 if metric == "itl" else sum(r.summaries[metric].n_failed for r in results if metric in r.summaries)
    return summarise(_values(metric, results), n_beyond)


def _values(metric: str, results: Sequence[StageResult]) -> Floats:
    values = np.concatenate([np.empty(0), *(result.values[metric] for result in results)])
    kept: Floats = values[~np.isnan(values)]
    return kept


def finding_of(name: str, limit: float, results: Sequence[StageResult], alpha: float) -> Finding:
    """Whether an objective, named as in bench.slo, holds over the repeats of a load."""
    objective = Objective.of(name, limit)
    metric = objective.metric
    units = sum(r.n_answered - r.n_empty - r.n_unknown[metric] for r in results) if metric == "itl" else None
    n_beyond = sum(r.n_failed + r.n_empty for r in results)
    n_unknown = sum(r.n_unknown[metric] for r in results)
    return judge(objective, _values(metric, results), n_beyond, alpha, units, n_unknown)


__all__ = ["BESIDE", "RATES", "STATS", "Point", "finding_of", "points", "rate_of"]

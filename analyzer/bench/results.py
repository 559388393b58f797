"""One stage -> everything that is said about it. Requests are read once, summarised, and let go."""

import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer.bench import facts, rates, requests, schedule, server_side, slo
from analyzer.bench.budget import Budget, budget_of
from analyzer.bench.caches import CacheState, cache_state
from analyzer.bench.quantiles import Summary, summarise
from analyzer.bench.timeline import timeline

Floats = npt.NDArray[np.float64]
METRICS = ("ttfb", "ttft", "tpot", "itl", "latency")
CLEAN, BOUND, UNKNOWN = "client-clean", "CLIENT-BOUND", "unknown"


@dataclass(frozen=True, slots=True)
class Client:
    """The client's verdict on itself over a stage: the worst of its windows."""

    verdict: str
    error_bound_ms: float
    signal: str


@dataclass(frozen=True, slots=True)
class Result:
    """Of one stage (a load at a level and repeat). Times in seconds.

    summaries: by metric, `ttft` and `latency` from the intended start in an open loop (the headline) with
    `ttft_sent`, `latency_sent` from the first byte beside; `itl` per chunk, `itl_token` per token where they differ.
    values: [n_answered] of the same metrics, itl: gaps. Failures are not among them.
    """

    stage: facts.Stage
    n_started: int
    n_answered: int
    n_failed: int
    errors: dict[str, int]
    rates: rates.Rates
    summaries: dict[str, Summary]
    values: dict[str, Floats]
    numbers: list[int]  # [n_answered] places in the schedule, in the order of values
    n_good: int
    findings: tuple[slo.Finding, ...]
    audit: schedule.Audit | None
    cache: CacheState
    breakdown: server_side.Breakdown | None
    kv_usage: Summary | None
    client: Client
    budget: Budget | None  # None: levels aren't benched
    token_source: str  # usage | chunks | mixed | none
    output_as_asked: float  # share of replies with as many tokens as were asked for
    input_tokens: float  # mean, by the server's count, else ours
    output_tokens: float  # mean
    timeline: pl.DataFrame  # see timeline.py

    @property
    def attainment(self) -> float:
        """Share of the requests that were sent and kept every limit; NaN without limits."""
        return self.n_good / self.n_started if self.stage.slo and self.n_started else math.nan

    @property
    def goodput(self) -> float:
        """Requests per second that kept every limit."""
        return self.rates.requests * self.n_good / self.n_answered if self.stage.slo and self.n_answered else math.nan

    @property
    def resumed(self) -> bool:
        return len(self.stage.windows) > 1


def result_of(conn: sqlite3.Connection, stage: facts.Stage, alpha: float) -> Result:
    frame = requests.with_metrics(facts.requests(conn, stage.run_id))
    measured = frame.filter((pl.col("phase") == "measured") & (pl.col("state") != "pending"))
    answered, failed = measured.filter(pl.col("state") == "response"), measured.filter(pl.col("state") == "failure")
    values, summaries = _metrics(answered, failed.height, open_loop=stage.loop == "open")
    objectives = [slo.Objective.of(name, limit) for name, limit in stage.slo.items()]
    per_request = {**{name: values[name] for name in METRICS if name != "itl"}, "itl": _worst_gap(answered)}
    findings = tuple(
        slo.judge(o, values[o.metric], failed.height, alpha, answered.height if o.metric == "itl" else None)
        for o in objectives
    )
    audit = schedule.audit(stage, frame)
    usage = [value for _, _, value in server_side.gauge(stage, server_side.KV_USAGE)]
    return Result(
        stage=stage,
        n_started=measured.height,
        n_answered=answered.height,
        n_failed=failed.height,
        errors=_errors(failed),
        rates=rates.rates(frame, rates.spans(stage, frame)),
        summaries=summaries,
        values=values,
        numbers=answered["number"].to_list(),
        n_good=int(slo.good(per_request, objectives, answered.height).sum()),
        findings=findings,
        audit=audit,
        cache=cache_state(stage, frame),
        breakdown=server_side.breakdown(stage, frame),
        kv_usage=summarise(np.array(usage)) if usage else None,
        client=_client(stage, audit),
        budget=budget_of(conn, stage),
        token_source=_token_source(answered),
        output_as_asked=_mean(answered.select((pl.col("tokens") == pl.col("output_tokens")).mean())),
        input_tokens=_mean(answered.select(pl.coalesce("prompt_tokens", "input_tokens").mean())),
        output_tokens=_mean(answered.select(pl.col("tokens").mean())),
        timeline=timeline(stage, frame),
    )


def _metrics(answered: pl.DataFrame, n_failed: int, *, open_loop: bool) -> tuple[dict[str, Floats], dict[str, Summary]]:
    values = {name.removesuffix("_s"): answered[name].cast(pl.Float64).to_numpy() for name in requests.TIMES}
    if open_loop:
        for name, intended in requests.INTENDED.items():
            metric = name.removesuffix("_s")
            values[f"{metric}_sent"] = values[metric]
            values[metric] = answered[intended].cast(pl.Float64).to_numpy()
    per_chunk, per_token, weights = requests.itl(answered)
    values["itl"] = per_chunk
    summaries = {name: summarise(found, 0 if name == "itl" else n_failed) for name, found in values.items()}
    if len(weights) and not np.allclose(weights, 1.0):
        summaries["itl_token"] = summarise(per_token, 0, weights)
    return values, summaries


def _worst_gap(answered: pl.DataFrame) -> Floats:
    return np.array([found.max() if len(found) else math.nan for found in requests.gaps(answered)])


def _errors(failed: pl.DataFrame) -> dict[str, int]:
    counts = failed.group_by(pl.col("error_type").fill_null("unknown")).len().sort("len", "error_type", descending=True)
    return {str(name): int(n) for name, n in counts.iter_rows()}


def _client(stage: facts.Stage, audit: schedule.Audit | None) -> Client:
    """A rate that was not sent, though nothing was asked to hold it back, is the client's failing whatever else it says
    of itself."""
    told: list[Mapping[str, object]] = [window.client for window in stage.windows if window.client]
    if not told:
        return Client(UNKNOWN, math.nan, "every window was killed before it could say")
    worst = max(told, key=lambda row: (row["verdict"] == BOUND, row["error_bound_ms"]))
    bound = float(str(worst["error_bound_ms"]))
    if audit is not None and audit.sent_share < schedule.SENT_SHARE and not audit.n_held:
        return Client(BOUND, bound, f"only {audit.sent_share:.1%} of the planned rate was sent")
    return Client(str(worst["verdict"]), bound, str(worst["signal"]))


def _token_source(answered: pl.DataFrame) -> str:
    found = answered["counted"].unique().to_list()
    return "none" if not found else str(found[0]) if len(found) == 1 else "mixed"


def _mean(frame: pl.DataFrame) -> float:
    value = frame.item()
    return math.nan if value is None else float(value)

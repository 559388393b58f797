"""One stage -> everything that is said about it. Its requests are read once, summarised, and not kept."""

import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer.bench.figures import rates, schedule, slo
from analyzer.bench.figures.conversation_figures import turns_of
from analyzer.bench.figures.part_facts import PartFacts, part_facts
from analyzer.bench.figures.quantiles import Summary, summarise
from analyzer.bench.read import request_metrics, server_side, stage_facts
from analyzer.bench.read.applied_budget import AppliedBudget, budget_of
from analyzer.bench.read.length_check import LengthCheck, lengths_of
from analyzer.bench.read.prefix_cache import PrefixCache, prefix_cache
from analyzer.bench.read.timeline import timeline
from kvt_async.contract.formulas.throughput import Throughput
from kvt_async.contract.vocabulary import ClientVerdict

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClientPart:
    """This client's own part in a stage, or in a load: the worst of its windows.

    `error_bound_ms`: no instant was stamped later than that in 99% of the time; NaN: nobody could say. `verdict`:
    CLIENT-BOUND where that is over 5% of a figure, or where the rate was not sent that was planned (`sent_share`).
    """

    verdict: str
    error_bound_ms: float
    signal: str
    sent_share: float | None = None  # of the planned rate, where it is the client's failing that less was sent


@dataclass(frozen=True, slots=True)
class StageResult:
    """Everything that is said about one stage (a load at a level and repeat). Times in seconds.

    summaries: by metric, `ttft` and `latency` from the intended start in an open loop (the headline) with
    `ttft_sent`, `latency_sent` from the first byte beside; `itl` per chunk, `itl_token` per token where they differ.
    values: [n_answered] of the same metrics, NaN where a reply does not show one; itl, itl_token: gaps. Failures are
    not among them.
    """

    stage: stage_facts.StageFacts
    n_started: int
    n_answered: int
    n_failed: int
    n_empty: int  # answered, without a token
    errors: dict[str, int]
    rates: Throughput
    summaries: dict[str, Summary]
    values: dict[str, Floats]
    itl_weights: Floats  # of values["itl_token"]: tokens that each stands for
    numbers: list[int]  # [n_answered] places in the schedule, in the order of values
    n_good: int
    n_one_arrival: int  # replies of several tokens that came in one read
    n_coalesced: int  # of the others, those whose first token came in a read with the next: TTFT is an upper bound
    n_done_alone: int  # replies that [DONE] ended, without a finish_reason
    n_unknown: dict[str, int]  # by metric: replies that do not show it, though they have several tokens
    audit: schedule.Audit | None
    cache: PrefixCache
    server: server_side.ServerSide | None  # None: it has no metrics page
    breakdown: server_side.Breakdown | None
    client: ClientPart
    budget: AppliedBudget | None  # None: levels aren't benched
    token_source: str  # usage | chunks | mixed | none
    lengths: LengthCheck
    timeline: pl.DataFrame  # see timeline.py
    parts: PartFacts
    turns: pl.DataFrame | None  # see conversation_figures.turns_of; None: no conversations

    @property
    def attainment(self) -> float:
        """Share of the requests that were sent and kept every limit; NaN without limits."""
        return self.n_good / self.n_started if self.stage.slo and self.n_started else math.nan

    @property
    def goodput(self) -> float:
        """Requests per second that kept every limit."""
        done = self.rates.requests.value
        return done * self.n_good / self.n_answered if self.stage.slo and self.n_answered else math.nan

    @property
    def resumed(self) -> bool:
        return len(self.stage.windows) > 1


def result_of(conn: sqlite3.Connection, stage: stage_facts.StageFacts, alpha: float) -> StageResult:
    frame = request_metrics.with_metrics(stage_facts.requests(conn, stage.run_id))
    measured = frame.filter((pl.col("phase") == "measured") & (pl.col("state") != "pending"))
    answered, failed = measured.filter(pl.col("state") == "response"), measured.filter(pl.col("state") == "failure")
    n_empty = int(answered["empty"].sum())
    values, summaries, itl_weights = _metrics(answered, failed.height, n_empty, open_loop=stage.loop == "open")
    objectives = [slo.Objective.of(name, limit) for name, limit in stage.slo.items()]
    per_request = {name: values[name] for name in request_metrics.TIMES} | {"itl": _worst_gap(answered)}
    one_token = (answered["streamed"].fill_null(0) == 1).to_numpy()
    audit = schedule.audit(stage, frame)
    told = server_side.RepliesDrafts(*stage_facts.reply_drafts(conn, stage.run_id))
    side = server_side.server_side(stage, frame, told)
    return StageResult(
        stage=stage,
        parts=part_facts(stage, frame, answered, failed),
        n_started=measured.height,
        n_answered=answered.height,
        n_failed=failed.height,
        n_empty=n_empty,
        errors=_errors(failed),
        rates=rates.throughput(stage, frame),
        summaries=summaries,
        values=values,
        itl_weights=itl_weights,
        numbers=answered["number"].to_list(),
        n_good=int(slo.good(per_request, objectives, one_token).sum()),
        n_one_arrival=int(answered["one_arrival"].fill_null(False).sum()),
        n_coalesced=answered.filter(pl.col("coalesced") == 1, ~pl.col("one_arrival").fill_null(False)).height,
        n_done_alone=answered.filter(pl.col("done_ns").is_not_null(), pl.col("finish_ns").is_null()).height,
        n_unknown=_unknown(answered, per_request),
        audit=audit,
        cache=prefix_cache(stage, frame),
        server=side,
        breakdown=server_side.breakdown(side, frame),
        client=_client(stage, audit),
        budget=budget_of(conn, stage),
        token_source=_token_source(answered),
        lengths=lengths_of(answered, stage),
        timeline=timeline(stage, frame),
        turns=turns_of(measured, is_open=stage.loop == "open"),
    )


def _metrics(
    answered: pl.DataFrame, n_failed: int, n_empty: int, *, open_loop: bool
) -> tuple[dict[str, Floats], dict[str, Summary], Floats]:
    """(values, summaries, weights of itl_token). A reply without a token has no metric but TTFB, and counts with the
    failures."""
    values = {name: answered[f"{name}_s"].cast(pl.Float64).to_numpy() for name in request_metrics.TIMES}
    if open_loop:
        for metric, intended in request_metrics.INTENDED.items():
            values[f"{metric}_sent"] = values[metric]
            values[metric] = answered[intended].cast(pl.Float64).to_numpy()
    per_chunk, per_token, weights = request_metrics.itl(answered)
    values["itl"], values["itl_token"] = per_chunk, per_token
    beyond = {"itl": 0, "ttfb": n_failed}
    summaries = {
        name: summarise(column, beyond.get(name, n_failed + n_empty))
        for name, column in values.items()
        if name != "itl_token"
    }
    if len(weights) and not np.allclose(weights, 1.0):
        summaries["itl_token"] = summarise(per_token, 0, weights)
    return values, summaries, weights


def _worst_gap(answered: pl.DataFrame) -> Floats:
    return np.array([gaps.max() if len(gaps) else math.nan for gaps in request_metrics.gaps(answered)])


def _unknown(answered: pl.DataFrame, per_request: Mapping[str, Floats]) -> dict[str, int]:
    """By metric, the replies that should show it and do not: a reply shows TPOT and ITL with more than one token, the
    others with one."""
    full = (answered["empty"].fill_null(0) == 0).to_numpy()
    several = full & (answered["streamed"].fill_null(0) > 1).to_numpy()
    return {
        name: int((np.isnan(values) & (several if name in ("tpot", "itl") else full)).sum())
        for name, values in per_request.items()
    }


def _errors(failed: pl.DataFrame) -> dict[str, int]:
    counts = failed.group_by(pl.col("error_type").fill_null("unknown")).len().sort("len", "error_type", descending=True)
    return {str(name): int(n) for name, n in counts.iter_rows()}


def _client(stage: stage_facts.StageFacts, audit: schedule.Audit | None) -> ClientPart:
    """What the stage's worst window says of the client. Where less than the planned rate was sent, though nothing was
    asked to hold it back, that is the client's failing whatever else it says of itself."""
    rows: list[Mapping[str, object]] = [window.client for window in stage.windows if window.client]
    short = audit is not None and audit.sent_share < schedule.SENT_SHARE and not audit.n_held
    sent_share = audit.sent_share if audit is not None and short else None
    if not rows:
        return ClientPart(ClientVerdict.UNKNOWN, math.nan, "every window was killed before it could say", sent_share)
    worst = max(rows, key=lambda row: float(str(row["error_bound_ms"])))
    bound = float(str(worst["error_bound_ms"]))
    if sent_share is not None:
        return ClientPart(ClientVerdict.BOUND, bound, f"only {sent_share:.1%} of the planned rate was sent", sent_share)
    return ClientPart(ClientVerdict.CLEAN, bound, str(worst["signal"]))


def _token_source(answered: pl.DataFrame) -> str:
    sources = answered["counted"].unique().to_list()
    return "none" if not sources else str(sources[0]) if len(sources) == 1 else "mixed"

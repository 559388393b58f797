"""Figures of conversations: turn by turn, for a later turn has a longer prompt and a warmer cache, and by conversation.

Turns 0, 1 and 2 stand alone, all later ones together. A turn behind one that has failed was never sent; it is counted
beside those that failed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from analyzer.bench.figures.quantiles import Summary, summarise
from kvt_async.contract.cache_state import cache_state
from kvt_async.contract.vocabulary import CacheState

LATER = 3  # this turn and all that follow it
METRICS = ("ttft", "tpot", "latency", "delay")


@dataclass(frozen=True, slots=True)
class TurnStats:
    """Of the measured turns of one number, of a load's repeats together. Tokens are means of the answered.

    `summaries`: ttft, tpot and latency as in the load's own figures, and `delay`: first byte written after the end of
    the turn before plus the planned think time. `shared_tokens`: of the prompt, with which an earlier one began or
    which the server generated itself. Shares are of prompt tokens; None: the server says nothing.
    """

    turn: int
    n: int
    n_failed: int
    n_lost: int
    asked_tokens: float | None
    prompt_tokens: float | None
    shared_tokens: float | None
    cached_tokens: float | None
    shared_share: float | None
    cached_share: float | None
    cache: CacheState
    summaries: dict[str, Summary]

    @property
    def title(self) -> str:
        return f"{self.turn}+" if self.turn == LATER else str(self.turn)


@dataclass(frozen=True, slots=True)
class ConversationFigures:
    """Of the measured conversations of a load. `n_whole`: every turn was answered, in one window: theirs are the
    durations (first turn's start, in an open loop as planned, to the last text), think time and tokens."""

    n: int
    n_whole: int
    n_failed: int
    turns_mean: float
    duration: Summary
    think_mean_s: float
    input_tokens_mean: float
    output_tokens_mean: float


def turns_of(measured: pl.DataFrame, *, is_open: bool) -> pl.DataFrame | None:
    """One row a measured turn with an outcome, of requests with metrics; None: the stage had no conversations."""
    rows = measured.filter(pl.col("conversation_idx").is_not_null())
    if rows.is_empty():
        return None
    ttft, latency = ("ttft_intended_s", "latency_intended_s") if is_open else ("ttft_s", "latency_s")
    return rows.select(
        *("session_id", "conversation_idx", "turn_idx", "state", "input_tokens", "prompt_tokens", "cached_tokens"),
        *("shared_tokens", "tokens", "tpot_s", "finished_ns"),
        was_sent=pl.col("start_ns").is_not_null(),
        begin_ns=pl.coalesce("intended_ns", "start_ns") if is_open else pl.col("start_ns"),
        think_s=pl.col("think_ns") / 1e9,
        ttft_s=pl.col(ttft),
        latency_s=pl.col(latency),
        delay_s=pl.when(pl.col("turn_idx") > 0).then(pl.col("send_lag_s")),
    )


def by_turn(repeats: Sequence[pl.DataFrame]) -> list[TurnStats]:
    """The figures of each turn, of all repeats together."""
    rows = pl.concat(repeats).with_columns(turn=pl.col("turn_idx").clip(upper_bound=LATER))
    return [_of_turn(int(turn), rows.filter(pl.col("turn") == turn)) for turn in sorted(rows["turn"].unique())]


def _of_turn(turn: int, rows: pl.DataFrame) -> TurnStats:
    answered = rows.filter(pl.col("state") == "response")
    n_lost = rows.filter(~pl.col("was_sent")).height
    counted = answered.filter(pl.col("cached_tokens").is_not_null() & pl.col("prompt_tokens").is_not_null())
    share = _share(counted, "cached_tokens", "prompt_tokens")
    n_failed = rows.height - answered.height
    return TurnStats(
        turn=turn,
        n=rows.height,
        n_failed=n_failed,
        n_lost=n_lost,
        asked_tokens=_mean(answered, "input_tokens"),
        prompt_tokens=_mean(answered, "prompt_tokens"),
        shared_tokens=_mean(answered, "shared_tokens"),
        cached_tokens=_mean(counted, "cached_tokens"),
        shared_share=_share(answered.filter(pl.col("shared_tokens").is_not_null()), "shared_tokens", "input_tokens"),
        cached_share=share,
        cache=CacheState.UNKNOWN if share is None else cache_state(share),
        summaries={
            name: summarise(
                answered[f"{name}_s"].cast(pl.Float64).to_numpy(), 0 if name in ("delay", "tpot") else n_failed
            )
            for name in METRICS
        },
    )


def by_conversation(repeats: Sequence[pl.DataFrame]) -> ConversationFigures:
    """The figures of the conversations of all repeats together."""
    rows = pl.concat(
        [frame.with_columns(repeat=pl.lit(n)) for n, frame in enumerate(repeats)]
    )  # each has a conversation 0
    talks = rows.group_by("repeat", "conversation_idx").agg(
        turns=pl.len(),
        whole=(pl.col("state") == "response").all()
        & (pl.col("session_id").n_unique() == 1)
        & (pl.col("turn_idx").max() + 1 == pl.len()),
        failed=(pl.col("state") == "failure").any(),
        duration_s=(pl.col("finished_ns").max() - pl.col("begin_ns").min()) / 1e9,
        think_s=pl.col("think_s").fill_null(0.0).sum(),
        input_tokens=pl.coalesce("prompt_tokens", "input_tokens").sum(),
        output_tokens=pl.col("tokens").sum(),
    )
    whole = talks.filter("whole")
    return ConversationFigures(
        n=talks.height,
        n_whole=whole.height,
        n_failed=talks.filter("failed").height,
        turns_mean=_mean(talks, "turns") or math.nan,
        duration=summarise(whole["duration_s"].cast(pl.Float64).to_numpy()),
        think_mean_s=_number(_mean(whole, "think_s")),
        input_tokens_mean=_number(_mean(whole, "input_tokens")),
        output_tokens_mean=_number(_mean(whole, "output_tokens")),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _mean(rows: pl.DataFrame, name: str) -> float | None:
    values = rows[name].drop_nulls().to_numpy()
    return float(values.mean()) if len(values) else None


def _share(rows: pl.DataFrame, part: str, whole: str) -> float | None:
    total = int(rows[whole].sum())
    return int(rows[part].sum()) / total if total else None

"""How much was done per second by one stage: its windows, each with the requests of its session, put together.

What is computed, and why, stands in contract/formulas/throughput.py: the runner's stop rules use the same figures.
"""

import numpy as np
import polars as pl

from analyzer.bench.read.stage_facts import StageFacts, WindowFacts
from kvt_async.contract.formulas.conversation_lives import window_lives
from kvt_async.contract.formulas.open_loop_throughput import WHOLE, of_window
from kvt_async.contract.formulas.request_lives import Floats, Lives
from kvt_async.contract.formulas.throughput import SHAPED, Throughput, nothing, together


def throughput(stage: StageFacts, frame: pl.DataFrame) -> Throughput:
    """The throughput of a stage over all its windows. `frame` has requests.with_metrics' columns; warm-up requests
    count, for they load the server like any other."""
    if stage.shape is not None:
        return nothing(SHAPED, None)
    parts = []
    for window in stage.windows:
        requests = frame.filter((pl.col("session_id") == window.session_id) & (pl.col("state") != "pending"))
        whole = window.closed and window.reason in WHOLE
        until = window.measured_to_ns
        until_s = None if until is None else (until - window.start_ns) / 1e9
        seen = None if whole else _turns_seen(frame)
        lives = lives_in(requests, window, until_s, seen, is_open=stage.loop == "open")
        if lives.n:
            parts.append(of_window(lives, stage.concurrency, until_s, whole=whole))
    return together(parts) if parts else nothing("nothing was sent", None)


def _turns_seen(frame: pl.DataFrame) -> dict[int, int]:
    """How many turns of each conversation were begun in all windows."""
    begun = frame.filter(pl.col("start_ns").is_not_null() & pl.col("conversation_idx").is_not_null())
    return dict(begun.group_by("conversation_idx").agg(pl.col("turn_idx").max() + 1).iter_rows())


def lives_in(
    requests: pl.DataFrame,
    window: WindowFacts,
    until_s: float | None = None,
    turns_seen: dict[int, int] | None = None,
    *,
    is_open: bool,
) -> Lives:
    """The requests of one window, or its conversations, in seconds from its start: see `window_lives`."""

    def seconds(expr: pl.Expr) -> Floats:
        return requests.select((expr - window.start_ns) / 1e9).to_series().cast(pl.Float64).to_numpy()

    def number(expr: pl.Expr) -> Floats:
        return requests.select(expr.cast(pl.Float64)).to_series().to_numpy()

    answered = pl.col("state") == "response"
    begin = pl.coalesce("intended_ns", "start_ns") if is_open else pl.col("start_ns")
    columns = {
        "begin": seconds(begin),
        "start": seconds(pl.col("start_ns")),
        "end": seconds(pl.col("end_ns")),
        "finished": seconds(pl.col("finished_ns")),
        "first": seconds(pl.col("first_text_user_ns")),
        "last": seconds(pl.col("last_delta_ns")),
        "ok": number(answered),
        "measured": number(pl.col("phase") == "measured"),
        "input_tokens": number(pl.coalesce("prompt_tokens", "input_tokens")),
        "output_tokens": number(
            pl.when(answered).then(pl.coalesce("tokens", "output_tokens")).otherwise(pl.col("output_tokens"))
        ),
        "conversation": number(pl.col("conversation_idx")),
        "turn": number(pl.col("turn_idx")),
        "think": number(pl.col("think_ns") / 1e9),
    }
    floats = {name: np.array(column, dtype=np.float64) for name, column in columns.items()}
    return window_lives(floats, requests["chunks"].to_list(), until_s, turns_seen)

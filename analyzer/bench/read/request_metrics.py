"""Marks -> metrics of single requests, as docs/MEASUREMENT.md defines them. Seconds; null where a mark is missing."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from kvt_async.contract.formulas.request_lives import chunk_offsets

Floats = npt.NDArray[np.float64]
TITLES = {  # of every time that a bench reports, in that order
    "ttft": "TTFT",
    "ttft_sent": "TTFT, sent",
    "ttfb": "TTFB",
    "tpot": "TPOT",
    "itl": "ITL",
    "itl_token": "ITL per token",
    "latency": "latency",
    "latency_sent": "latency, sent",
}
INTENDED = {"ttft": "ttft_intended_s", "latency": "latency_intended_s"}  # of which `_sent` is the other
GAPS = ("itl", "itl_token")  # of a reply several
TIMES = tuple(name for name in TITLES if name not in GAPS and not name.endswith("_sent"))  # of a reply one


def with_metrics(frame: pl.DataFrame) -> pl.DataFrame:
    """Add ttfb_s, ttft_s, tpot_s, latency_s, ttft_s and latency_s from the intended start as well, send_lag_s, tokens
    and one_arrival.

    A reply without a token has no TTFT and no latency: it would be the fastest of all. `one_arrival`: several tokens
    came in one read, so that nobody saw how far apart the server made them: no TPOT, rather than 0.
    `tokens`: completion tokens by usage, else the number of chunks; `streamed`: those that were sent, which alone have
    times. `finished_ns`: the last output, else the end.
    Requests that failed keep what marks they have; nobody may read a latency from them.
    """
    frame = frame.with_columns(
        finished_ns=pl.coalesce("last_delta_ns", "end_ns"),
        tokens=pl.coalesce("completion_tokens", "n_text_chunks"),
        streamed=pl.coalesce("streamed_tokens", "n_text_chunks"),
        counted=pl.when(pl.col("completion_tokens").is_null()).then(pl.lit("chunks")).otherwise(pl.lit("usage")),
    )
    frame = frame.with_columns(
        one_arrival=(pl.col("streamed") > 1) & (pl.col("last_delta_ns") <= pl.col("first_text_user_ns")),
    )
    full = pl.col("empty").fill_null(0) == 0
    return frame.with_columns(
        ttfb_s=_seconds("first_byte_ns", "start_ns"),
        ttft_s=pl.when(full).then(_seconds("first_text_ns", "start_ns")),
        latency_s=pl.when(full).then(_seconds("finished_ns", "start_ns")),
        tpot_s=pl.when(full & (pl.col("streamed") > 1) & ~pl.col("one_arrival")).then(
            _seconds("last_delta_ns", "first_text_user_ns") / (pl.col("streamed") - 1)
        ),
        ttft_intended_s=pl.when(full).then(_seconds("first_text_ns", "intended_ns")),
        latency_intended_s=pl.when(full).then(_seconds("finished_ns", "intended_ns")),
        send_lag_s=_seconds("start_ns", "intended_ns"),
    )


def gaps(frame: pl.DataFrame) -> list[Floats]:
    """Per request the gaps between successive arrivals of text, in seconds; empty where there are fewer than two.

    Chunks that one read brought are one arrival: how far apart the server sent them, nobody saw.
    """
    return [np.diff(np.unique(stamps)) for stamps in chunk_times(frame["chunks"].to_list())]


def chunk_times(blobs: Sequence[bytes | None]) -> list[Floats]:
    """Per request the arrival of each text chunk, seconds from its start."""
    offsets, bounds = chunk_offsets(blobs)
    return [offsets[a:b] for a, b in pairwise(bounds)]


def itl(frame: pl.DataFrame) -> tuple[Floats, Floats, Floats]:
    """(gaps per chunk, gaps per token, their weights), in seconds, of all requests together.

    Where an arrival brings several tokens, a request's gaps are spread evenly over them: each gap counts
    (tokens - 1) / (arrivals - 1) times and lasts that much less, so that the weighted mean is that of TPOT.
    """
    per_chunk, per_token, weights = [], [], []
    for times, tokens in zip(gaps(frame), frame["streamed"].to_list(), strict=True):
        if len(times) == 0:
            continue
        share = max((tokens or 0) - 1, 1) / len(times)
        per_chunk.append(times)
        per_token.append(times / share)
        weights.append(np.full(len(times), share))
    if not per_chunk:
        return np.empty(0), np.empty(0), np.empty(0)
    return np.concatenate(per_chunk), np.concatenate(per_token), np.concatenate(weights)


def _seconds(end: str, start: str) -> pl.Expr:
    return (pl.col(end) - pl.col(start)) / 1e9

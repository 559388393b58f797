"""How much was done per second, inside the steady part of each window.

A completion counts where it happened, whatever its phase: requests of the warm-up load the server like any other. A
window that was killed ends with its last recorded outcome: all that had completed by then is stored, so its rate is
not biased.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer.bench.facts import Stage, Window

Floats = npt.NDArray[np.float64]
BATCHES = 10
FEWEST_IN_STEADY = 10  # completions; below, the whole window is used and called so


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a window that rates are taken from, on its session's clock."""

    session_id: str
    from_ns: int
    to_ns: int
    steady: bool  # False: the whole window, ramp-up and drain included

    @property
    def seconds(self) -> float:
        return (self.to_ns - self.from_ns) / 1e9


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second over `seconds`; `batches` [<= BATCHES, 4] has the same figures of equal parts of the time."""

    seconds: float
    steady: bool
    requests: float
    input_tokens: float
    output_tokens: float
    arrivals: float  # requests that were due (open loop) or started (closed loop)
    batches: Floats

    @property
    def total_tokens(self) -> float:
        return self.input_tokens + self.output_tokens


def spans(stage: Stage, frame: pl.DataFrame) -> list[Span]:
    """One for each window that sent anything: its steady part, or all of it where that holds too little."""
    steady = [span for window in stage.windows if (span := _steady(window, frame)) is not None]
    done = sum(_inside(frame, span).height for span in steady)
    if done >= FEWEST_IN_STEADY:
        return steady
    return [span for window in stage.windows if (span := _whole(window, frame)) is not None]


def rates(frame: pl.DataFrame, found: list[Span]) -> Rates:
    """Sums over sums, when there are several windows. `frame` has requests.with_metrics' columns."""
    seconds = sum(span.seconds for span in found)
    if seconds <= 0:
        return Rates(0.0, False, math.nan, math.nan, math.nan, math.nan, np.empty((0, 4)))
    n = max(1, round(BATCHES / len(found)))
    parts = [_batches(frame, span, n) for span in found]
    weights = np.concatenate([np.full(n, span.seconds / n) for span in found])
    batches = np.concatenate(parts)
    mean = np.average(batches, axis=0, weights=weights)
    steady = all(span.steady for span in found)
    done, fed, made, begun = (float(value) for value in mean)
    return Rates(seconds, steady, done, fed, made, begun, batches)


def _batches(frame: pl.DataFrame, span: Span, n: int) -> Floats:
    """[n, 4]: requests, input tokens, output tokens and arrivals per second of n equal parts of the span."""
    edges = np.linspace(span.from_ns, span.to_ns, n + 1)
    done = _inside(frame, span)
    where = np.clip(np.searchsorted(edges, done["finished_ns"].to_numpy(), side="right") - 1, 0, n - 1)
    columns = [np.ones(done.height)]
    for name in ("prompt_tokens", "tokens"):
        fallback = "input_tokens" if name == "prompt_tokens" else "output_tokens"
        columns.append(done.select(pl.coalesce(name, fallback).fill_null(0))[:, 0].to_numpy().astype(float))
    counted = [np.bincount(where, weights=column, minlength=n) for column in columns]
    begun = frame.filter(pl.col("session_id") == span.session_id).select(
        pl.coalesce("intended_ns", "start_ns").drop_nulls()
    )[:, 0]
    due = begun.filter((begun >= span.from_ns) & (begun < span.to_ns)).to_numpy()
    counted.append(np.bincount(np.clip(np.searchsorted(edges, due, side="right") - 1, 0, n - 1), minlength=n))
    result: Floats = np.stack(counted, axis=1) / (span.seconds / n)
    return result


def _inside(frame: pl.DataFrame, span: Span) -> pl.DataFrame:
    return frame.filter(
        (pl.col("session_id") == span.session_id)
        & (pl.col("state") == "response")
        & pl.col("finished_ns").is_between(span.from_ns, span.to_ns, closed="right")
    )


def _steady(window: Window, frame: pl.DataFrame) -> Span | None:
    if window.closed and window.measured_from_ns is not None and window.measured_to_ns is not None:
        if window.measured_to_ns <= window.measured_from_ns:
            return None
        return Span(window.session_id, window.measured_from_ns, window.measured_to_ns, True)
    mine = frame.filter((pl.col("session_id") == window.session_id) & (pl.col("phase") == "measured"))
    begun = mine.select(pl.coalesce("intended_ns", "start_ns").min()).item()
    ended = mine.select(pl.col("end_ns").max()).item()
    if begun is None or ended is None or ended <= begun:
        return None
    return Span(window.session_id, begun, ended, True)


def _whole(window: Window, frame: pl.DataFrame) -> Span | None:
    mine = frame.filter(pl.col("session_id") == window.session_id)
    begun, ended = mine.select(pl.col("start_ns").min()).item(), mine.select(pl.col("end_ns").max()).item()
    if begun is None or ended is None or ended <= begun:
        return None
    return Span(window.session_id, begun, ended, False)

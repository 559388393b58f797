"""Was the load the one that was asked for? Planned against achieved arrivals of an open loop.

The index of dispersion is the variance of arrivals per cell of time over their mean: 1 for a Poisson process, 0 for a
constant rate, above 1 for bursts (gamma with shape k: 1/k in long cells).
"""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from analyzer.bench.figures.quantiles import Summary, summarise
from analyzer.bench.read.stage_facts import StageFacts

FEWEST_CELLS = 20
PER_CELL = 4.0  # planned arrivals a cell of time
SENT_SHARE = 0.99  # below it the rate is called not achieved by the client


@dataclass(frozen=True, slots=True)
class Audit:
    """`send_lag_s`: write of the first byte minus the intended instant. Rates are of sending, not of completion."""

    planned_rate: float
    sent_rate: float
    planned_dispersion: float
    sent_dispersion: float
    send_lag_s: Summary
    n_late: int
    n_held: int

    @property
    def sent_share(self) -> float:
        return self.sent_rate / self.planned_rate if self.planned_rate > 0 else math.nan

    @property
    def achieved(self) -> bool:
        return self.sent_share >= SENT_SHARE


def audit(stage: StageFacts, frame: pl.DataFrame) -> Audit | None:
    """How the schedule of a stage was kept; None for a closed loop, which has none."""
    if stage.loop != "open":
        return None
    frame = frame.filter(_is_scheduled())
    lag = summarise(frame.filter(pl.col("phase") == "measured")["send_lag_s"].to_numpy())
    planned, sent, seconds_planned, seconds_sent, dispersions = 0, 0, 0.0, 0.0, []
    for window in stage.windows:
        requests = frame.filter((pl.col("session_id") == window.session_id) & pl.col("intended_ns").is_not_null())
        wanted = np.sort(requests["intended_ns"].to_numpy())
        started = np.sort(requests["start_ns"].drop_nulls().to_numpy())
        if len(wanted) < 2:
            continue
        # n arrivals make n - 1 gaps; the same count over how long it really took to send them
        planned, seconds_planned = planned + len(wanted) - 1, seconds_planned + (wanted[-1] - wanted[0]) / 1e9
        if len(started) > 1:
            sent, seconds_sent = sent + len(started) - 1, seconds_sent + (started[-1] - wanted[0]) / 1e9
        dispersions.append((dispersion(wanted), dispersion(started)))
    both = np.array(dispersions).mean(axis=0) if dispersions else np.array([math.nan, math.nan])
    return Audit(
        planned_rate=planned / seconds_planned if seconds_planned > 0 else math.nan,
        sent_rate=sent / seconds_sent if seconds_sent > 0 else math.nan,
        planned_dispersion=float(both[0]),
        sent_dispersion=float(both[1]),
        send_lag_s=lag,
        n_late=sum(window.n_late for window in stage.windows),
        n_held=sum(window.n_held for window in stage.windows),
    )


def _is_scheduled() -> pl.Expr:
    """Not a later turn of a conversation, which is due when the one before has ended."""
    first = pl.col("turn_idx").min().over("session_id", "conversation_idx")
    return pl.col("conversation_idx").is_null() | (pl.col("turn_idx") == first)


def dispersion(instants: np.ndarray) -> float:
    """Index of dispersion of sorted instants (ns) over cells of PER_CELL arrivals; NaN for fewer than 20 cells."""
    cells = int(len(instants) / PER_CELL)
    if cells < FEWEST_CELLS or instants[-1] <= instants[0]:
        return math.nan
    counts = np.histogram(instants, bins=cells)[0]
    return float(counts.var(ddof=1) / counts.mean())

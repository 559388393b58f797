"""A stage over time: offered and achieved rate, requests in flight, TTFT, and what the server says, in equal cells."""

from itertools import pairwise

import numpy as np
import polars as pl

from analyzer.bench.read.server_series import acceptance, gauge
from analyzer.bench.read.stage_facts import StageFacts
from kvt_async.contract.formulas.server_figures import FIGURES

CELLS = 60
LEAST_CELL_S = 0.25
SERVER = ("kv_usage", "running", "waiting")  # gauges of the table of figures


def timeline(stage: StageFacts, frame: pl.DataFrame) -> pl.DataFrame:
    """Columns t_s (middle of the cell, since the window's start), offered_per_s, achieved_per_s, in_flight (mean),
    ttft_p50_s; by the server's pages kv_usage, running, waiting and acceptance (of drafted tokens); null where a cell
    has none. The newest window; empty where it sent nothing.

    A window begins with its first request where that went out before the instant in its row: a closed loop does not
    wait for it."""
    if not stage.windows:
        return _empty()
    window = stage.windows[-1]
    requests = frame.filter(pl.col("session_id") == window.session_id)
    ended = requests.select(pl.col("end_ns").max()).item()
    if requests.is_empty() or ended is None:
        return _empty()
    begun = requests.select(pl.min_horizontal("start_ns", "intended_ns").min()).item()
    origin = min(window.start_ns, window.start_ns if begun is None else begun)
    length = max((ended - origin) / 1e9, LEAST_CELL_S)
    n = int(max(2, min(CELLS, length / LEAST_CELL_S)))
    edges = np.linspace(0, length, n + 1)
    cell = length / n

    def since(column: str, rows: pl.DataFrame) -> np.ndarray:
        return (rows[column].to_numpy() - origin) / 1e9

    started = requests.filter(pl.col("start_ns").is_not_null())
    done = requests.filter((pl.col("state") == "response") & pl.col("finished_ns").is_not_null())
    due = requests.with_columns(due=pl.coalesce("intended_ns", "start_ns")).filter(pl.col("due").is_not_null())
    begins, ends = since("start_ns", started), since("end_ns", started.with_columns(pl.col("end_ns").fill_null(ended)))
    busy = np.array(
        [
            np.clip(np.minimum(ends, high) - np.maximum(begins, low), 0, None).sum() / cell
            for low, high in pairwise(edges)
        ]
    )
    timed = done.filter(pl.col("ttft_s").is_not_null())
    where = np.clip(np.searchsorted(edges, since("start_ns", timed), side="right") - 1, 0, n - 1)
    ttft = timed["ttft_s"].to_numpy()
    told = {name: gauge(stage, FIGURES[name]) for name in SERVER} | {"acceptance": acceptance(stage)}

    def in_cells(values: list[tuple[str, int, float]]) -> list[float | None]:
        mine = [((at_ns - origin) / 1e9, value) for session, at_ns, value in values if session == window.session_id]
        return [_median(np.array([value for t, value in mine if low <= t < high])) for low, high in pairwise(edges)]

    return pl.DataFrame(
        {
            "t_s": (edges[:-1] + edges[1:]) / 2,
            "offered_per_s": np.histogram(since("due", due), edges)[0] / cell,
            "achieved_per_s": np.histogram(since("finished_ns", done), edges)[0] / cell,
            "in_flight": busy,
            "ttft_p50_s": [_median(ttft[where == i]) for i in range(n)],
            **{name: in_cells(values) for name, values in told.items()},
        },
        schema=_SCHEMA,
    )


_SCHEMA = dict.fromkeys(
    ("t_s", "offered_per_s", "achieved_per_s", "in_flight", "ttft_p50_s", *SERVER, "acceptance"), pl.Float64
)


def _empty() -> pl.DataFrame:
    return pl.DataFrame(schema=_SCHEMA)


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None

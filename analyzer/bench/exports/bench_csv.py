"""A bench as CSV: a row a load with every figure and its interval, or a row a request."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from analyzer.bench.figures.points import Point
from analyzer.bench.figures.stage_results import StageResult

Row = dict[str, Any]
REQUEST_COLUMNS = (
    *("request_id", "phase", "state", "number", "offset_ns", "intended_ns", "start_ns", "end_ns"),
    *("ttfb_s", "ttft_s", "ttft_intended_s", "tpot_s", "latency_s", "latency_intended_s", "send_lag_s"),
    *("input_tokens", "output_tokens", "prompt_tokens", "completion_tokens", "cached_tokens", "tokens"),
    *("error_type", "http_status", "n_attempts"),
)


def load_rows(points: Sequence[Point]) -> list[Row]:
    """A row a load. Seconds and per second, as in --json; empty where there is nothing to say."""
    return [_load_row(point) for point in points]


def _load_row(point: Point) -> Row:
    row: Row = {
        "level": point.level or "",
        "load": point.load,
        "loop": point.loop,
        "value": point.value,
        "n_repeats": len(point.results),
        "n_started": point.n_started,
        "n_answered": point.n_answered,
        "n_failed": point.n_failed,
        "partial": point.partial,
        "attainment": _finite(point.attainment),
        "client": str(point.client.verdict),
        "cache": str(point.cache),
    }
    for name, estimate in point.figures.items():
        row |= {
            name: _finite(estimate.value),
            f"{name}_low": _finite(estimate.low),
            f"{name}_high": _finite(estimate.high),
        }
    return row


def request_rows(result: StageResult, frame: pl.DataFrame) -> Iterator[Row]:
    """A row a request of a stage that was started, warm-up included. `frame`: with_metrics of them."""
    stage = result.stage
    about = {"level": stage.level or "", "load": stage.load, "repeat": stage.repeat_idx}
    for row in frame.select(REQUEST_COLUMNS).iter_rows(named=True):
        yield about | row


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def csv_text(rows: Sequence[Row]) -> str:
    """With a head of all names that any row has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()

"""Stored answers scored by another metric, in memory."""

import json
import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from analyzer.metrics.single import scorer
from analyzer.scoring.scorable import scorable
from analyzer.scoring.score import reads
from kvt_async.contract.errors import ConfigError

MetricOfAnswers = Callable[[str, Sequence[str], Mapping[str, Any]], float]
"""(answer, golds, the example's meta) -> a score from 0 to 1."""


def scores_of(
    conn: sqlite3.Connection, dataset_id: str, metric: str | MetricOfAnswers
) -> Callable[[pl.DataFrame], pl.Series]:
    """What scores a frame with the columns example_id, text, golds and is_failure: a failed request has 0.

    Raises ConfigError for a name that is no metric, or one that can't judge this data set; in use ValueError for a
    score that is not from 0 to 1.
    """
    if isinstance(metric, str):
        scorable(conn, dataset_id, metric)
        if reads(metric) != "text":
            raise ConfigError(
                f"{metric} reads another thing than an answer's text",
                do=f"Use `kvt all DIR --metric {metric}`, which scores the stored replies by it.",
            )
        score: MetricOfAnswers = scorer(metric)
    else:
        score = metric
    metas = {
        example: json.loads(meta)
        for example, meta in conn.execute(
            "SELECT example_id, meta_json FROM examples WHERE dataset_id=?", (dataset_id,)
        )
    }

    def scored(rows: pl.DataFrame) -> pl.Series:
        values = []
        for example, text, golds, failed in rows.select("example_id", "text", "golds", "is_failure").iter_rows():
            value = 0.0 if failed else float(score(text or "", list(golds or ()), metas[example]))
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise ValueError(f"the metric scored the answer to {example} with {value}, which is not from 0 to 1")
            values.append(value)
        return pl.Series("score", values, dtype=pl.Float64)

    return scored

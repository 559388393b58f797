"""Outcomes -> what is told of its answers beside their scores, in the order of the dataset's entries."""

import numpy as np
import polars as pl

from analyzer.scoring import failure_labels
from analyzer.stats.outcome_changes import AnswerTraits, Small
from kvt_async.contract.errors import FailureLabel
from kvt_async.contract.vocabulary import CALL_FAULTS, TIMES, Measure


def trait_columns(outcomes: pl.DataFrame, *, of_calls: bool = False) -> pl.DataFrame:
    """entry, sample_idx and every measure of each answer, of `outcomes.outcomes` joined with entries; rows in their
    order. A failed request has no answer, so nothing is known of one.

    of_calls: scored by a metric of tool calls, whose faults are told of each answer.
    """
    answered = ~pl.col("is_failure")

    def is_known(value: pl.Expr) -> pl.Expr:
        return pl.when(answered).then(value.cast(pl.Float32))

    faults = CALL_FAULTS if of_calls else ()
    # Unknown where there is nothing to compare with: at full cache itself, or where full cache's request failed.
    same = pl.col("flags").str.contains("identical_to_full", literal=True)
    return outcomes.select(
        pl.col("entry", "sample_idx"),
        is_known(pl.col("completion_tokens")).alias(Measure.TOKENS),
        is_known(failure_labels.at_its_length()).alias(Measure.CUT_OFF),
        is_known(pl.col("failure_label").eq_missing(FailureLabel.EMPTY_OUTPUT)).alias(Measure.EMPTY),
        is_known(pl.col("flags").str.contains("repetition_loop", literal=True)).alias(Measure.REPETITION),
        is_known(pl.col("failure_label").eq_missing(FailureLabel.FORMAT_ERROR)).alias(Measure.FORMAT_ERROR),
        pl.when(same | pl.col("first_divergence").is_not_null()).then(same.cast(pl.Float32)).alias(Measure.IDENTICAL),
        pl.col("first_divergence").cast(pl.Float32).alias(Measure.DIVERGENCE),
        *(is_known(pl.col(f"{time}_s")).alias(time) for time in TIMES),
        *(is_known(pl.col("flags").str.contains(fault, literal=True)).alias(fault) for fault in faults),
    )


def answer_traits(columns: pl.DataFrame, n_entries: int, parts: pl.DataFrame | None = None) -> AnswerTraits:
    """Of one run: rows of `trait_columns`. parts: what its scores are made of (scoring/answer_parts.py), with the entry
    of each; None where the metric names none."""
    entry, sample = columns["entry"].to_numpy(), columns["sample_idx"].to_numpy()
    shape = n_entries, int(sample.max()) + 1 if len(sample) else 1
    values = {}
    for measure in (m for m in Measure if m in columns.columns):
        values[measure] = np.full(shape, np.nan, dtype=np.float32)
        values[measure][entry, sample] = columns[measure].to_numpy()
    return AnswerTraits(values, {} if parts is None else _parts(parts, shape))


def _parts(frame: pl.DataFrame, shape: tuple[int, int]) -> dict[str, Small]:
    """[n, k] by the name of the part; NaN where an answer has no such part."""
    parts: dict[str, Small] = {}
    for (name,), rows in frame.group_by("part", maintain_order=True):
        parts[str(name)] = values = np.full(shape, np.nan, dtype=np.float32)
        values[rows["entry"].to_numpy(), rows["sample_idx"].to_numpy()] = rows["value"].to_numpy()
    return dict(sorted(parts.items()))

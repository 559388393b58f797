"""Outcomes -> what is told of answers beside their scores: a place for each answer, unknown where nothing tells."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from analyzer.summarise.answer_traits import answer_traits, trait_columns
from kvt_async.contract.vocabulary import CALL_FAULTS, Measure

ROW: dict[str, Any] = {
    "entry": 0,
    "sample_idx": 0,
    "is_failure": False,
    "completion_tokens": 7,
    "finish_reason": "stop",
    "failure_label": None,
    "flags": "identical_to_full",
    "first_divergence": None,
    "ttft_s": 0.25,
    "tpot_s": None,
    "latency_s": 1.5,
}
TYPES: dict[str, Any] = {
    "failure_label": pl.String, "finish_reason": pl.String, "first_divergence": pl.Int64, "completion_tokens": pl.Int64,
    "tpot_s": pl.Float64,
}  # fmt: skip


def of(*rows: dict[str, Any], n: int = 2) -> dict[str, list[Any]]:
    """By measure: the value of every answer, None where it isn't known."""
    traits = answer_traits(trait_columns(pl.DataFrame([ROW | row for row in rows], schema_overrides=TYPES)), n)
    return {m: [[None if np.isnan(x) else float(x) for x in row] for row in v] for m, v in traits.of.items()}


def test_every_answer_has_its_place_by_example_and_sample() -> None:
    rows = [{"entry": e, "sample_idx": j, "completion_tokens": 10 * e + j} for e, j in ((1, 1), (0, 0), (1, 0))]
    assert of(*rows, n=3)[Measure.TOKENS] == [[0, None], [10, 11], [None, None]]


@pytest.mark.parametrize(
    ("row", "measure", "value"),
    [
        ({}, Measure.CUT_OFF, 0),
        ({"finish_reason": "length"}, Measure.CUT_OFF, 1),
        ({"finish_reason": "FinishReason.MAX_TOKENS"}, Measure.CUT_OFF, 1),
        ({"finish_reason": None}, Measure.CUT_OFF, None),
        ({"failure_label": "EMPTY_OUTPUT"}, Measure.EMPTY, 1),
        ({"failure_label": "TRUNCATED"}, Measure.EMPTY, 0),
        ({"failure_label": "FORMAT_ERROR"}, Measure.FORMAT_ERROR, 1),
        ({}, Measure.FORMAT_ERROR, 0),
        ({"flags": "repetition_loop,identical_to_full"}, Measure.REPETITION, 1),
        ({}, Measure.IDENTICAL, 1),
        ({"flags": "", "first_divergence": 4}, Measure.IDENTICAL, 0),
        ({"flags": ""}, Measure.IDENTICAL, None),
        ({"flags": "", "first_divergence": 4}, Measure.DIVERGENCE, 4),
        ({}, Measure.DIVERGENCE, None),
        ({"completion_tokens": None}, Measure.TOKENS, None),
        ({}, Measure.TTFT, 0.25),
        ({}, Measure.TPOT, None),
        ({}, Measure.LATENCY, 1.5),
    ],
)
def test_what_an_answer_tells(row: dict[str, Any], measure: Measure, value: float | None) -> None:
    assert of(row, n=1)[measure] == [[value]]


def test_of_a_failed_request_nothing_is_known() -> None:
    failed = ROW | {"is_failure": True, "failure_label": "TIMEOUT", "flags": "", "finish_reason": None}
    assert {value for ((value,),) in of(failed | {"completion_tokens": None}, n=1).values()} == {None}


def test_a_run_without_any_outcome_has_no_traits() -> None:
    empty = trait_columns(pl.DataFrame([ROW], schema_overrides=TYPES).clear())
    assert all(np.isnan(values).all() and values.shape == (2, 1) for values in answer_traits(empty, 2).of.values())


def test_faults_of_tool_calls_are_told_of_tasks_of_calls_alone() -> None:
    rows = [{"entry": 0, "flags": "repetition_loop,call_name"}, {"entry": 1, "flags": ""}]
    frame = pl.DataFrame([ROW | row for row in rows], schema_overrides=TYPES)
    traits = answer_traits(trait_columns(frame, of_calls=True), 2).of
    assert [traits[fault].ravel().tolist() for fault in CALL_FAULTS] == [[0, 0], [0, 0], [1, 0], [0, 0]]
    assert not set(CALL_FAULTS) & set(answer_traits(trait_columns(frame), 2).of)

"""One answer scored alone scores as in a column of them."""

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.metrics.fast.overlap import normalised
from analyzer.metrics.single import scorer
from analyzer.scoring.score import Rules, score_frame
from kvt_async.contract.formulas.metric_needs import GIVEN_SCORE, NEEDS

WORDS = ["7", "3.5", "The", "cat", "B", "(b)", "Food", "x = 1", "<think>", "</think>", ".", "-", "é", "\n"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)
ROWS = st.lists(st.tuples(TEXTS, st.lists(TEXTS, max_size=2)), min_size=1, max_size=4)


@pytest.mark.parametrize("metric", [name for name, packages in NEEDS.items() if not packages and name != GIVEN_SCORE])
@settings(max_examples=25)  # of each metric
@given(rows=ROWS)
def test_a_score_is_the_same_alone_and_in_a_column(metric: Any, rows: Any) -> None:
    classes = ["Food", "cat", "3.5"]
    frame = pl.DataFrame(
        {
            "request_id": [str(n) for n in range(len(rows))],
            "text": [said for said, _ in rows],
            "golds": [golds for _, golds in rows],
            "needed_json": json.dumps({"all_classes": classes}),
            "read": None,
            "finish_reason": "stop",
            "prompt_tokens": 9,
            "token_len": 9,
            "identical": None,
            "first_divergence": None,
            "is_failure": False,
            "error_type": None,
            "reasoned": False,
            "called": False,
        },
        schema_overrides={
            "golds": pl.List(pl.String), "identical": pl.Int64, "error_type": pl.String, "needed_json": pl.Categorical,
            "read": pl.String,
        },
    ).with_columns(golds_norm=pl.col("golds").list.eval(normalised(pl.element())))  # fmt: skip
    scores = score_frame(frame, Rules(metric, server_counts=True)).sort("request_id")["score"]
    score = scorer(metric)
    expected = [score(said, golds, {"all_classes": classes}) for said, golds in rows]
    assert scores.to_list() == pytest.approx(expected, abs=1e-9)

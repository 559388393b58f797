"""MRCR and LongBench v2 score as their official scripts do; golden/ says how the figures were made."""

import json
import random
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.metrics.fast.task_metric import task_scores
from analyzer.metrics.matching_blocks import AUTOJUNK_LENGTH, SHORT, matching_characters, ratio
from analyzer.metrics.prefixed_ratio import begins_as_asked
from analyzer.metrics.stated_letter import answer_of
from tests.worlds import metric_of


def _golden(name: str) -> list[dict[str, Any]]:
    lines = (Path(__file__).parents[1] / f"golden/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


MRCR, LETTERS = _golden("mrcr"), _golden("longbench_v2")


def test_mrcr_scores_as_the_published_scorer() -> None:
    score = metric_of("mrcr").score
    for row in MRCR:
        meta = {"random_string_to_prepend": row["random_string_to_prepend"]}
        assert score(row["prediction"], (row["answer"],), meta) == pytest.approx(row["score"], abs=1e-12), row
        assert begins_as_asked(row["prediction"], meta) or row["score"] == 0
    assert {0.0, 1.0} < {row["score"] for row in MRCR}


def test_longbench_v2_reads_the_letter_that_the_official_script_reads() -> None:
    metric = metric_of("longbench_v2_letter")
    for row in LETTERS:
        assert answer_of(row["prediction"]) == row["letter"], row
        assert metric.score(row["prediction"], (row["answer"],), {}) == row["score"], row
        assert metric.format_ok is not None
        assert metric.format_ok(row["prediction"], {}) is (row["letter"] is not None)


def test_a_column_of_answers_is_scored_each_with_its_own_random_string() -> None:
    rows = MRCR[:60]
    needed = [json.dumps({"random_string_to_prepend": row["random_string_to_prepend"]}) for row in rows]
    frame = pl.DataFrame(
        {
            "said": [row["prediction"] for row in rows],
            "golds": [[row["answer"]] for row in rows],
            "needed_json": needed,
        }
    )
    assert task_scores(frame, "mrcr")["score"].to_list() == pytest.approx([row["score"] for row in rows], abs=1e-12)


def test_an_example_without_its_random_string_or_golds_scores_nothing() -> None:
    score = metric_of("mrcr").score
    assert score("abc", ("abc",), {}) == 0
    assert score("abc", (), {"random_string_to_prepend": "a"}) == 0


@st.composite
def alike(draw: st.DrawFn) -> tuple[str, str]:
    """Two texts with common blocks, of alphabets from one character to hundreds, around difflib's 200 characters."""
    rng, n_chars = draw(st.randoms(use_true_random=False)), draw(st.sampled_from([1, 2, 4, 30, 400]))
    letters = [chr(0x41 + code) for code in range(n_chars)]
    weights = [rng.random() ** 3 for _ in letters]
    a, b = (
        "".join(rng.choices(letters, weights, k=draw(st.sampled_from([0, 1, 7, 60, 150, 199, 200, 230, 500]))))
        for _ in range(2)
    )
    for _ in range(draw(st.integers(0, 4))):
        start, at = rng.randrange(len(b) + 1), rng.randrange(len(a) + 1)
        a = a[:at] + b[start : start + rng.randint(1, 80)] + a[at:]
    return a, b


@given(alike())
def test_the_ratio_is_difflibs(texts: tuple[str, str]) -> None:
    a, b = texts
    assert ratio(a, b) == SequenceMatcher(None, a, b).ratio()
    long = "\n" * SHORT + a  # the other search: of short texts there are two
    assert matching_characters(long, b) == sum(m.size for m in SequenceMatcher(None, long, b).get_matching_blocks())


@pytest.mark.parametrize(
    "kind", ["one sign for ever", "one sentence for ever", "thirty thousand tokens of prose", "hanzi"]
)
def test_a_very_long_answer_does_not_hold_up_the_scoring(kind: str) -> None:
    """difflib takes minutes to hours for some of these."""
    rng = random.Random(3)
    words = [f"{chr(65 + n % 26)}ord{n}" for n in range(300)]
    gold = " ".join(rng.choices(words, k=500)) + "!" * (AUTOJUNK_LENGTH // 10)
    answers = {
        "one sign for ever": "!" * 130_000,
        "one sentence for ever": " ".join(words[:9]) * 2500,
        "thirty thousand tokens of prose": " ".join(rng.choices(words, k=20_000)),
        "hanzi": "".join(chr(0x4E00 + rng.randrange(400)) for _ in range(60_000)),
    }
    if kind == "hanzi":
        gold = answers[kind][7:3000]
    assert 0 <= ratio(answers[kind], gold) < 1

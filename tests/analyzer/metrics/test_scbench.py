"""SCBench's scores against the official code's, on answers made for it (scripts/make_scbench_golden.py)."""

import json
from pathlib import Path
from typing import Any

import pytest

from analyzer.metrics.function_match import bleu, first_function
from analyzer.metrics.rouge_lsum import common_places
from analyzer.metrics.single import scorer

GOLDEN = Path(__file__).parents[1] / "golden/scbench.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("metric", sorted({row["metric"] for row in ROWS}))
def test_a_score_is_the_official_one(metric: str) -> None:
    rows = [row for row in ROWS if row["metric"] == metric]
    score = scorer(metric)
    wrong = [row for row in rows if abs(score(row["prediction"], row["golds"], row["meta"]) - row["score"]) > 1e-9]
    assert wrong == []
    assert len(rows) >= 20
    assert {row["score"] for row in rows} > {0.0}


def test_how_well_a_function_fits_is_the_official_figure() -> None:
    rows = [row for row in ROWS if row["metric"] == "scbench_repoqa"]
    assert len({row["meta"]["lang"] for row in rows}) == 6
    for row in rows:
        said = first_function(row["prediction"], row["meta"]["lang"])
        fit = max(bleu(said, code) for _, code in row["meta"]["needles"])
        assert fit == pytest.approx(row["fit"], abs=1e-12)


@pytest.mark.parametrize(
    ("mixed", "task", "alone"),
    [
        ("scbench_summary_with_needles", "scbench_passkey", "scbench_passkey"),
        ("scbench_summary_with_needles", "scbench_summary", "scbench_summary"),
        ("scbench_repoqa_and_kv", "scbench_kv", "scbench_kv"),
        ("scbench_repoqa_and_kv", "scbench_repoqa", "scbench_repoqa"),
    ],
)
def test_a_mixed_task_scores_each_turn_by_what_it_is(mixed: str, task: str, alone: str) -> None:
    for row in (row for row in ROWS if row["metric"] == alone):
        meta = {**row["meta"], "task": task}
        assert scorer(mixed)(row["prediction"], row["golds"], meta) == pytest.approx(row["score"], abs=1e-9)


def test_the_corrected_variants_want_the_gold_whole() -> None:
    assert scorer("scbench_many_shot")("(C)", ["(A)"], {}) == 1.0  # a bracket is enough
    assert scorer("scbench_many_shot_fixed")("(C)", ["(A)"], {}) == 0.0
    assert scorer("scbench_many_shot_fixed")("it is (a).", ["(A)"], {}) == 1.0
    assert scorer("scbench_qa_chn")("港口", ["港口出口"], {}) == pytest.approx(2 / 3)  # one character of two
    assert scorer("scbench_qa_chn_fixed")("港口", ["港口出口"], {}) == pytest.approx(2 / 3)  # two of four
    assert scorer("scbench_qa_chn_fixed")("港口出口。", ["港口出口"], {}) == 1.0


def test_absurdly_long_numbers_are_no_match_and_no_error() -> None:
    assert scorer("scbench_mf")("9" * 400, ["3"], {}) == 0.0
    assert scorer("scbench_mf")("9" * 5000, ["3"], {}) == 0.0


def test_common_places_are_those_of_the_package() -> None:
    def by_table(a: list[str], b: list[str]) -> list[int]:  # the package's own way, a cell at a time
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a, 1):
            for j, y in enumerate(b, 1):
                table[i][j] = table[i - 1][j - 1] + 1 if x == y else max(table[i - 1][j], table[i][j - 1])
        i, j, places = len(a), len(b), []
        while i and j:
            if a[i - 1] == b[j - 1]:
                i, j = i - 1, j - 1
                places.append(i)
            elif table[i][j - 1] > table[i - 1][j]:
                j -= 1
            else:
                i -= 1
        return places

    import random

    rng = random.Random(5)
    for _ in range(400):
        a, b = (rng.choices("abcd", k=rng.randint(0, 12)) for _ in range(2))
        assert common_places(a, b) == by_table(a, b)


def test_a_row_that_does_not_say_what_is_right_scores_nothing() -> None:
    for metric in ("scbench_repoqa", "scbench_repoqa_and_kv", "scbench_summary_with_needles"):
        assert scorer(metric)("gold", ["gold"], {}) == 0.0
    assert scorer("scbench_repoqa")("x", ["x"], {"needles": ["x", ["f", 1]], "func_name": "f", "lang": "perl"}) == 0.0

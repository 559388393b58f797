"""A small, seeded run of scripts/calibrate.py: the verdict's promises on simulated experiments with a known truth."""

from typing import Any

import calibrate
import numpy as np
import pytest
from calibrate_comparisons import false_differences
from calibrate_sentences import Cliff, said
from calibrate_suites import relative_cell, sampled, suite_cells
from simulated import MARGIN, Truth, allowed
from simulated_suites import SuiteTruth, Wrongs

EXPERIMENTS = 300
LOOKED = 100


@pytest.mark.parametrize("kind", ["binary", "graded"])
@pytest.mark.parametrize("n", [25, 80])
def test_a_true_loss_of_the_margin_is_hardly_ever_called_safe_nor_beyond_it(kind: str, n: int) -> None:
    truth = Truth(n, (MARGIN / 0.6,) * 2, kind, flips=0.1)
    for event in (lambda c: c.safe is not None, lambda c: c.broken is not None):
        assert calibrate.share(truth, EXPERIMENTS, 7, event) <= allowed(0.025, EXPERIMENTS)


@pytest.mark.parametrize("budgets", [1, 8])
def test_noise_alone_is_hardly_ever_called_a_loss(budgets: int) -> None:
    truth = Truth(25, (0.0,) * budgets, flips=0.3)
    found = calibrate.share(truth, EXPERIMENTS, 7, lambda c: c.loss is not None)
    assert found <= allowed(0.025, EXPERIMENTS)


def test_looking_again_with_more_examples_keeps_the_promise_over_all_looks() -> None:
    """Three looks, examples added where the zone was open; were each look to spend all of alpha, more would lie."""
    there = Truth(25, (MARGIN / 0.6,) * 2, flips=0.3)
    found = calibrate._any_look(there, LOOKED, 7)
    assert max(map(len, found)) == 3
    for event in (lambda c: c.safe is not None, lambda c: c.broken is not None):
        assert calibrate._rate_any(found, event) <= allowed(0.025, LOOKED)


@pytest.mark.parametrize(
    ("n", "loss"),
    [(25, (0.0, 0.0, 0.0, 0.0, 0.1, 0.4, 0.8)), (50, tuple(0.5 * (i + 1) / 7 for i in range(7)))],
    ids=["a cliff with 25 examples", "an even decline with 50 examples"],
)
def test_a_real_loss_is_found(n: int, loss: Any) -> None:
    found = calibrate.share(Truth(n, loss, flips=0.1), EXPERIMENTS, 7, lambda c: c.loss is not None)
    assert found >= 0.93


def test_the_cells_of_every_table_name_their_bar() -> None:
    rows = list(calibrate.coverage(60, 7, [5]))
    assert len(rows) == 40
    assert all(0 <= rate <= 1 and verdict for _, _, rate, verdict in rows)


@pytest.mark.parametrize("table", ["straddling", "unequal", "heavy", "failures", "pending", "floor"])
def test_what_enters_the_tests_keeps_every_cell_within_its_bar(table: str) -> None:
    """Contexts across bins, bins of unequal size, heavy contexts, failures at full cache, pending requests."""
    rows = list(calibrate.TABLES[table](120, 7, []))
    assert rows
    assert [row for row in rows if row[3] not in ("ok", "")] == []


@pytest.mark.parametrize("table", ["within_noise", "gains", "forecast", "planned"])
def test_what_is_said_beside_a_verdict_keeps_every_cell_within_its_bar(table: str) -> None:
    rows = list(calibrate.TABLES[table](80, 7, []))
    assert rows
    assert [row for row in rows if row[3] != "ok"] == []


@pytest.mark.parametrize(
    ("at", "power", "budgets", "n", "right"),
    [
        (400, 1, (0.5, 0.1), 50, "tokens"),  # half of what the lowest budget loses lies at one ratio, in every bin
        (20_000, 1, (0.75, 0.5, 0.25), 50, "unclear"),  # every bin is broken at the first budget below full cache
        (0.25, 0, (0.75, 0.5, 0.25), 50, "fraction"),
        (12, 0.5, (0.8, 0.5, 0.3, 0.2, 0.1, 0.05), 100, "unclear"),  # neither
    ],
)
def test_ratio_or_tokens_are_named_where_they_decide(
    at: float, power: float, budgets: tuple[float, ...], n: int, right: str
) -> None:
    truth = Cliff(at, power, (n,) * 5, budgets=budgets)
    found = [said(truth, np.random.default_rng(seed)) for seed in range(12)]
    assert {*found} <= {right, "unclear"}
    assert found.count(right) >= 9


SUITES = [
    "2 x 40, flips 0.05, all lose the margin",
    "5 of 20-200, flips 0, one loses the guard",
    "13 x 40, flips 0, one loses the margin",
    "13 x 40, one loses 0.65, the mean the margin",
    "5 x 80, contexts shared, all lose the margin",
    "5 x 307, bins 2-200, in the last one",
    "5 x 40 of 4 answers, all lose the margin",
]


@pytest.mark.parametrize("name", SUITES)
def test_a_verdict_over_several_tasks_is_hardly_ever_false(name: str) -> None:
    truth = suite_cells()[name]
    verdicts = [Wrongs(truth).of(one) for one in truth.many(np.random.default_rng(7), 60)]
    for claim in verdicts[0]:
        assert sum(wrong.get(claim, False) for wrong in verdicts) / 60 <= allowed(0.025, 60), claim


@pytest.mark.parametrize("base", [0.05, 0.6, 0.95])
def test_a_relative_margin_that_is_lost_is_hardly_ever_called_safe_nor_beyond_it(base: float) -> None:
    rows = list(relative_cell(SuiteTruth((100,), ((0.1 * base,),), base=base, flips=0.1), "", 150, 7))
    assert [row for row in rows if row[3] != "ok"] == []


@pytest.mark.parametrize("k", [1, 8])
@pytest.mark.parametrize(("n", "questions"), [(40, 1), (100, 10)])
def test_more_answers_an_example_are_no_more_evidence_than_its_contexts(k: int, n: int, questions: int) -> None:
    rows = list(sampled(SuiteTruth((n,), ((MARGIN,), (0.0,)), flips=0.3, questions=questions, k=k), "", 150, 7))
    assert [row for row in rows if row[3] != "ok"] == []


def test_a_difference_between_series_of_one_truth_is_hardly_ever_claimed() -> None:
    rows = list(false_differences(60, 7, [40]))
    assert [row for row in rows if row[3] != "ok"] == []

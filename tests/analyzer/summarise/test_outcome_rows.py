"""What changes beside scores, through the whole analysis: truths that were planted in replies come out as rows."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

import pytest

from analyzer.report.caveats import caveats
from analyzer.results.results import read_results
from analyzer.results.seed_words import seeds_sentence
from analyzer.scoring.score import score
from analyzer.summarise.analyze import analyze
from kvt_async.contract.settings import Settings
from tests.analyzer.conftest import Experiment

N = 80


def analysed(experiment: Experiment, **asked: Any) -> tuple[sqlite3.Connection, Settings]:
    conn, settings = experiment(**{"n_bins": 2, "n_per_bin": N // 2, "budgets": (1.0, 0.5), "resamples": 100} | asked)
    score(conn, "synthetic")
    analyze(conn, settings)
    return conn, settings


def rows_of(experiment: Experiment, **asked: Any) -> dict[tuple[float, int, str], Any]:
    """Rows of outcome_changes as results read them, by budget, repeat and measure."""
    conn, _ = analysed(experiment, **asked)
    return {(c.kv_budget, c.repeat_idx, c.measure): c for c in read_results(conn, "synthetic").changes}


def planted(series: str, budget: float, repeat: int, seq: int) -> Mapping[str, Any]:
    """At 0.5 answers are half as long again, every fifth ends at its length, every fourth parts after ten characters;
    full cache parts from itself in one answer of forty, after twenty."""
    text = f"the code of the box is {seq}"
    tokens, finish = 10 + seq % 7, "stop"
    if budget < 1:
        tokens, finish = tokens * 3 // 2, "length" if seq % 5 == 0 else "stop"
        text = f"the code o, well, {seq}" if seq % 4 == 0 else text
    elif repeat and seq % 40 == 0:
        text = f"the code of the box it {seq}"
    return {"text": text, "tokens": tokens, "finish_reason": finish}


def test_planted_changes_come_out_with_their_intervals(experiment: Experiment) -> None:
    rows = rows_of(experiment, reply=planted)
    tokens, cut, same = (rows[0.5, 0, m] for m in ("completion_tokens", "cut_off", "identical"))
    assert tokens.change == pytest.approx(tokens.value / tokens.full_value)
    assert tokens.change_ci_low < tokens.change < tokens.change_ci_high < 1.6
    assert tokens.p_holm < 1e-6
    assert (cut.full_value, cut.value, cut.change, cut.n) == pytest.approx((0, 0.2, 0.2, N))
    assert 0.1 < cut.change_ci_low < 0.2 < cut.change_ci_high < 0.4
    assert (same.full_value, same.value) == pytest.approx((1 - 1 / 40, 0.75))
    parts = rows[0.5, 0, "first_divergence"]
    assert (parts.n, parts.full_value, parts.value) == (N // 4, 21.0, 10.0)
    assert (parts.change_ci_low, parts.change_ci_high) == (10.0, 10.0)
    again = rows[1.0, 1, "identical"]
    assert (again.value, again.full_value, again.p_holm) == (pytest.approx(1 - 1 / 40), None, None)


def test_nothing_is_tested_where_nothing_changes(experiment: Experiment) -> None:
    rows = rows_of(experiment, p_correct=1.0)
    assert {row.p_holm for (budget, _, measure), row in rows.items() if measure != "completion_tokens"} == {None}
    assert rows[0.5, 0, "completion_tokens"].p_holm == 1.0
    assert (0.5, 0, "first_divergence") not in rows


def test_texts_have_nothing_beside_them_without_a_repeat_of_full_cache(experiment: Experiment) -> None:
    rows = rows_of(experiment, reply=planted, control_repeats=0)
    assert rows[0.5, 0, "identical"].full_value is None
    assert rows[0.5, 0, "first_divergence"].full_value is None


DRAWN = {"temperature": 0.8, "seed": 1337}


@pytest.mark.parametrize(("keeps", "shown"), [(True, 1.0), (False, None)])
def test_where_answers_are_drawn_texts_stand_beside_the_repeat_with_the_same_seeds_if_seeds_are_kept(
    experiment: Experiment, keeps: bool, shown: float | None
) -> None:
    """The second repeat has other seeds. A server that ignores seeds gives another text each time."""

    def drawn(series: str, budget: float, repeat: int, seq: int) -> Mapping[str, Any]:
        draw = (2 if repeat == 2 else 0) if keeps else repeat + 10 * budget
        return {"text": f"{draw} is what box {seq} has"}

    conn, _ = analysed(experiment, reply=drawn, control_repeats=2, decoding=DRAWN)
    results = read_results(conn, "synthetic")
    same = next(c for c in results.changes if c.kv_budget < 1 and c.measure == "identical")
    assert same.full_value == shown
    (line,) = caveats(results) or [""]
    assert line.startswith("" if keeps else "The server ignores seeds (of 80 examples, 100% of the answers differ")
    assert seeds_sentence(results) == line


@pytest.mark.parametrize(
    ("decoding", "lines"),
    [
        (DRAWN, ["The server drew nothing: answers with other seeds are the same as full cache's (80 examples)."]),
        ({"temperature": 0, "seed": 1337}, []),
    ],
)
def test_a_server_that_draws_nothing_is_said_where_it_was_asked_to_draw(
    experiment: Experiment, decoding: Mapping[str, Any], lines: list[str]
) -> None:
    conn, _ = analysed(experiment, p_correct=1.0, control_repeats=2, decoding=decoding)
    assert caveats(read_results(conn, "synthetic")) == lines


def test_a_failed_request_is_no_answer(experiment: Experiment) -> None:
    rows = rows_of(experiment, failures=lambda series, budget, b: 0.3 if budget < 1 else 0.0)
    n = {rows[0.5, 0, m].n for m in ("completion_tokens", "cut_off", "empty", "identical")}
    assert len(n) == 1
    assert 40 < n.pop() < 70


def test_a_drop_of_answers_that_are_cut_off_is_put_on_that(experiment: Experiment) -> None:
    def cut(series: str, budget: float, repeat: int, seq: int) -> Mapping[str, Any]:
        return {"text": "It seems that the", "finish_reason": "length"} if budget < 1 and seq % 2 else {}

    conn, settings = experiment(
        n_bins=1, n_per_bin=40, budgets=(1.0, 0.5), p_correct=lambda s, b, i: 0.6, resamples=100, reply=cut
    )
    score(conn, "synthetic")
    analyze(conn, settings)
    drop: Any = next(d for d in read_results(conn, "synthetic").drops if d.kv_budget < 1 and d.bin_idx == -1)
    assert drop.drop_failures + drop.drop_cut_off + drop.drop_wrong == pytest.approx(drop.drop_mean, abs=1e-9)
    assert drop.drop_cut_off == pytest.approx(drop.drop_mean, abs=0.1)
    assert drop.drop_cut_off > 0.2
    assert "TRUNCATED" not in json.loads(drop.drop_json)

"""Several answers to an example: it stays the unit, its answers make one score, and what is counted is said."""

import json
import sqlite3
from typing import Any

import numpy as np
import pytest

from analyzer.read.declared_plan import sentences
from analyzer.read.runs import runs
from analyzer.results.results import Results, read_results
from analyzer.scoring.given_answers import given_answers
from analyzer.scoring.score import score
from analyzer.stats.repeated_answers import Aggregate
from analyzer.summarise.analyze import analyze
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from tests.analyzer.conftest import Experiment

SERIES = "snapkv/aware"
WORLD: dict[str, Any] = {
    "n_bins": 2,
    "n_per_bin": 30,
    "resamples": 100,
    "p_correct": {1.0: 0.8, 0.5: 0.75, 0.2: 0.3},
    "drawn": 0.4,
    "flips": 0.05,
    "temperature": 0.7,
}


def analysed(experiment: Experiment, *overrides: str, **asked: Any) -> tuple[Results, sqlite3.Connection]:
    samples = asked.get("samples", 1)
    given = [f"decoding.samples={samples}", *overrides]
    conn, settings = experiment(overrides=tuple(given), **(WORLD | asked))
    score(conn, "synthetic")
    analyze(conn, settings)
    return read_results(conn, "synthetic"), conn


def scores_of(conn: sqlite3.Connection, run_id: str, samples: int) -> np.ndarray:
    """Score of each answer, [examples, samples], in the manifest's order."""
    rows = conn.execute(
        "SELECT s.score FROM requests r JOIN scores s USING (request_id) JOIN manifest_entries e USING (example_id) "
        "WHERE r.run_id = ? ORDER BY e.seq, r.sample_idx",
        (run_id,),
    )
    return np.array([row[0] for row in rows]).reshape(-1, samples)


def test_examples_are_the_pairs_and_answers_are_the_requests(experiment: Experiment) -> None:
    results, conn = analysed(experiment, samples=4, failures=0.05)
    for run in results.runs:
        stat, drop = results.stat(run), results.drop(run)
        assert stat is not None
        assert (stat.n, stat.n_clusters) == (240, 60)
        assert stat.acc_mean == pytest.approx(scores_of(conn, run.run_id, 4).mean(axis=1).mean())
        if drop is not None:
            assert (drop.n, drop.n_clusters) == (60, 60)
            assert drop.drop_failures is not None
            assert drop.drop_answers is not None
            assert drop.drop_failures + drop.drop_answers == pytest.approx(drop.drop_mean)


def test_more_answers_narrow_the_interval_and_prove_nothing_by_their_number(experiment: Experiment) -> None:
    one, _ = analysed(experiment)
    many, _ = analysed(experiment, samples=8)
    widths = []
    for results in (one, many):
        (_, drop), _ = results.paired(SERIES)
        assert drop.drop_ci_low is not None
        assert drop.drop_ci_high is not None
        widths.append(drop.drop_ci_high - drop.drop_ci_low)
        verdict = results.verdict(SERIES)
        assert verdict is not None
        assert verdict.safe_budget == 1.0  # 60 contexts can't prove 0.05, however many answers each has
    assert widths[1] < widths[0]


def test_fewer_answers_than_stored_are_the_first_ones_and_it_is_said(experiment: Experiment) -> None:
    whole, _ = analysed(experiment, samples=2)
    first, _ = analysed(experiment, "decoding.samples=2", samples=4)
    assert (first.samples, first.n_samples, first.pending) == (2, 4, 0)
    assert [(d.kv_budget, d.n, d.drop_mean, d.p_safe) for d in first.drops] == [
        (d.kv_budget, d.n, d.drop_mean, d.p_safe) for d in whole.drops
    ]
    assert [s.n for s in first.stats.values()] == [s.n for s in whole.stats.values()]
    assert "answers: the first 2 of the 4 answers to each example count" in first.verdicts[0].notes
    assert not [note for note in whole.verdicts[0].notes if note.startswith("answers")]
    assert "planned" not in whole.verdicts[0].asked


def test_another_number_of_answers_than_the_first_session_asked_for_is_named(experiment: Experiment) -> None:
    results, _ = analysed(experiment, "decoding.samples=2", samples=4)
    (verdict,) = [v for v in results.verdicts if v.bin_idx == -1]
    told = sentences(verdict.asked, verdict.series)
    assert told == "Scoring each example by 2 answers was chosen after the data; the plan said 4 answers."


def test_a_suite_names_another_number_of_answers_too(experiment: Experiment) -> None:
    tasks = ({"task": "a"}, {"task": "b"})
    asked: dict[str, Any] = WORLD | {"samples": 3, "tasks": tasks}
    for counted, told in (
        (3, ""),
        (1, "Scoring each example by 1 answer was chosen after the data; the plan said 3 answers."),
    ):
        conn, settings = experiment(overrides=(f"decoding.samples={counted}",), **asked)
        score(conn, "synthetic")
        analyze(conn, settings)
        (method,) = conn.execute("SELECT method FROM suite_summary").fetchone()
        assert sentences(json.loads(method), SERIES) == told


def test_more_answers_than_were_sent_are_pending(experiment: Experiment) -> None:
    with pytest.raises(MissingPrerequisiteError, match="480 requests are still pending"):
        analysed(experiment, "decoding.samples=4", samples=2)


@pytest.mark.parametrize("aggregate", ["pass@2", "pass@4", "majority@3"])
def test_another_aggregate_makes_the_examples_score(experiment: Experiment, aggregate: str) -> None:
    results, conn = analysed(experiment, f"analysis.aggregate={aggregate}", samples=4)
    for run in results.runs:
        stat, drop = results.stat(run), results.drop(run)
        texts = conn.execute(
            "SELECT s.pred_norm FROM requests r JOIN scores s USING (request_id) JOIN manifest_entries e "
            "USING (example_id) WHERE r.run_id = ? ORDER BY e.seq, r.sample_idx",
            (run.run_id,),
        ).fetchall()
        codes = np.unique([text for (text,) in texts], return_inverse=True)[1].reshape(-1, 4)
        expected = Aggregate.of(aggregate).scores(scores_of(conn, run.run_id, 4), codes)
        assert stat is not None
        assert stat.acc_mean == pytest.approx(expected.mean())
        if drop is not None:
            assert drop.drop_failures is None  # a drop of the best of several is no sum over answers


def test_an_aggregate_of_more_answers_than_count_is_refused(experiment: Experiment) -> None:
    conn, settings = experiment(overrides=("decoding.samples=4",), **WORLD, samples=4)
    score(conn, "synthetic")
    asked = settings.analysis.model_copy(update={"aggregate": "pass@8"})  # a config that says so is not valid
    with pytest.raises(ConfigError, match="pass@8 needs 8 answers to each example, and 4 of single_needle count"):
        analyze(conn, settings.model_copy(update={"analysis": asked}))


def test_an_answer_is_compared_with_full_caches_answer_of_the_same_number(experiment: Experiment) -> None:
    """Right answers are equal texts, and with the same draw right at every level; wrong ones differ. Were answers
    compared at random, a quarter would be equal."""
    results, _ = analysed(experiment, samples=3, drawn=1.0, flips=0.0, p_correct=0.5)
    for budget, _ in results.paired(SERIES):
        run = next(run for run in results.levels(SERIES) if run.kv_budget == budget)
        stat = results.stat(run)
        assert stat is not None
        assert stat.identical_to_full == pytest.approx(stat.acc_mean, abs=0.05)
        assert (stat.identical_to_full or 0.0) > 0.4


@pytest.mark.parametrize("keeps", [True, False], ids=["keeps to its seeds", "ignores seeds"])
def test_beside_drops_stands_the_repeat_with_other_seeds_and_a_server_that_ignores_seeds_is_named(
    experiment: Experiment, keeps: bool
) -> None:
    """Repeat 1 has the same seeds and repeat 2 others. Where seeds are kept nothing but the draw differs."""
    asked = {"drawn": 0.6, "flips": 0.0} if keeps else {"drawn": 0.0, "flips": 1.0}
    results, _ = analysed(experiment, samples=4, control_repeats=2, n_per_bin=60, **asked)
    verdict = results.verdict(SERIES)
    assert verdict is not None
    control = verdict.detail["noise"]
    other = next(drop for drop in results.control_drops() if drop.repeat_idx == 2)
    assert (control["repeats"], control["flips"]) == (1, (other.n_worse or 0) + (other.n_better or 0))
    assert control["flips"] > 0
    assert (verdict.detail["seeds"]["verdict"] == "kept") == keeps
    shown = {change.measure for change in results.changes if change.repeat_idx == 0 and change.change is not None}
    assert ("identical" in shown) == keeps


def test_the_majority_is_of_what_answers_state_where_the_metric_reads_that(experiment: Experiment) -> None:
    """Long answers are hardly equal as a whole: of three, two state the same number in other words."""
    conn, _ = experiment(**WORLD | {"n_bins": 1, "n_per_bin": 4}, samples=4, metric="gsm8k_number")
    conn.execute("DROP TRIGGER responses_no_update")
    texts = ["<think>Is it 9?</think>It is 7.", "3 + 4 is $7.00, or 7", "It is 8.", "none"]
    for sample_idx, text in enumerate(texts):
        conn.execute(
            "UPDATE responses SET text = ? WHERE request_id IN (SELECT request_id FROM requests WHERE sample_idx = ?)",
            (text, sample_idx),
        )
    score(conn, "synthetic")
    run = next(run for run in runs(conn, "synthetic", 1) if run.is_baseline)
    given = given_answers(conn, run, 4).sort("example_id", "sample_idx")["answer"].to_list()
    assert len(given) == 16
    assert given[:4] * 4 == given
    assert given[0] == given[1]
    assert len(set(given)) == 3

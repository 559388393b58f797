"""The smaller verbs on experiments with a known truth: check, compare, export, plan."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from analyzer.results.results import read_results
from analyzer.scoring.score import score
from analyzer.stages import plan_stage
from analyzer.stats.chances import Chances
from analyzer.stats.paired_tests import Units
from analyzer.stats.sample_layout import Layout
from analyzer.summarise.analyze import analyze
from analyzer.verbs.check import GAIN, check, check_suite
from analyzer.verbs.compare import compare
from analyzer.verbs.export import export
from analyzer.verbs.power import Flips, PlanAnswer, plan
from kvt_async.contract.check_settings import Assertion
from kvt_async.contract.errors import (
    ConfigError,
    ContractMismatchError,
    MissingPrerequisiteError,
)
from kvt_async.contract.load import load_settings
from kvt_async.contract.settings import Settings
from tests.analyzer.conftest import Experiment
from tests.analyzer.suite_cases import suite_of


def checked(experiment: Experiment, assertions: Sequence[dict[str, Any]], **asked: Any) -> Any:
    conn, settings = experiment(**asked)
    score(conn, "synthetic")
    analyze(conn, settings)
    return check(
        read_results(conn, "synthetic"), settings.model_copy(update={"check": [Assertion(**a) for a in assertions]})
    )


ALL: list[dict[str, Any]] = [
    {"name": "not above full", "kind": "not_better_than_full", "budget": 0.2},
    {"name": "short contexts answer", "kind": "no_failures", "bins": [0]},
    {"name": "full cache answers", "kind": "min_accuracy", "budget": 1.0, "value": 0.8},
    {"name": "few failures", "kind": "max_fail_rate", "value": 0.1},
    {"name": "gains", "kind": "flag_gains"},
]


def test_a_sound_experiment_passes_every_assertion(experiment: Experiment) -> None:
    results = checked(experiment, ALL, n_per_bin=20)
    assert [r.passed for r in results] == [True] * 5


def test_a_real_gain_from_a_smaller_cache_is_flagged_as_mismatch_or_leakage(experiment: Experiment) -> None:
    results = checked(experiment, ALL, n_per_bin=20, p_correct={1.0: 0.3, 0.5: 0.3, 0.2: 0.9})
    failed = [r for r in results if not r.passed]
    assert {r.kind for r in failed} == {"not_better_than_full", "min_accuracy", "flag_gains"}
    assert all(GAIN in r.finding for r in failed if r.kind != "min_accuracy")


def test_a_gain_within_noise_is_not_flagged(experiment: Experiment) -> None:
    results = checked(experiment, ALL[:1], n_per_bin=4, p_correct={1.0: 0.6, 0.5: 0.6, 0.2: 0.7})
    assert results[0].passed


def test_gains_are_adjusted_for_all_budgets_and_bins_that_an_assertion_looks_at(experiment: Experiment) -> None:
    """Answers drawn anew, nothing else: one interval of 25 lies below zero, as one of 40 does by chance."""
    asked = {"n_per_bin": 40, "p_correct": 0.6, "flips": 0.4, "seed": 8, "budgets": (1.0, 0.8, 0.6, 0.5, 0.4, 0.2)}
    conn, settings = experiment(**asked)
    score(conn, "synthetic")
    analyze(conn, settings)
    assert conn.execute("SELECT count(*) FROM budget_stats WHERE drop_ci_high < 0 AND repeat_idx = 0").fetchone()[0]
    (found,) = check(read_results(conn, "synthetic"), settings.model_copy(update={"check": [Assertion(**ALL[4])]}))
    assert found.passed


def test_failures_are_found_where_they_are(experiment: Experiment) -> None:
    results = checked(experiment, ALL[1:4], failures=lambda series, budget, b: 0.5 if b == 0 else 0.0)
    assert [r.passed for r in results] == [False, True, False]
    assert "TIMEOUT" in results[0].finding or "ENGINE_ERROR" in results[0].finding


BASELINE = {"name": "as published", "kind": "baseline", "value": 0.9, "high": 1.0}


def test_full_cache_within_the_expected_range_passes_the_baseline_gate(experiment: Experiment) -> None:
    (result,) = checked(experiment, [BASELINE], n_per_bin=20, p_correct={1.0: 0.95, 0.5: 0.2, 0.2: 0.1})
    assert result.passed
    assert "full cache 0.9" in result.finding


@pytest.mark.parametrize(("accuracy", "low", "high"), [(0.3, 0.9, 1.0), (1.0, 0.2, 0.6)])
def test_full_cache_beyond_the_expected_range_points_at_the_prompt(
    experiment: Experiment, accuracy: float, low: float, high: float
) -> None:
    gate = BASELINE | {"value": low, "high": high}
    (result,) = checked(experiment, [gate], n_per_bin=20, p_correct=accuracy)
    assert not result.passed
    assert f"expected {low:g} to {high:g}" in result.finding
    assert "kvt show" in result.finding


def test_a_range_that_the_interval_still_reaches_is_no_evidence_against_the_prompt(experiment: Experiment) -> None:
    gate = BASELINE | {"value": 0.6, "high": 0.9}
    (result,) = checked(experiment, [gate], n_per_bin=3, p_correct={1.0: 0.6, 0.5: 0.6, 0.2: 0.6})
    assert result.passed


def test_an_assertion_about_a_task_that_the_group_lacks_is_no_pass(tmp_path: Path) -> None:
    """A misspelt task would else switch a gate off; published figures of other tasks may stand in the list."""
    suite = suite_of(tmp_path)
    asked = [{"name": "answers", "kind": "min_accuracy", "value": 0.1, "task": "multykey"}]
    with pytest.raises(ConfigError, match="is about multykey, which this group does not have") as refused:
        check_suite(suite, Settings(check=[Assertion(**a) for a in asked]))
    assert "multikey" in str(refused.value.do)
    (published,) = check_suite(suite, Settings(check=[Assertion(**BASELINE | {"task": "hotpotqa"})]))
    assert published.passed
    assert "not checked" in published.finding


@pytest.mark.parametrize(
    ("key", "other", "own"), [("model", "llama", "reference"), ("task", "hotpotqa", "single_needle")]
)
def test_a_baseline_of_another_model_or_task_says_that_it_was_not_checked(
    experiment: Experiment, key: str, other: str, own: str
) -> None:
    (result,) = checked(experiment, [BASELINE | {key: other}], n_per_bin=4, p_correct=0.0)
    assert result.passed
    assert f"not checked: it is about {other}, this is {own}" in result.finding
    (result,) = checked(experiment, [BASELINE | {key: own}], n_per_bin=4, p_correct=0.0)
    assert not result.passed


@pytest.mark.parametrize(
    "wrong",
    [
        {"high": None},
        {"value": None},
        {"value": 0.9, "high": 0.2},
        {"high": 1.5},
        {"budget": 0.5},
        {"series": "random"},
    ],
)
def test_a_baseline_without_a_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="baseline"):
        Assertion(**(BASELINE | wrong))


def test_an_assertion_about_nothing_that_was_run_is_a_config_error(experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match="nothing that was run"):
        checked(experiment, [ALL[0] | {"budget": 0.33}], n_per_bin=2)
    with pytest.raises(ConfigError, match="needs a value"):
        checked(experiment, [{"name": "x", "kind": "min_accuracy"}], n_per_bin=2)


@pytest.mark.parametrize(
    ("allowed", "asked", "expected"),
    [
        (0.1, {}, "missed"),  # 0.2 loses 0.5 of 0.9
        (0.1, {"budget": 0.5}, "kept"),
        (0.45, {"budget": 0.2}, "cannot tell"),
        (0.9, {}, "kept"),
    ],
)
def test_a_drop_fails_a_build_only_where_it_is_proven(
    experiment: Experiment, allowed: float, asked: dict[str, Any], expected: str
) -> None:
    gate = {"name": "loss", "kind": "max_drop", "value": allowed, **asked}
    (result,) = checked(experiment, [gate], n_per_bin=20, p_correct={1.0: 0.9, 0.5: 0.9, 0.2: 0.4})
    verdict = "cannot tell" if result.is_open else "kept" if result.passed else "missed"
    assert verdict == expected, result.finding
    assert f"allowed {allowed:g}" in result.finding


def test_a_series_is_tested_from_its_smallest_budget_up_and_not_beyond_the_first_without_proof(
    experiment: Experiment,
) -> None:
    """A drop at the middle alone is what several tests find by chance."""
    gate = {"name": "loss", "kind": "max_drop", "value": 0.1}
    (result,) = checked(experiment, [gate], n_per_bin=20, p_correct={1.0: 0.9, 0.5: 0.4, 0.2: 0.9})
    assert result.is_open
    assert "at 0.5 drops" in result.finding


def test_check_before_analyze_says_what_to_run(experiment: Experiment) -> None:
    conn, settings = experiment(n_per_bin=2)
    with pytest.raises(MissingPrerequisiteError) as caught:
        check(read_results(conn, "synthetic"), settings)
    assert "kvt analyze" in caught.value.do


def two_groups(experiment: Experiment, **b: Any) -> list[sqlite3.Connection]:
    opened = []
    for asked in ({}, b):
        conn, _ = experiment(**({"n_per_bin": 20} | asked))
        score(conn, "synthetic")
        opened.append(conn)
    return opened


def test_a_group_against_itself_differs_nowhere(experiment: Experiment) -> None:
    found = compare(*two_groups(experiment))
    assert found.differs == {}
    assert [row.diff for row in found.levels] == [0.0] * 3
    assert found.levels[0].n == 100


def test_a_better_group_is_found_better_level_by_level(experiment: Experiment) -> None:
    found = compare(*two_groups(experiment, p_correct=0.2))
    at = {row.kv_budget: row for row in found.levels}
    assert at[1.0].diff_ci_low is not None
    assert at[1.0].diff_ci_low > 0.5
    assert at[1.0].p_holm < 1e-6
    assert any("A - B +0." in line for line in found.lines)


def test_levels_of_one_side_only_are_listed(experiment: Experiment) -> None:
    found = compare(*two_groups(experiment, budgets=(1.0, 0.5, 0.1)))
    assert [row.kv_budget for row in found.levels] == [1.0, 0.5]
    assert found.only_in["synthetic"] == ["snapkv/aware 0.1"]


def test_only_groups_that_differ_in_nothing_stored_are_said_to_differ_in_server_or_day(experiment: Experiment) -> None:
    assert any("the server or the day" in line for line in compare(*two_groups(experiment)).lines)
    found = compare(*two_groups(experiment, budgets=(1.0, 0.5, 0.1)))
    assert not any("the server or the day" in line for line in found.lines)


def test_another_number_of_answers_is_what_is_compared(experiment: Experiment) -> None:
    found = compare(*two_groups(experiment, samples=3))
    assert found.differs == {"decoding.samples": [1, 3]}
    assert found.differences == ["compared: decoding.samples: 1 in A, 3 in B"]


def test_what_differs_otherwise_from_task_to_task_is_said_of_each(experiment: Experiment) -> None:
    tasks = ({"task": "qa"}, {"task": "niah"}, {"task": "vt"})
    more = [task | {"samples": samples} for task, samples in zip(tasks, (3, 3, 5), strict=True)]
    found = compare(*(two_groups(experiment, n_per_bin=4, tasks=named)[1] for named in (tasks, more)))
    assert {key: values for key, values in found.differs.items() if "samples" in key} == {
        "decoding.samples": [1, 3],
        "vt: decoding.samples": [1, 5],
    }


def test_series_of_one_group_alone_are_what_is_compared(experiment: Experiment) -> None:
    a, b = (two_groups(experiment, series=names)[1] for names in (("snapkv", "random"), ("streaming_llm", "random")))
    found = compare(a, b)
    assert found.series_only == (["snapkv"], ["streaming_llm"])
    assert found.differences == ["compared: series only in A: snapkv", "compared: series only in B: streaming_llm"]


def test_groups_whose_scores_mean_different_things_are_refused(experiment: Experiment) -> None:
    a, b = two_groups(experiment)
    b.execute("UPDATE scores SET scorer_version = 'other'")
    with pytest.raises(ContractMismatchError, match="can't be compared") as caught:
        compare(a, b)
    assert any("scorer" in line for line in caught.value.details)


READ: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".csv": pl.read_csv,
    ".jsonl": pl.read_ndjson,
}


@pytest.mark.parametrize("suffix", READ)
def test_export_writes_one_row_per_outcome(experiment: Experiment, tmp_path: Path, suffix: str) -> None:
    conn, settings = experiment(n_per_bin=6, failures=0.2, partial=0.1)
    score(conn, "synthetic")
    out = tmp_path / "deep" / f"outcomes{suffix}"
    rows = export(conn, settings, out).rows
    frame = READ[suffix](out)
    assert frame.height == rows == conn.execute("SELECT count(*) FROM scores").fetchone()[0]
    failed = frame.filter(pl.col("is_failure"))
    assert failed["error_type"].null_count() == 0
    assert failed.height == conn.execute("SELECT count(*) FROM failures").fetchone()[0]
    assert list(out.parent.iterdir()) == [out]


def test_export_says_how_many_tokens_were_kept_as_the_report_does(experiment: Experiment, tmp_path: Path) -> None:
    conn, settings = experiment(n_per_bin=6)
    score(conn, "synthetic")
    analyze(conn, settings)
    export(conn, settings, tmp_path / "all.parquet")
    medians = dict(
        pl.read_parquet(tmp_path / "all.parquet").group_by("run_id").agg(pl.col("kept_tokens").median()).iter_rows()
    )
    stored = conn.execute("SELECT run_id, kept_tokens_p50 FROM bin_stats WHERE bin_idx = -1").fetchall()
    assert all(row["kept_tokens_p50"] == pytest.approx(medians[row["run_id"]]) for row in stored)
    assert stored


def test_export_says_what_was_asked_and_what_was_right(experiment: Experiment, tmp_path: Path) -> None:
    conn, settings = experiment(n_per_bin=3)
    score(conn, "synthetic")
    stored = {row["example_id"]: row for row in conn.execute("SELECT * FROM examples").fetchall()}
    for name in ("all.parquet", "all.jsonl", "all.csv"):
        export(conn, settings, tmp_path / name, with_context=True)
        for row in READ[Path(name).suffix](tmp_path / name).iter_rows(named=True):
            of = stored[row["example_id"]]
            golds = json.loads(row["golds"]) if name == "all.csv" else row["golds"]
            assert golds == json.loads(of["answers_json"])
            assert [row[key] for key in ("question", "context", "context_sha256")] == [
                of[key] for key in ("question", "context", "context_sha256")
            ]
    export(conn, settings, tmp_path / "short.jsonl")
    assert "context" not in pl.read_ndjson(tmp_path / "short.jsonl").columns


def test_export_refuses_other_file_types(experiment: Experiment, tmp_path: Path) -> None:
    conn, settings = experiment(n_bins=1, n_per_bin=1)
    with pytest.raises(ConfigError, match="neither"):
        export(conn, settings, tmp_path / "x.xlsx")


def test_plan_knows_the_sizes_that_theory_knows() -> None:
    chances = Chances(0.05, 0.025, 1)
    assert chances.safe(Layout.even(72), 0.0) == 1.0
    assert chances.safe(Layout.even(71), 0.0) == 0.0
    assert chances.needed(Layout.even(72), 0.0) == 72
    assert chances.loss(Layout.even(25), 0.0, 0.0) == 0.0
    assert chances.loss(Layout.even(200), 0.1, 0.2) > 0.95


def test_plan_counts_contexts_and_whole_bins() -> None:
    """Without a flip, 72 contexts prove safety; in five bins of equal size 75, and of five questions each 375."""
    one_each = np.arange(100)
    assert Layout.even(100, 5).least(0.05, 0.025) == 75
    assert Layout.of(one_each // 5, np.zeros(100, dtype=int)).least(0.05, 0.025) == 360
    assert Layout.of(one_each // 5, one_each // 20).least(0.05, 0.025) == 375
    unequal = Layout.of(one_each, (one_each >= 10).astype(int))
    assert unequal.least(0.05, 0.025) > 200  # 10 of 100 weigh half of all
    chances = Chances(0.05, 0.025, 1)
    contexts = Layout.of(np.arange(360) // 5, np.zeros(360, dtype=int))
    assert chances.safe(contexts.grown(360), 0.0) == 1.0
    assert chances.safe(contexts.grown(300), 0.0) == 0.0


def test_all_budgets_are_harder_to_prove_than_one_and_easier_than_were_they_apart() -> None:
    """They share full cache's own flips."""
    chances, layout = Chances(0.05, 0.025, 1), Layout.even(150)
    one, three = chances.safe(layout, 0.05), chances.safe(layout, 0.05, 3)
    assert one**3 < three < one
    for_three, for_one = chances.needed(layout, 0.05, 3), chances.needed(layout, 0.05)
    assert for_three is not None
    assert for_one is not None
    assert for_three > for_one


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=1, max_size=80))
def test_a_layout_keeps_the_number_of_contexts_and_the_heaviest_one(places: list[tuple[int, int]]) -> None:
    bins, contexts = (np.array(column) for column in zip(*places, strict=True))
    units = Units.of(np.zeros(len(bins)), contexts, bins)
    found = Layout.of(contexts, bins)
    assert found.contexts == len(units.weight)
    assert found.weight.max() == pytest.approx(units.weight.max(), abs=1e-8)
    assert float(found.weight @ found.count) / found.contexts == pytest.approx(1)
    assert len(found.weight) <= 8


def test_plan_tells_the_submission_profile_that_it_can_prove_little() -> None:
    settings = load_settings(None, ["binning.n_bins=5", "binning.n_per_bin=5"], environ={})
    found = plan(settings, flips=Flips(0.1))
    assert found.n == 25
    assert found.chance_safe < 0.05
    assert found.smallest_drop is not None
    assert found.smallest_drop > 0.2
    assert found.smallest_drop_in_a_bin is None
    assert any("75 is the least" in line for line in found.lines)
    assert found.budgets == 2
    assert found.chance_all_safe <= found.chance_safe
    assert any("all 2 budgets" in line for line in found.lines)


def analysed_group(experiment: Experiment, tmp_path: Path, **asked: Any) -> tuple[str, Settings]:
    """A group analysed under runs/synthetic, and a config's overrides that find it."""
    conn, settings = experiment(n_bins=2, n_per_bin=100, flips=0.2, p_correct=0.5, budgets=(1.0, 0.5), **asked)
    score(conn, "synthetic")
    analyze(conn, settings)
    path = next(row[2] for row in conn.execute("PRAGMA database_list"))
    return path, load_settings(None, ["experiment.exp_group_id=synthetic", f"db.path={path}"], environ={})


def planned(settings: Settings, **asked: Any) -> PlanAnswer:
    answer = plan_stage(settings, **asked)
    assert isinstance(answer, PlanAnswer)
    return answer


def test_plan_takes_the_flips_that_the_groups_own_control_measured(experiment: Experiment, tmp_path: Path) -> None:
    _, settings = analysed_group(experiment, tmp_path)
    found = planned(settings)
    assert found.flips.rate == pytest.approx(0.18, abs=0.08)  # two runs, each drawing 20% anew: 2 x 0.1 x 0.9
    assert found.upper_end is not None
    assert found.upper_end.low < found.flips.rate < found.upper_end.high
    assert (found.upper_end.n_needed or 0) >= (found.n_needed or 0) > 0
    assert "A/A control of synthetic" in found.lines[0]
    assert planned(settings, flip_rate=0.0).n_needed == 72, "what is given by hand wins: two bins of 36"


def test_plan_takes_another_groups_flips_for_a_config_that_never_ran(experiment: Experiment, tmp_path: Path) -> None:
    path, settings = analysed_group(experiment, tmp_path)
    fresh = load_settings(None, [f"output.runs_dir={tmp_path}/runs"], environ={})
    assert planned(fresh).json()["flip_rate_source"] == "assumed"
    assert planned(fresh, measured=Path(path)).flips == planned(settings).flips


def test_plan_takes_the_contexts_of_the_groups_manifest(experiment: Experiment, tmp_path: Path) -> None:
    _, settings = analysed_group(experiment, tmp_path, cluster_size=5)
    found = planned(settings, flip_rate=0.0)
    assert found.pairs_without_loss == 360  # 36 contexts in each of two bins
    assert found.contexts * 5 == found.n
    assert any(f"share {found.contexts} contexts" in line for line in found.lines)


def test_plan_without_a_control_to_measure_says_so(experiment: Experiment, tmp_path: Path) -> None:
    path, _ = analysed_group(experiment, tmp_path, control_repeats=0)
    with pytest.raises(MissingPrerequisiteError, match="no analysed A/A control"):
        planned(load_settings(None, [f"output.runs_dir={tmp_path}/runs"], environ={}), measured=Path(path))


def test_plan_knows_that_a_growing_manifest_pays_for_its_looks() -> None:
    settings = load_settings(None, ["sampling.strategy=focus_transition"], environ={})
    first, second = (plan(settings, flips=Flips(0.0), version=version) for version in (0, 1))
    assert (first.alpha, second.alpha) == (0.0125, 0.00625)
    assert second.n == 2 * first.n
    assert (second.n_needed or 0) > (first.n_needed or 0) > 72


def test_plan_counts_conversations_and_their_turns() -> None:
    settings = load_settings(None, ["binning.n_bins=2", "binning.n_per_bin=10"], environ={})
    places = np.repeat(np.arange(20), 3)  # 20 conversations of three turns
    found = plan(settings, flips=Flips(0.1), layout=Layout.of(places, places // 10), turns=3.0)
    assert (found.n, found.n_per_bin, found.contexts) == (60, 30, 20)
    assert any("a conversation has 3 scored turns" in line for line in found.lines)
    assert found.json()["turns"] == 3.0

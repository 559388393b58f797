"""Several tasks with planted truths through score and analyze: the verdict over them, and what it is made of."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analyzer.report.suite_answers import suite_headline
from analyzer.results.suite_results import SuiteResults, read_suite
from analyzer.scoring.score import score
from analyzer.store.suite_tables import SuiteVerdict
from analyzer.summarise.analyze import analyze
from analyzer.verify.verification import verify
from kvt_async.contract.errors import ConfigError, MissingPrerequisiteError
from tests.analyzer.conftest import Experiment

SERIES = "snapkv/aware"


def loses(**drops: float) -> Callable[[str, float, int], float]:
    """Right answers 0.9, less what is lost at a budget: `loses(b2=0.5)` loses 0.5 at budget 0.2."""
    at = {int(name[1:]) / 10: drop for name, drop in drops.items()}
    return lambda series, budget, bin_idx: 0.9 - at.get(budget, 0.0)


NIAH = {"task": "niah", "p_correct": loses(b2=0.5)}
TRACKING = {"task": "vt", "p_correct": loses(b2=0.6)}
CALM = {"task": "qa", "p_correct": loses()}
VOID = {"task": "void", "p_correct": 0.01}


def analysed(experiment: Experiment, *tasks: dict[str, Any], **asked: Any) -> tuple[SuiteResults, sqlite3.Connection]:
    go_partial = bool(asked.get("partial"))
    conn, settings = experiment(**({"tasks": tasks, "n_bins": 2, "n_per_bin": 40, "resamples": 100} | asked))
    score(conn, "synthetic")
    analyze(conn, settings, partial=go_partial)
    return read_suite(conn, "synthetic"), conn


def verdict_of(suite: SuiteResults, series: str = SERIES) -> SuiteVerdict:
    verdict = suite.verdict(series)
    assert verdict is not None
    return verdict


def database(conn: sqlite3.Connection) -> Path:
    return Path(conn.execute("PRAGMA database_list").fetchone()[2])


def test_the_verdict_over_tasks_is_safe_where_none_loses_and_names_those_that_broke(experiment: Experiment) -> None:
    suite, _ = analysed(experiment, NIAH, TRACKING, CALM, VOID)
    verdict = verdict_of(suite)
    assert (verdict.verdict, verdict.suite_safe, verdict.broken_somewhere) == ("transition", 0.5, 0.2)
    assert verdict.broken == ["niah", "vt"]
    assert (verdict.n_tasks, verdict.n_nothing_to_lose, verdict.mean_broken_budget) == (4, 1, 0.2)
    assert verdict.verdict_text.startswith(
        "Safe on average over 4 tasks down to 50% of the cache kept, and there no task loses more than 0.15, but taken "
        "alone none of the tasks' 8 lengths is proven safe there; niah and vt break first, from 20% down (safe: "
        "accuracy is proven to fall by less than 0.05 on average)."
    )
    assert "From 20% of the cache kept down, niah and vt lose more than 0.05." in verdict.verdict_text
    assert "Nothing to lose: void has too little at full cache" in verdict.verdict_text
    assert verdict.worst_task_bound is not None
    assert verdict.worst_task_bound < 0.15
    assert [row.kv_budget for row in suite.levels(SERIES)] == [0.5, 0.2]
    assert suite.levels(SERIES)[1].drop_mean == pytest.approx((0.5 + 0.6) / 4, abs=0.06)
    assert [row.repeat_idx for row in suite.controls] == [1]


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (0.4, ", but taken alone vt at {long} tokens is broken there"),
        (0.15, ", but taken alone only 5 of the tasks' 6 lengths are proven safe there (not vt at {long} tokens)"),
        (0.0, ", and at every length of every task, down to 20% of the cache kept"),
    ],
    ids=["broken", "open", "proven"],
)
def test_the_verdict_over_tasks_says_how_far_it_holds_at_single_lengths(
    experiment: Experiment, lost: float, words: str
) -> None:
    """One length of one task loses `lost` at every budget, which the mean over six lengths hides."""
    tracking = {"task": "vt", "p_correct": lambda series, budget, bin_idx: 0.9 - lost * (budget < 1 and bin_idx == 1)}
    calm = [CALM, CALM | {"task": "niah"}]
    overrides = ("analysis.margin=0.15", "analysis.guard=0.4")
    suite, conn = analysed(experiment, *calm, tracking, n_per_bin=80, overrides=overrides)
    verdict, long = verdict_of(suite), suite.task("vt").bins[1]
    assert words.format(long=long.label) in verdict.verdict_text
    first = verdict.verdict_text.partition(". ")[0]
    assert suite_headline(suite, verdict) == f"SnapKV (sees the question): {first[0].lower()}{first[1:]}."
    _, (checked,) = verify(database(conn))
    assert checked.findings.differences == []


def test_the_claim_is_the_suites_and_single_tasks_explore(experiment: Experiment) -> None:
    suite, _ = analysed(experiment, NIAH, CALM, series=("a", "b", "c"))
    assert {v.role for task in suite.tasks for v in task.verdicts} == {"exploratory"}
    asked = {v.series: v.asked for v in suite.verdicts}
    assert [asked[name]["role"] for name in "abc"] == ["confirmatory", "holm", "holm"]
    assert [asked[name]["level"] for name in "abc"] == [0.025, 0.0125, 0.0125]


@pytest.mark.parametrize("several", [False, True], ids=["alone", "beside another"])
def test_a_tasks_numbers_do_not_depend_on_the_tasks_beside_it(experiment: Experiment, several: bool) -> None:
    asked = {"flips": 0.1, "failures": 0.05, "cluster_size": 2}
    tasks = (NIAH, CALM) if several else (NIAH,)
    suite, _ = analysed(experiment, *tasks, **asked)
    conn, settings = experiment(n_bins=2, n_per_bin=40, resamples=100, **NIAH, **asked)
    score(conn, "synthetic")
    analyze(conn, settings)
    alone, beside = read_suite(conn, "synthetic").first, suite.task("niah")
    numbers = [(d.kv_budget, d.bin_idx, d.drop_mean, d.drop_ci_low, d.p_safe, d.drop_json) for d in alone.drops]
    assert [
        (d.kv_budget, d.bin_idx, d.drop_mean, d.drop_ci_low, d.p_safe, d.drop_json) for d in beside.drops
    ] == numbers
    assert [(v.verdict, v.safe_budget, v.zone_low, v.half_loss_budget) for v in beside.verdicts] == [
        (v.verdict, v.safe_budget, v.zone_low, v.half_loss_budget) for v in alone.verdicts
    ]
    assert [s.acc_ci_low for s in beside.stats.values()] == [s.acc_ci_low for s in alone.stats.values()]
    assert bool(suite.verdicts) == several  # one task has no verdict over tasks


def test_a_suite_of_one_task_says_what_the_task_says(experiment: Experiment) -> None:
    suite, _ = analysed(experiment, NIAH, CALM, flips=0.1, cluster_size=2, overrides=("analysis.tasks=[niah]",))
    own, verdict = suite.task("niah"), verdict_of(suite)
    assert [task.task for task in suite.chosen] == ["niah"]
    assert "over 1 of 2 tasks" in verdict.verdict_text
    for (budget, drop), row in zip(own.paired(SERIES), suite.levels(SERIES), strict=True):
        assert (row.kv_budget, row.n, row.n_clusters) == (budget, drop.n, drop.n_clusters)
        assert (row.drop_mean, row.drop_ci_low, row.drop_ci_high) == pytest.approx(
            (drop.drop_mean, drop.drop_ci_low, drop.drop_ci_high), abs=1e-9
        )
        assert (row.p_safe, row.p_loss, row.p_collapse) == pytest.approx(
            (drop.p_safe, drop.p_loss, drop.p_collapse), abs=1e-9
        )
    alone = own.verdict(SERIES)
    assert alone is not None
    assert (verdict.mean_safe_budget or 1.0, verdict.mean_broken_budget) == (alone.safe_budget, alone.broken)


def test_a_context_that_several_tasks_share_is_one_unit(experiment: Experiment) -> None:
    apart, _ = analysed(experiment, NIAH, CALM)
    shared, _ = analysed(experiment, NIAH, CALM, shares_contexts=True)
    assert {row.n_clusters for row in apart.stats} == {160}
    assert {row.n_clusters for row in shared.stats} == {80}
    assert {row.n for row in shared.stats} == {160}


def test_a_task_added_after_an_analysis_is_paid_for(experiment: Experiment) -> None:
    suite, _ = analysed(experiment, NIAH, CALM, looks={"qa": 2})
    verdict = verdict_of(suite)
    assert verdict.asked["level"] == 0.025 / 4
    assert "(look 2), so these claims spend 1/4 of alpha" in verdict.verdict_text


def test_what_is_pending_in_one_task_makes_the_whole_verdict_partial(experiment: Experiment) -> None:
    tasks = (NIAH, CALM | {"partial": 0.2})
    with pytest.raises(MissingPrerequisiteError, match="48 requests are still pending"):
        analysed(experiment, *tasks, n_bins=2, n_per_bin=30)
    suite, _ = analysed(experiment, *tasks, n_bins=2, n_per_bin=30, partial=0.0001)
    assert verdict_of(suite).partial
    assert suite.partial


def test_tasks_at_their_floor_are_not_called_safe_for_losing_nothing(experiment: Experiment) -> None:
    """0.08 of full cache's answers are right, which is not shown to be more than the margin above nothing."""
    faint = [CALM | {"task": name, "p_correct": 0.08} for name in ("faint", "dim")]
    suite, _ = analysed(experiment, *faint)
    verdict = verdict_of(suite)
    assert verdict.mean_full is not None
    assert 0.05 < verdict.mean_full < 0.12
    assert suite.levels(SERIES)[0].drop_mean == 0.0
    assert (verdict.suite_safe, verdict.safe_everywhere, verdict.mean_safe_budget) == (None, None, None)


def test_few_examples_cannot_tell_and_say_how_many_a_task_would(experiment: Experiment) -> None:
    suite, _ = analysed(experiment, CALM, CALM | {"task": "qa_2"}, n_per_bin=8)
    verdict = verdict_of(suite)
    assert (verdict.verdict, verdict.suite_safe, verdict.n_cannot_tell) == ("cannot_tell", None, 2)
    assert verdict.n_needed is not None
    assert verdict.n_needed > 16
    assert f"about {verdict.n_needed} examples a task would do" in verdict.verdict_text


def test_without_full_cache_of_a_task_there_is_no_verdict(experiment: Experiment) -> None:
    suite, _ = analysed(experiment, NIAH, CALM | {"full": False})
    verdict = verdict_of(suite)
    assert verdict.verdict == "no_baseline"
    assert "there is no full-cache run of qa" in verdict.verdict_text
    assert not suite.stats


def test_a_task_that_the_group_lacks_is_named(experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match="the group has no task 'nih'"):
        analysed(experiment, NIAH, CALM, overrides=("analysis.tasks=[nih]",))


def test_the_rows_over_tasks_are_made_again_and_compared(experiment: Experiment) -> None:
    _, conn = analysed(experiment, NIAH, CALM)
    conn.execute("UPDATE suite_summary SET suite_safe = 0.2")
    conn.commit()
    _, (checked,) = verify(database(conn))
    assert checked.findings.checked["suite_stats"] == 3
    (difference,) = checked.findings.differences
    assert (difference.table, difference.column, difference.stored, difference.recomputed) == (
        "suite_summary",
        "suite_safe",
        0.2,
        0.5,
    )


def test_a_guard_and_tasks_chosen_after_the_data_are_named(experiment: Experiment) -> None:
    conn, settings = experiment(tasks=(NIAH, CALM), n_bins=2, n_per_bin=40, resamples=100)
    for trigger in ("sessions_no_update",):
        conn.execute(f"DROP TRIGGER {trigger}")
    conn.execute("UPDATE sessions SET config_yaml = ?", (json.dumps({"analysis": {"margin": 0.05, "guard": 0.1}}),))
    score(conn, "synthetic")
    chosen = settings.analysis.model_copy(update={"tasks": ["qa"]})
    analyze(conn, settings.model_copy(update={"analysis": chosen}))
    planned = verdict_of(read_suite(conn, "synthetic")).asked["planned"]
    assert planned == {"guard": 0.1, "tasks": "without niah"}


def test_a_task_that_was_not_run_yet_keeps_the_verdict_partial(experiment: Experiment) -> None:
    conn, settings = experiment(tasks=(NIAH, CALM), n_bins=2, n_per_bin=40, resamples=100)
    _never_ran(conn, "qa")
    score(conn, "synthetic")
    with pytest.raises(MissingPrerequisiteError, match="nothing of qa was sent yet"):
        analyze(conn, settings)
    analyze(conn, settings, partial=True)
    verdict = verdict_of(read_suite(conn, "synthetic"))
    assert verdict.partial
    assert "over 1 of 2 tasks" in verdict.verdict_text


def _never_ran(conn: sqlite3.Connection, task: str) -> None:
    """Take back what was sent of a task."""
    own = "run_id IN (SELECT run_id FROM runs JOIN task_contracts USING (dataset_id) WHERE task = ?)"
    of_requests = f"request_id IN (SELECT request_id FROM requests WHERE {own})"
    for (trigger,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        conn.execute(f"DROP TRIGGER {trigger}")
    for table in ("responses", "telemetry", "give_ups", "attempts"):
        conn.execute(f"DELETE FROM {table} WHERE {of_requests}", (task,))
    for table in ("requests", "runs"):
        conn.execute(f"DELETE FROM {table} WHERE {own}", (task,))

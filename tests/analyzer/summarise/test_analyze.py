"""Facts with a known truth through score and analyze: what is derived, refused, repeated and said."""

import json
import sqlite3
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from analyzer.report.answers import AnswerKey, first_screen, headline
from analyzer.results import verdict_sentence
from analyzer.results.alarms import PARTIAL, alarms
from analyzer.results.results import read_results
from analyzer.scoring.score import score
from analyzer.stats.holm import holm
from analyzer.summarise.analyze import analyze
from kvt_async.contract.errors import ContradictedError, GuardError, MissingPrerequisiteError
from kvt_async.contract.schema_tables import DERIVED_TABLES
from tests.analyzer.conftest import Experiment, Opened

CLIFF = {1.0: 0.95, 0.8: 0.95, 0.5: 0.95, 0.2: 0.4, 0.05: 0.02}


def analysed(experiment: Experiment, **asked: Any) -> Opened:
    partial = asked.pop("go_partial", False)
    conn, settings = experiment(**asked)
    score(conn, "synthetic")
    analyze(conn, settings, partial=partial)
    return conn, settings


def overall(conn: sqlite3.Connection, series: str = "snapkv/aware", bin_idx: int = -1) -> Any:
    return conn.execute(
        "SELECT * FROM transition_summary WHERE series = ? AND bin_idx = ?", (series, bin_idx)
    ).fetchone()


def contents(conn: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    return {
        table: [tuple(row) for row in conn.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4, 5, 6")]
        for table in DERIVED_TABLES
    }


def test_a_cliff_is_found_where_it_is(experiment: Experiment) -> None:
    conn, _ = analysed(experiment, n_per_bin=40, budgets=tuple(CLIFF), p_correct=CLIFF)
    row = overall(conn)
    assert (row["verdict"], row["zone_low"], row["zone_high"]) == ("transition", 0.2, 0.5)
    assert (row["safe_budget"], row["collapse_budget"], row["collapse_margin_budget"]) == (0.5, 0.2, 0.2)
    assert 0.2 <= row["half_loss_budget"] <= 0.5
    assert row["half_loss_ci_low"] <= 0.2  # nothing was measured between 0.2 and 0.5: no interval is narrower
    assert row["half_loss_ci_high"] >= 0.5
    assert (row["pre_budget"], row["transition_budget"]) == (0.5, 0.2)
    assert row["drop"] == pytest.approx(row["acc_pre"] - row["acc_post"])
    assert "down to 50% of the cache kept" in row["verdict_text"]


def test_the_stored_sentence_of_every_verdict_is_the_one_that_the_report_prints(experiment: Experiment) -> None:
    conn, settings = analysed(experiment, n_per_bin=20, budgets=tuple(CLIFF), p_correct=CLIFF, series=("a", "b"))
    results = read_results(conn, "synthetic")
    assert len({v.verdict_text for v in results.verdicts}) > 1
    for v in results.verdicts:
        if v.bin_idx == -1:
            said = headline(results, v, settings.analysis.margin)
            assert said == f"{v.series}: {v.verdict_text[0].lower()}{v.verdict_text[1:]}"
            assert "over lengths" in said
        else:
            assert v.verdict_text == verdict_sentence.verdict(v, "fraction", settings.analysis.margin)


def test_no_loss_anywhere_is_proven_when_there_are_enough_pairs_and_not_told_when_there_are_few(
    experiment: Experiment,
) -> None:
    many, _ = analysed(experiment, n_per_bin=20, p_correct=0.9)
    assert overall(many)["verdict"] == "no_transition_in_range"
    assert overall(many)["safe_budget"] == 0.2
    few, _ = analysed(experiment, n_per_bin=5, p_correct=0.9)
    assert overall(few)["verdict"] == "cannot_tell"
    assert overall(few)["n_needed"] >= 72
    assert overall(few)["safe_budget"] == 1.0
    needed = overall(few)["n_needed"]
    aim = f"To prove that 50% of the cache kept loses less than 0.05, about {needed} pairs are needed if"
    assert aim in overall(few)["verdict_text"]


def test_every_run_and_bin_has_a_row_also_an_empty_bin(experiment: Experiment) -> None:
    conn, _ = analysed(experiment, bin_sizes=(6, 0, 9), failures=0.2)
    runs = conn.execute("SELECT count(*) FROM runs").fetchone()[0]
    assert conn.execute("SELECT count(*) FROM bin_stats").fetchone()[0] == runs * 4
    empty = conn.execute("SELECT n, acc_mean, fail_rate, latency_p50_s FROM bin_stats WHERE bin_idx = 1").fetchall()
    assert {tuple(row) for row in empty} == {(0, None, None, None)}


def test_bin_means_are_means_with_failures_as_zero_and_overall_weighs_bins_equally(experiment: Experiment) -> None:
    conn, _ = analysed(experiment, bin_sizes=(4, 40), failures=0.3, n_bins=2)
    for run in conn.execute("SELECT run_id FROM runs").fetchall():
        per_bin = conn.execute(
            "SELECT e.bin_idx, avg(s.score), avg(f.request_id IS NOT NULL) FROM requests r "
            "JOIN scores s USING (request_id) JOIN manifest_entries e USING (example_id) "
            "LEFT JOIN failures f USING (request_id) "
            "WHERE r.run_id = ? GROUP BY 1 ORDER BY 1",
            (run[0],),
        ).fetchall()
        stats = conn.execute(
            "SELECT acc_mean, fail_rate FROM bin_stats WHERE run_id = ? ORDER BY bin_idx", (run[0],)
        ).fetchall()
        assert [row[0] for row in stats[1:]] == pytest.approx([row[1] for row in per_bin])
        assert [row[1] for row in stats[1:]] == pytest.approx([row[2] for row in per_bin])
        assert stats[0][0] == pytest.approx(statistics.mean(row[1] for row in per_bin))
        failed, n = conn.execute(
            "SELECT count(f.request_id), count(*) FROM requests r LEFT JOIN failures f USING (request_id) "
            "WHERE r.run_id = ?",
            (run[0],),
        ).fetchone()
        assert stats[0][1] == pytest.approx(
            failed / n, abs=1e-9
        )  # a failure rate is failures over requests, however the bins lie


def test_requests_that_fail_at_full_cache_are_an_alarm_and_keep_a_budget_from_being_safe(
    experiment: Experiment,
) -> None:
    """Full cache fails 15% of 0.9; 0.5 answers them and gets 8% of the others wrong: on average it loses nothing."""
    asked = {"n_per_bin": 100, "p_correct": {1.0: 0.9, 0.5: 0.82, 0.2: 0.1}, "control_repeats": 0}
    conn, config = analysed(experiment, failures=lambda series, budget, b: 0.15 * (budget == 1), **asked)
    drop = conn.execute("SELECT * FROM budget_stats WHERE kv_budget = 0.5 AND bin_idx = -1").fetchone()
    assert drop["drop_ci_high"] < 0.05
    assert drop["p_safe"] > 0.025
    assert overall(conn)["safe_budget"] == 1.0
    alarms = first_screen(read_results(conn, "synthetic"), config).alarms
    assert [one for one in alarms if one.name == "FAILED AT FULL CACHE" and " of 500 requests" in one.says]
    calm, config = analysed(experiment, failures=0.0, **asked)
    assert not first_screen(read_results(calm, "synthetic"), config).alarms


def test_an_accuracy_of_questions_that_share_contexts_is_bounded_as_its_losses_are(experiment: Experiment) -> None:
    conn, _ = analysed(experiment, n_per_bin=40, cluster_size=5)
    assert {row[0] for row in conn.execute("SELECT DISTINCT acc_ci_method FROM bin_stats")} == {"exact_bound"}
    conn, _ = analysed(experiment, n_per_bin=20)
    methods = conn.execute("SELECT DISTINCT bin_idx < 0, acc_ci_method FROM bin_stats ORDER BY 1").fetchall()
    assert [tuple(row) for row in methods] == [(0, "wilson"), (1, "wilson_effective_n")]


def test_shares_of_failures_and_wrong_answers_add_up_to_the_drop(experiment: Experiment) -> None:
    conn, _ = analysed(experiment, failures=lambda series, budget, b: 0.0 if budget == 1 else 0.3, flips=0.1)
    rows = conn.execute("SELECT * FROM budget_stats WHERE repeat_idx = 0").fetchall()
    assert len(rows) == 2 * 6
    for row in rows:
        assert row["drop_failures"] + row["drop_answers"] == pytest.approx(row["drop_mean"], abs=1e-9)
        assert sum(json.loads(row["drop_json"]).values()) == pytest.approx(row["drop_mean"], abs=1e-7)
        assert row["drop_failures"] > 0
    labels = set(json.loads(rows[0]["drop_json"]))
    assert labels & {"TIMEOUT", "ENGINE_ERROR", "CONTEXT_OVERFLOW"}


def test_verdict_and_interval_agree(experiment: Experiment) -> None:
    conn, settings = analysed(experiment, n_per_bin=30, flips=0.1, budgets=tuple(CLIFF), p_correct=CLIFF)
    for row in conn.execute("SELECT * FROM budget_stats").fetchall():
        margin, level = settings.analysis.margin, settings.analysis.alpha / 2
        assert (row["p_safe"] <= level) == (row["drop_ci_high"] < margin)
        assert (row["p_loss"] <= level) == (row["drop_ci_low"] > 0)
        assert (row["p_collapse"] <= level) == (row["drop_ci_low"] > margin)


def test_the_control_measures_the_servers_own_noise(experiment: Experiment) -> None:
    quiet, _ = analysed(experiment)
    row = quiet.execute("SELECT * FROM budget_stats WHERE series = 'full' AND bin_idx = -1").fetchone()
    assert (row["repeat_idx"], row["n_worse"], row["n_better"], row["drop_mean"]) == (1, 0, 0, 0.0)
    noisy, _ = analysed(experiment, flips=0.4, p_correct=0.6, n_per_bin=30)
    noise = json.loads(overall(noisy)["zone_json"])["noise"]
    assert noise["flips"] > 10
    inside = noisy.execute("SELECT within_noise FROM budget_stats WHERE series != 'full' AND bin_idx = -1").fetchall()
    assert any(row[0] for row in inside)


def test_series_are_compared_on_the_same_examples_with_holm(experiment: Experiment) -> None:
    conn, _ = analysed(
        experiment,
        n_per_bin=40,
        series=("snapkv/aware", "random"),
        p_correct=lambda series, budget, b: 0.95 if series != "random" else 0.95 * budget,
    )
    rows = conn.execute("SELECT * FROM comparisons WHERE bin_idx = -1").fetchall()
    assert [(row["series_a"], row["series_b"], row["kv_budget"]) for row in rows] == [
        ("snapkv/aware", "random", 0.5),
        ("snapkv/aware", "random", 0.2),
    ]
    for row in rows:
        assert row["diff_ci_low"] > 0
        assert row["p"] <= row["p_holm"] < 0.001


def test_pairs_with_the_first_series_are_adjusted_among_themselves(experiment: Experiment) -> None:
    names = ("snapkv/aware", "random", "knorm", "tova/aware")
    conn, _ = analysed(
        experiment, n_per_bin=20, n_bins=2, series=names, flips=0.2, budgets=(1.0, 0.5, 0.2), resamples=100,
        p_correct=lambda series, budget, b: 0.9 if series != "random" else 0.5,
    )  # fmt: skip
    rows = conn.execute("SELECT * FROM comparisons WHERE bin_idx = -1").fetchall()
    first = [row for row in rows if row["series_a"] == names[0]]
    others = [row for row in rows if row["series_a"] != names[0]]
    assert (len(first), len(others)) == (6, 6)
    for family in (first, others):
        assert [row["p_holm"] for row in family] == pytest.approx(holm([row["p"] for row in family]))
    smallest = min(first, key=lambda row: row["p"])
    assert smallest["p_holm"] < 0.05
    assert smallest["p_holm"] == pytest.approx(6 * smallest["p"]), "12 comparisons, 6 of them with the first"


def test_budgets_that_the_server_rounds_to_one_are_said_to_be_one(experiment: Experiment) -> None:
    conn, settings = analysed(
        experiment, n_bins=1, n_per_bin=12, lengths=(20,), budgets=(1.0, 0.5, 0.051, 0.05), p_correct=0.9
    )
    notes = json.loads(overall(conn)["zone_json"])["notes"]
    assert any("0.051 and 0.05 were applied as the same budget" in note for note in notes)
    told = first_screen(read_results(conn, "synthetic"), settings)
    (limits,) = [answer.lines for answer in told.answers if answer.key == AnswerKey.LIMITS]
    assert "0.051 and 0.05 were applied as the same budget (1 tokens kept)." in limits


def test_the_first_series_is_confirmatory_the_others_holm_and_bins_exploratory(experiment: Experiment) -> None:
    conn, _ = analysed(experiment, series=("snapkv/aware", "random", "streaming_llm"))
    roles = conn.execute("SELECT series, bin_idx < 0, role FROM transition_summary GROUP BY 1, 2, 3").fetchall()
    assert {(r[0], r[1]): r[2] for r in roles} == {
        ("snapkv/aware", 1): "confirmatory",
        ("random", 1): "holm",
        ("streaming_llm", 1): "holm",
        ("snapkv/aware", 0): "exploratory",
        ("random", 0): "exploratory",
        ("streaming_llm", 0): "exploratory",
    }


def test_a_cliff_at_one_number_of_kept_tokens_is_recognised_in_bins_of_different_length(experiment: Experiment) -> None:
    lengths = (200, 400, 800, 1600)

    def by_tokens(series: str, budget: float, b: int) -> float:
        return 0.95 if budget * lengths[b] >= 110 else 0.05

    budgets = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
    conn, _ = analysed(
        experiment, n_bins=4, n_per_bin=40, lengths=lengths, budgets=budgets, p_correct=by_tokens, resamples=300
    )
    cliff = json.loads(overall(conn)["zone_json"])["cliff"]
    assert cliff["constant"] == "tokens"
    for b in cliff["bins"]:  # each bin's bracket holds the cliff
        assert b["tokens_low"] < 110 <= b["tokens_high"]
    safe_at = {row["budget"]: row["safe"] for row in json.loads(overall(conn)["zone_json"])["length_by_budget"]}
    assert 0 not in safe_at[0.4]


def test_a_second_analysis_does_nothing_and_the_same_facts_give_the_same_rows(experiment: Experiment) -> None:
    conn, settings = analysed(experiment, flips=0.1, n_per_bin=8)
    before = contents(conn)
    assert not analyze(conn, settings).recomputed
    conn.execute("DELETE FROM analysis_state WHERE stage = 'analyze'")
    assert analyze(conn, settings).recomputed
    assert contents(conn) == before


def test_other_settings_are_another_analysis(experiment: Experiment) -> None:
    conn, settings = analysed(experiment, n_per_bin=8)
    wider = settings.model_copy(update={"analysis": settings.analysis.model_copy(update={"margin": 0.2})})
    assert analyze(conn, wider).recomputed
    assert json.loads(overall(conn)["method"])["margin"] == 0.2


def test_pending_requests_need_partial_and_are_then_marked(experiment: Experiment) -> None:
    conn, settings = experiment(partial=0.1)
    score(conn, "synthetic")
    with pytest.raises(MissingPrerequisiteError, match="pending") as caught:
        analyze(conn, settings)
    assert "--partial" in caught.value.do
    report = analyze(conn, settings, partial=True)
    assert (report.partial, report.pending > 0) == (True, True)
    assert {row[0] for row in conn.execute("SELECT partial FROM transition_summary")} == {1}
    assert conn.execute("SELECT min(n) FROM budget_stats WHERE bin_idx = -1").fetchone()[0] == 90


def pending(by_budget: dict[float, float]) -> Callable[[str, float, int], float]:
    return lambda series, budget, _: 0.0 if series == "full" else by_budget.get(budget, 0.0)


@pytest.mark.parametrize("share", [0.5, 0.99, 1.0])
def test_a_level_that_is_half_swept_leaves_the_verdict_to_the_complete_ones(
    experiment: Experiment, share: float
) -> None:
    conn, settings = analysed(
        experiment,
        n_per_bin=40,
        budgets=tuple(CLIFF),
        p_correct=CLIFF,
        partial=pending({0.05: share}),
        go_partial=True,
    )
    row, done = overall(conn), 200 - round(share * 200)
    assert (row["n"], row["zone_high"], row["zone_low"]) == (200, 0.5, 0.2)
    assert json.loads(row["zone_json"])["left_out"] == [{"budget": 0.05, "answers": done, "planned": 200}]
    assert {v["n"] for v in conn.execute("SELECT n FROM transition_summary WHERE bin_idx >= 0")} == {40}
    results = read_results(conn, "synthetic")
    partial = next(alarm for alarm in alarms(results) if alarm.name == PARTIAL)
    named = f"SnapKV (sees the question) with 5% of the cache kept ({done} of 200 answers)"
    assert f"Left out of the verdicts: {named}." in partial.says
    screen = first_screen(results, settings)
    assert "with 20% of the cache kept" in screen.claims(AnswerKey.CHANGED)[0]
    assert f"most of it is still pending: 0.05 ({done} of 200 answers)." in " ".join(
        line for answer in screen.answers if answer.key == AnswerKey.LIMITS for line in answer.lines
    )


def test_levels_that_are_swept_side_by_side_are_all_judged(experiment: Experiment) -> None:
    shares = pending({0.8: 0.48, 0.5: 0.5, 0.2: 0.5})
    conn, _ = analysed(experiment, n_per_bin=40, budgets=(1.0, 0.8, 0.5, 0.2), partial=shares, go_partial=True)
    row = overall(conn)
    assert row["n"] == 100
    assert "left_out" not in json.loads(row["zone_json"])


def test_without_scores_analysis_is_refused_with_the_command_to_run(experiment: Experiment) -> None:
    conn, settings = experiment(n_per_bin=2)
    with pytest.raises(MissingPrerequisiteError) as caught:
        analyze(conn, settings)
    assert "kvt score" in caught.value.do


def test_contradicted_runs_are_refused_and_the_evidence_is_kept(experiment: Experiment) -> None:
    conn, settings = experiment(evidence="contradicted")
    score(conn, "synthetic")
    with pytest.raises(ContradictedError) as caught:
        analyze(conn, settings)
    assert caught.value.exit_code == 3
    assert len(caught.value.details) == 2
    statuses = dict(conn.execute("SELECT status, count(*) FROM run_evidence GROUP BY 1").fetchall())
    assert statuses == {"contradicted": 2, "full": 2}
    assert conn.execute("SELECT count(*) FROM transition_summary").fetchone()[0] == 0


def test_without_evidence_every_row_says_unverified(experiment: Experiment) -> None:
    conn, _ = analysed(experiment, evidence="unverified", n_per_bin=4)
    assert {row[0] for row in conn.execute("SELECT evidence FROM transition_summary")} == {"unverified"}
    reason = conn.execute("SELECT reason FROM run_evidence WHERE status = 'unverified'").fetchone()[0]
    assert "nothing shows that the server applied it" in reason
    assert conn.execute("SELECT max(kept_fraction_p50) FROM bin_stats").fetchone()[0] is None


def test_budgets_in_tokens_are_verified_and_ordered_as_tokens(experiment: Experiment) -> None:
    conn, _ = analysed(
        experiment,
        unit="tokens",
        budgets=(512, 128, 32),
        n_per_bin=40,
        p_correct=lambda s, b, i: 0.95 if b > 100 or s == "full" else 0.1,
    )
    row = overall(conn)
    assert (row["zone_low"], row["zone_high"], row["evidence"]) == (32, 128, "verified")
    assert "128 tokens" in row["verdict_text"]


@pytest.mark.parametrize(
    ("asked", "series", "verdict"),
    [
        ({"budgets": (1.0,)}, "full", "cannot_tell"),
        ({"full": False}, "snapkv/aware", "no_baseline"),
        ({"failures": 1.0}, "snapkv/aware", "nothing_to_lose"),
        ({"p_correct": 0.01}, "snapkv/aware", "nothing_to_lose"),
        ({"n_bins": 1, "n_per_bin": 1, "p_correct": 1.0}, "snapkv/aware", "cannot_tell"),
        ({"n_bins": 1, "n_per_bin": 80, "p_correct": CLIFF}, "snapkv/aware", "transition"),
    ],
)
def test_degenerate_experiments_get_a_verdict_of_their_own(
    experiment: Experiment, asked: dict[str, Any], series: str, verdict: str
) -> None:
    conn, _ = analysed(experiment, **({"n_per_bin": 10} | asked))
    assert overall(conn, series)["verdict"] == verdict


def test_one_run_alone_updates_its_own_rows_only(experiment: Experiment) -> None:
    conn, settings = experiment(n_per_bin=4)
    score(conn, "synthetic")
    run_id = conn.execute("SELECT run_id FROM runs WHERE kv_budget = 0.5").fetchone()[0]
    analyze(conn, settings, run_id=run_id)
    assert {row[0] for row in conn.execute("SELECT run_id FROM bin_stats")} == {run_id}
    assert conn.execute("SELECT count(*) FROM transition_summary").fetchone()[0] == 0


def test_the_newest_generation_is_analysed_unless_told(experiment: Experiment) -> None:
    conn, settings = analysed(experiment, n_per_bin=4)
    assert analyze(conn, settings, generation=1).generation == 1
    with pytest.raises(MissingPrerequisiteError, match="no generation 7"):
        analyze(conn, settings, generation=7)


def test_facts_that_break_an_invariant_stop_the_analysis(experiment: Experiment) -> None:
    conn, settings = experiment(n_per_bin=4)
    score(conn, "synthetic")
    conn.execute("DROP TRIGGER scores_changed")  # an edit is noticed before any figure is looked at
    conn.execute("UPDATE scores SET score = 1.5 WHERE rowid = 1")
    with pytest.raises(GuardError, match="outside"):
        analyze(conn, settings)


def test_analysis_waits_for_a_writer_that_holds_the_database(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn, settings = experiment(n_per_bin=4)
    score(conn, "synthetic")
    conn.execute("PRAGMA busy_timeout=0")
    path = next(row[2] for row in conn.execute("PRAGMA database_list"))
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    waits = []

    def release_on_the_third_wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            writer.execute("ROLLBACK")

    monkeypatch.setattr("kvt_async.contract.waiting.time.sleep", release_on_the_third_wait)
    assert analyze(conn, settings).recomputed
    assert len(waits) == 3
    writer.close()


def test_times_stand_beside_a_repeat_that_met_the_same_cache_state(experiment: Experiment) -> None:
    conn, settings = analysed(experiment, n_per_bin=10)
    results = read_results(conn, "synthetic")
    (again,) = results.controls

    def told() -> str:
        lines = (text for answer in first_screen(results, settings).answers for text in answer.lines)
        return next(text for text in lines if text.startswith("Latency"))

    assert "request by request" in told()
    assert "Full cache run again, by the same measure: " in told()
    results.stats[again.run_id, -1] = replace(results.stats[again.run_id, -1], cached_share=0.99)
    assert "Full cache run again" not in told(), "its prompts came from a cache, full cache's did not"

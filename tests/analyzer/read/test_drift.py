"""What the facts say of the server enters the analysis: canaries, looks at its metrics, rounding, and who it was."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from analyzer.charts.frames import note
from analyzer.read import runs
from analyzer.read.drift import RunServer, answers_beside_canary, round_to, sign_p
from analyzer.read.runs import Run
from analyzer.read.snapshot import path_of
from analyzer.report.answers import first_screen, headline
from analyzer.report.terminal_verdict import verdict_lines
from analyzer.results.results import read_results
from analyzer.scoring.score import score
from analyzer.stages import every_stage, report_stage
from analyzer.summarise.analyze import analyze
from analyzer.summarise.budget_evidence import run_evidence
from analyzer.verbs.check import check
from analyzer.verbs.compare import compare
from analyzer.verbs.export import export
from kvt_async.contract.errors import ContradictedError, DriftError
from kvt_async.contract.load import load_settings
from kvt_async.contract.schema import connect_for_writing
from tests.analyzer.conftest import Experiment, Opened
from tests.analyzer.read.test_budget_evidence import answers
from tests.analyzer.synthetic import make_db

ALLOW = "analysis.allow_drift=true"
RUN = "synthetic-g1-snapkv-aware-{}-r0"
NOW = "2026-01-02T03:04:06Z"


def insert(conn: sqlite3.Connection, sql: str, *values: Any) -> None:
    """Facts, as the runner would add them; who holds the analyzer's connection can't."""
    writer = connect_for_writing(path_of(conn))
    try:
        writer.execute(sql, values)
    finally:
        writer.close()


def session(conn: sqlite3.Connection) -> str:
    return str(conn.execute("SELECT session_id FROM sessions").fetchone()[0])


def probe(conn: sqlite3.Connection, verdict: str, in_session: str | None = None, detail: str = "{}") -> None:
    insert(
        conn,
        "INSERT INTO probes (session_id, n, kind, level, prompt_sha256, answer, verdict, detail_json, created_at) "
        "VALUES (?, (SELECT count(*) FROM probes), 'canary', 'snapkv/aware 0.2', '', NULL, ?, ?, ?)",
        in_session or session(conn), verdict, detail, NOW,
    )  # fmt: skip


def snapshot(conn: sqlite3.Connection, phase: str, **identity: Any) -> None:
    insert(
        conn,
        "INSERT INTO server_snapshots (session_id, n, run_id, taken_at, phase, endpoint, identity_json) "
        "VALUES (?, (SELECT count(*) FROM server_snapshots), NULL, ?, ?, 'http://127.0.0.1:8000/v1', ?)",
        session(conn), NOW, phase, json.dumps(identity),
    )  # fmt: skip


def look(
    conn: sqlite3.Connection, phase: str, raw: Any, value: float | None, *, budget: str = "0.5", **more: Any
) -> None:
    said = {RUN.format(budget): {"source": "metric", "read_from": "metric kept", "raw": raw, "value": value}}
    snapshot(conn, phase, models=["a"], evidence=said, **more)


def scored(experiment: Experiment, *overrides: str, **asked: Any) -> Opened:
    conn, settings = experiment(overrides=overrides, n_bins=2, n_per_bin=8, **asked)
    score(conn, "synthetic")
    return conn, settings


def evidence(conn: sqlite3.Connection) -> dict[float, tuple[str, str]]:
    rows = conn.execute(
        "SELECT kv_budget, status, reason FROM run_evidence JOIN runs USING (run_id) WHERE repeat_idx = 0"
    )
    return {row[0]: (row[1], row[2]) for row in rows}


# ---- the canary


@pytest.mark.parametrize(("verdict", "status"), [("alive", "verified"), ("dead", "unverified"),
                                                 ("inconclusive", "unverified")])  # fmt: skip
def test_a_canary_that_is_not_alive_leaves_echoed_budgets_unverified(
    experiment: Experiment, verdict: str, status: str
) -> None:
    conn, settings = scored(experiment, p_correct=1.0)
    probe(conn, verdict)
    analyze(conn, settings)
    assert {b: s for b, (s, _) in evidence(conn).items()} == {1.0: "full", 0.5: status, 0.2: status}
    if status == "unverified":
        assert "canary" in evidence(conn)[0.5][1]
    summary = conn.execute("SELECT DISTINCT evidence FROM transition_summary").fetchall()
    assert [tuple(row) for row in summary] == [(status,)]


def test_a_canary_never_lifts_a_contradiction_and_says_nothing_of_sessions_that_sent_nothing(
    experiment: Experiment,
) -> None:
    conn, settings = scored(experiment, evidence="contradicted")
    probe(conn, "dead")
    with pytest.raises(ContradictedError):
        analyze(conn, settings)
    quiet, settings = scored(experiment)
    insert(
        quiet,
        "INSERT INTO sessions (session_id, exp_group_id, generation, started_at, command, config_yaml, config_sha256, "
        "kvt_version, python, platform) VALUES ('refused', 'synthetic', 1, ?, '', '', '', '', '', '')",
        NOW,
    )
    probe(quiet, "dead", "refused")
    analyze(quiet, settings)
    assert evidence(quiet)[0.5][0] == "verified"


def test_a_canary_that_judged_budgets_of_another_time_says_nothing_of_these(experiment: Experiment) -> None:
    conn, settings = scored(experiment, p_correct=1.0)
    probe(conn, "dead", detail='{"reason": "", "when": "decode"}')
    analyze(conn, settings)
    assert {b: s for b, (s, _) in evidence(conn).items()} == {1.0: "full", 0.5: "verified", 0.2: "verified"}
    (line,) = [
        line
        for a in first_screen(read_results(conn, "synthetic"), settings).answers
        for line in a.lines
        if line.startswith("Canary before the sweep")
    ]
    assert line == "Canary before the sweep: dead while answers are generated (nothing was evicted then)."


def test_a_group_analysed_before_is_analysed_anew_when_the_canary_says_otherwise(experiment: Experiment) -> None:
    conn, settings = scored(experiment, p_correct=1.0)
    assert analyze(conn, settings).recomputed
    assert not analyze(conn, settings).recomputed
    probe(conn, "inconclusive")
    assert analyze(conn, settings).recomputed
    assert evidence(conn)[0.2][0] == "unverified"
    assert not analyze(conn, settings).recomputed


def test_a_dead_knob_is_on_the_report_the_charts_and_in_the_terminal(experiment: Experiment) -> None:
    conn, settings = scored(experiment, p_correct=1.0)
    probe(conn, "dead")
    analyze(conn, settings)
    facts = read_results(conn, "synthetic")
    assert [alarm.name for alarm in first_screen(facts, settings).alarms] == ["UNVERIFIED", "DEAD KNOB"]
    assert "DEAD KNOB" in note(facts)
    assert any(line.startswith("DEAD KNOB") for line in verdict_lines(read_results(conn, "synthetic"), settings))


@pytest.mark.parametrize("verdict", ["dead", "inconclusive"])
def test_a_canary_is_overruled_by_answers_that_changed_more_than_when_full_cache_was_run_again(
    experiment: Experiment, verdict: str
) -> None:
    conn, settings = scored(experiment)
    probe(conn, verdict)
    analyze(conn, settings)
    assert {b: s for b, (s, _) in evidence(conn).items()} == {1.0: "full", 0.5: "verified", 0.2: "verified"}
    facts = read_results(conn, "synthetic")
    told = first_screen(facts, settings)
    assert told.alarms == ()
    assert note(facts) == ""
    (caveat,) = [line for line in told.caveats if line.startswith("Canary overruled")]
    found = answers_beside_canary(conn, "synthetic", 1)
    assert found is not None
    assert (found.n, found.changed, found.changed_again, found.p) == (16, 12, 2, 0.5**10)
    assert "12 of 16 answers changed at snapkv/aware 0.2, and 2 when full cache was run again (p < 0.001" in caveat
    (line,) = [line for a in told.answers for line in a.lines if line.startswith("Canary before the sweep")]
    assert line.endswith("overruled by the sweep's own answers.")


def test_answers_that_change_as_much_without_the_budget_overrule_nothing(experiment: Experiment) -> None:
    conn, settings = scored(experiment, p_correct=0.5, flips=1.0)
    probe(conn, "dead")
    analyze(conn, settings)
    assert evidence(conn)[0.2][0] == "unverified"
    assert [alarm.name for alarm in first_screen(read_results(conn, "synthetic"), settings).alarms] == [
        "UNVERIFIED",
        "DEAD KNOB",
    ]


def test_without_a_control_there_is_nothing_to_overrule_a_canary_with(experiment: Experiment) -> None:
    conn, settings = scored(experiment, control_repeats=0)
    probe(conn, "dead")
    analyze(conn, settings)
    assert evidence(conn)[0.2][0] == "unverified"


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_sign_test_is_the_binomial_tail(more: int, less: int) -> None:
    expected = binom.sf(more - 1, more + less, 0.5) if more + less else 1.0
    assert sign_p(more, less) == pytest.approx(expected)


# ---- blocks of tokens


def test_a_server_that_keeps_whole_blocks_may_be_off_by_one_of_them(experiment: Experiment) -> None:
    """A block of 16 is 0.05 of 320 tokens, far beyond the 0.01 that holds elsewhere."""
    half = Run("r", "d", "snapkv", "snapkv", 0.5, "fraction", "question_aware", "body", False, 0, 0)
    for told, block, status in [
        (0.5 + 16 / 320, 16, "verified"),
        (0.5 + 16 / 320, 1, "contradicted"),
        (0.5 + 17 / 320, 16, "contradicted"),
        (0.5 - 16 / 320, 16, "verified"),
    ]:
        assert run_evidence(half, answers([told] * 20, prompt=320), RunServer(block)).status == status
    conn, _ = experiment(n_bins=1, n_per_bin=4, round_to=16)
    assert {round_to(conn, run) for run in runs.runs(conn, "synthetic", 1)} == {16}


# ---- looks at /metrics before and after


@pytest.mark.parametrize(
    ("raw", "value", "status", "words"),
    [
        ("0.5", 0.5, "verified", "(echoed)"),
        ("0.501", 0.501, "verified", "(echoed)"),
        ("None", None, "unverified", "metric kept said 0.5 before its requests and None after them"),
    ],
)
def test_a_second_look_that_shows_nothing_leaves_a_budget_unverified(
    experiment: Experiment, raw: str, value: float | None, status: str, words: str
) -> None:
    conn, settings = scored(experiment)
    look(conn, "start", "0.5", 0.5)
    look(conn, "end", raw, value)
    analyze(conn, settings)
    found, reason = evidence(conn)[0.5]
    assert (found, words in reason) == (status, True)
    assert evidence(conn)[0.2][0] == "verified"


def test_a_second_look_that_shows_another_budget_contradicts_it_also_in_a_group_analysed_before(
    experiment: Experiment,
) -> None:
    conn, settings = scored(experiment)
    look(conn, "start", "0.5", 0.5)
    analyze(conn, settings)
    look(conn, "end", "1.0", 1.0)
    with pytest.raises(ContradictedError, match=r"said 0\.5 before its requests and 1\.0 after them"):
        analyze(conn, settings)
    assert evidence(conn)[0.5][0] == "contradicted"


def test_a_server_that_was_gone_at_the_second_look_contradicts_nothing(experiment: Experiment) -> None:
    conn, settings = scored(experiment)
    look(conn, "start", "0.5", 0.5)
    look(conn, "end", "None", None, unreachable=True)
    analyze(conn, settings)
    assert evidence(conn)[0.5][0] == "verified"


# ---- drift


def drifted(experiment: Experiment, *overrides: str) -> Opened:
    conn, settings = scored(experiment, *overrides)
    snapshot(conn, "start", models=["a"], version={"version": "1.0"})
    snapshot(conn, "end", models=["a"], version={"version": "2.0"})
    return conn, settings


def test_a_group_whose_server_became_another_one_is_refused(experiment: Experiment) -> None:
    conn, settings = drifted(experiment)
    with pytest.raises(DriftError, match=r"from version=1\.0 to version=2\.0") as caught:
        analyze(conn, settings)
    assert caught.value.exit_code == 3
    assert ALLOW in str(caught.value)
    assert conn.execute("SELECT count(*) FROM transition_summary").fetchone()[0] == 0


def test_a_drift_seen_after_the_analysis_is_refused_too_and_one_allowed_is_analysed_anew(
    experiment: Experiment,
) -> None:
    conn, settings = scored(experiment, ALLOW)
    snapshot(conn, "start", models=["a"])
    assert analyze(conn, settings).recomputed
    snapshot(conn, "end", models=["b"])
    assert analyze(conn, settings).recomputed
    strict = settings.model_copy(update={"analysis": settings.analysis.model_copy(update={"allow_drift": False})})
    with pytest.raises(DriftError, match="model changed from a to b"):
        analyze(conn, strict)


@pytest.mark.parametrize("verb", ["check", "export", "compare"])
def test_check_export_and_compare_need_the_same_leave(experiment: Experiment, tmp_path: Path, verb: str) -> None:
    conn, allowed = drifted(experiment, ALLOW)
    analyze(conn, allowed)
    strict = allowed.model_copy(update={"analysis": allowed.analysis.model_copy(update={"allow_drift": False})})
    out = tmp_path / "rows.csv"
    asked: Callable[[bool], Any] = {
        "check": lambda allow: check(read_results(conn, "synthetic"), allowed if allow else strict),
        "export": lambda allow: export(conn, allowed if allow else strict, out),
        "compare": lambda allow: compare(conn, conn, allow_drift=allow),
    }[verb]
    with pytest.raises(DriftError, match="became another one"):
        asked(False)
    assert not out.exists()
    found = asked(True)
    if verb == "compare":
        assert any(line.startswith("DRIFT") and "version=2.0" in line for line in found.lines)


def test_an_allowed_drift_is_on_the_report_the_charts_and_in_the_terminal(experiment: Experiment) -> None:
    conn, settings = drifted(experiment, ALLOW)
    analyze(conn, settings)
    facts = read_results(conn, "synthetic")
    (alarm,) = [a for a in first_screen(facts, settings).alarms if a.name == "DRIFT"]
    assert "from version=1.0 to version=2.0" in alarm.says
    assert headline(facts, facts.verdict("snapkv/aware"), 0.05).startswith("Unverified, SnapKV (sees the question): ")
    assert {status for status, _ in evidence(conn).values()} == {"unverified"}
    assert "DRIFT" in note(facts)
    assert any(line.startswith("DRIFT") for line in verdict_lines(read_results(conn, "synthetic"), settings))


def test_levels_served_by_different_programs_are_unverified_and_said_to_be(experiment: Experiment) -> None:
    conn, settings = scored(experiment)
    for endpoint, version in (("http://a/v1", "1.0"), ("http://b/v1", "2.0")):
        insert(
            conn,
            "INSERT INTO server_snapshots (session_id, n, run_id, taken_at, phase, endpoint, identity_json) "
            "VALUES (?, (SELECT count(*) FROM server_snapshots), NULL, ?, 'start', ?, ?)",
            session(conn), NOW, endpoint, json.dumps({"models": ["reference"], "version": {"version": version}}),
        )  # fmt: skip
    analyze(conn, settings)
    assert {status for status, _ in evidence(conn).values()} == {"unverified"}
    told = first_screen(read_results(conn, "synthetic"), settings)
    (alarm,) = told.alarms
    assert alarm.name == "DIFFERENT SERVERS"
    assert "version=1.0 to version=2.0 (http://a/v1 and http://b/v1)" in alarm.says
    assert told.headline.startswith("Unverified, SnapKV (sees the question): ")
    (line,) = [line for a in told.answers for line in a.lines if line.startswith("Evidence:")]
    assert line == "Evidence: UNVERIFIED on every level: levels were served by different servers."


def test_a_report_of_a_drifted_group_needs_the_same_leave(tmp_path: Path) -> None:
    folder = tmp_path / "runs/synthetic"
    folder.mkdir(parents=True)
    db = make_db(folder / "kv_transition.sqlite", n_bins=2, n_per_bin=8)
    given = ("experiment.exp_group_id=synthetic", "analysis.resamples=500", f"output.runs_dir={tmp_path}/runs")
    settings = load_settings(None, given, environ={})
    every_stage(settings)
    report = folder / "report.md"
    assert "DRIFT" not in report.read_text("utf-8")
    conn = sqlite3.connect(db)
    snapshot(conn, "start", models=["a"])
    snapshot(conn, "end", models=["b"])
    conn.close()
    with pytest.raises(DriftError):
        report_stage(settings)
    allowed = load_settings(None, (*given, ALLOW), environ={})
    every_stage(allowed)
    report_stage(allowed)
    assert "DRIFT: the server became another one" in report.read_text("utf-8")
    specs = [path.read_text("utf-8") for path in (folder / "plots").glob("*.json")]
    assert len(specs) >= 3
    assert all("DRIFT: the server became another one" in text for text in specs)

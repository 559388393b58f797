"""Scoring a facts database: one row per finished request, labels and flags, and nothing done twice."""

import json
import sqlite3
from typing import Any

import polars as pl
import pytest

from analyzer.scoring import failure_labels
from analyzer.scoring.failure_labels import FLAGS
from analyzer.scoring.runs_to_score import SCORER_VERSION
from analyzer.scoring.score import Rules, score, score_frame
from analyzer.store import derived_rows
from kvt_async.contract.errors import ConfigError, ErrorType, MissingPrerequisiteError
from tests.analyzer.conftest import Experiment


def one(text: str | None, golds: list[str], *, metric: str = "f1", **given: Any) -> dict[str, Any]:
    """Score a single made-up outcome."""
    meta, opened = given.pop("meta", {}), given.pop("opened", False)
    row = {
        "request_id": "r:0",
        "example_id": "e",
        "text": text,
        "finish_reason": "stop",
        "prompt_tokens": 100,
        "identical": None,
        "first_divergence": None,
        "is_failure": text is None,
        "reasoned": False,
        "called": False,
        "error_type": None,
        "token_len": 100,
        "golds": golds,
        "golds_norm": [g.lower() for g in golds],
        "needed_json": json.dumps(meta),
        "read": None,
    } | given
    types: dict[str, pl.DataType | type[pl.DataType]] = {
        "text": pl.String,
        "golds": pl.List(pl.String),
        "golds_norm": pl.List(pl.String),
        "identical": pl.Int64,
        "read": pl.String,
        "finish_reason": pl.String,
        "error_type": pl.String,
    }
    frame = pl.DataFrame([row], schema_overrides=types)
    return score_frame(frame, Rules(metric, server_counts=True, opened=opened)).row(0, named=True)


def test_answers_that_differ_in_their_tool_calls_alone_part_at_the_end_of_their_text(experiment: Experiment) -> None:
    calls = {1.0: '[{"name": "f", "arguments": {}}]', 0.5: '[{"name": "g", "arguments": {}}]'}
    conn, _ = experiment(
        n_bins=1,
        n_per_bin=2,
        budgets=(1.0, 0.5),
        reply=lambda s, b, r, seq: {"text": "ab" * seq, "tool_calls_json": calls[b]},
    )
    score(conn, "synthetic")
    places = conn.execute(
        "SELECT first_divergence FROM scores JOIN requests USING (request_id) JOIN runs USING (run_id) "
        "WHERE kv_budget = 0.5 ORDER BY example_id"
    )
    assert [at for (at,) in places] == [0, 2]


def test_a_score_says_where_its_text_parts_from_full_caches(experiment: Experiment) -> None:
    texts = {1.0: ("the cat", "the cat", "the cat", "ü1"), 0.5: ("the cat", "the dog", "the", "ü2")}
    conn, _ = experiment(n_bins=1, n_per_bin=4, budgets=(1.0, 0.5), reply=lambda s, b, r, seq: {"text": texts[b][seq]})
    score(conn, "synthetic")
    parted = "SELECT first_divergence FROM scores JOIN requests USING (request_id) JOIN runs USING (run_id) "
    here = conn.execute(parted + "WHERE kv_budget = 0.5 ORDER BY example_id").fetchall()
    assert [at for (at,) in here] == [None, 4, 3, 1]
    assert {at for (at,) in conn.execute(parted + "WHERE is_full")} == {None}


@pytest.mark.parametrize(
    ("answer", "finish_reason", "cut"),
    [
        ("It is the one with", "length", True),
        ("", "length", True),
        ("amber, I think, or", "length", False),
        ("It is the one with", "stop", False),
        ("I'm sorry, I cannot", "length", False),
        ("It is the one with", None, False),
    ],
)
def test_cut_off_is_an_answer_that_ended_at_its_length_before_anything_right(
    answer: str, finish_reason: str | None, cut: bool
) -> None:
    row = one(answer, ["amber"], finish_reason=finish_reason) | {"finish_reason": finish_reason}
    frame = pl.DataFrame([row], schema_overrides={"failure_label": pl.String, "finish_reason": pl.String})
    assert frame.select(failure_labels.cut_off()).item() is cut


@pytest.mark.parametrize(
    ("error", "label"),
    [
        (ErrorType.TTFB_TIMEOUT, "TIMEOUT"),
        (ErrorType.IDLE_TIMEOUT, "TIMEOUT"),
        (ErrorType.HTTP, "ENGINE_ERROR"),
        (ErrorType.STREAM_CUT, "ENGINE_ERROR"),
        (ErrorType.RATE_LIMITED, "ENGINE_ERROR"),
        (ErrorType.CONTEXT_OVERFLOW, "CONTEXT_OVERFLOW"),
        (None, "UNKNOWN_FAILURE"),
        ("SomethingNew", "UNKNOWN_FAILURE"),
    ],
)
def test_a_request_without_a_response_scores_zero_and_its_label_says_why(error: Any, label: str) -> None:
    row = one(None, ["x"], error_type=error)
    assert (row["em"], row["f1"], row["score"], row["pred_norm"], row["failure_label"]) == (0, 0, 0, None, label)


def test_a_failed_request_scores_zero_even_where_no_answer_would_be_right() -> None:
    assert one(None, [], error_type=ErrorType.HTTP)["score"] == 0


@pytest.mark.parametrize(
    ("text", "golds", "given", "label"),
    [
        ("paris", ["paris"], {}, None),
        ("london", ["paris"], {}, None),  # wrong is not failed
        ("", ["paris"], {}, "EMPTY_OUTPUT"),
        (" \n", ["paris"], {}, "EMPTY_OUTPUT"),
        ("<think>hm", ["paris"], {}, "EMPTY_OUTPUT"),
        ("<think>paris or", ["paris"], {"finish_reason": "length"}, "TRUNCATED"),  # cut while reasoning
        ("", ["paris"], {"finish_reason": "length", "reasoned": True}, "TRUNCATED"),  # in a field of its own
        ("paris or", ["paris"], {"finish_reason": "length", "opened": True}, "TRUNCATED"),  # opened by the template
        (
            "paris or",
            ["paris"],
            {"finish_reason": "FinishReason.MAX-TOKENS", "opened": True},
            "TRUNCATED",
        ),  # in another's word
        ("paris or</think>paris", ["paris"], {"finish_reason": "length", "opened": True}, None),
        ("paris", ["paris"], {"opened": True}, None),  # not cut: the server took the reasoning away
        ("", [], {}, None),  # nothing was the right answer
        ("I'm sorry, but I can't help with that.", ["paris"], {}, "REFUSAL"),
        ("I cannot answer this question.", ["paris"], {}, "REFUSAL"),
        ("I can't answer: Paris", ["paris"], {}, None),  # right after all
        ("sorry about the wait: london", ["paris"], {}, None),
        ("it is the city of", ["paris"], {"finish_reason": "length"}, "TRUNCATED"),
        ("paris, the capital of", ["paris"], {"finish_reason": "length"}, None),  # cut, but right
        ("", ["paris"], {"finish_reason": "length"}, "EMPTY_OUTPUT"),  # priority
        ("the third", ["Paragraph 3"], {"metric": "retrieval"}, "FORMAT_ERROR"),
        ("4", ["Paragraph 3"], {"metric": "retrieval"}, None),
        ("none of these", ["Food"], {"metric": "classification", "meta": {"all_classes": ["Food"]}}, "FORMAT_ERROR"),
    ],
)
def test_labels_of_answers_are_conservative(
    text: str, golds: list[Any], given: dict[str, Any], label: str | None
) -> None:
    assert one(text, golds, **given)["failure_label"] == label


@pytest.mark.parametrize("metric", ["f1", "string_match_all", "qa_f1", "code_sim", "squad_f1"])
@pytest.mark.parametrize("golds", [["42"], []])
def test_a_reply_that_was_cut_while_reasoning_scores_nothing_even_where_nothing_is_right(
    metric: str, golds: list[Any]
) -> None:
    cut = "The text says 42 for mira, but the question is about"
    row = one(cut, golds, metric=metric, opened=True, finish_reason="length")
    assert (row["score"], row["em"], row["f1"], row["failure_label"]) == (0, 0, 0, "TRUNCATED")
    assert one(cut, ["42"], metric="string_match_all", finish_reason="length")["score"] == 1  # nobody opened it
    field = one("42", ["42"], metric="string_match_all", finish_reason="length", opened=True, reasoned=True)
    assert field["score"] == 1  # the server told reasoning and text apart


def test_a_label_leaves_an_answers_score_alone() -> None:
    """A reply that was cut keeps what it scores, and words of refusal that score are none."""
    whole, cut = (one("red cat", ["red dog"], finish_reason=reason) for reason in ("stop", "length"))
    assert (whole["failure_label"], cut["failure_label"]) == (None, "TRUNCATED")
    assert whole["score"] == cut["score"] == pytest.approx(0.5)
    refused, right = one("I cannot answer", ["no"]), one("I cannot answer", ["I cannot answer"])
    assert (refused["failure_label"], refused["score"]) == ("REFUSAL", 0)
    assert (right["failure_label"], right["score"]) == (None, 1)


def test_flags_are_observations_not_failures() -> None:
    loop = one("and so " * 30, ["x"])
    assert (loop["flags"], loop["failure_label"]) == ("repetition_loop", None)
    assert one("x", ["x"], identical=1)["flags"] == "identical_to_full"
    assert one("x", ["x"], prompt_tokens=50)["flags"] == "prompt_truncated"
    assert one("x", ["x"], prompt_tokens=97)["flags"] == ""  # a template's worth of difference
    assert set(FLAGS) == {"repetition_loop", "identical_to_full", "prompt_truncated"}


def test_only_the_first_line_counts_where_the_task_says_so() -> None:
    assert one("\nparis\nlondon", ["paris"], metric="qa_f1_first_line")["score"] == 1
    assert one("paris\nlondon", ["paris"], metric="qa_f1")["score"] < 1


def test_every_finished_request_gets_one_row_and_pending_ones_none(experiment: Experiment) -> None:
    conn, _ = experiment(n_per_bin=10, failures=0.1, partial=0.2)
    report = score(conn, "synthetic")
    finished = conn.execute("SELECT count(*) FROM outcomes WHERE state != 'pending'").fetchone()[0]
    assert conn.execute("SELECT count(*) FROM scores").fetchone()[0] == finished == report.scored
    assert report.pending == conn.execute("SELECT count(*) FROM outcomes WHERE state = 'pending'").fetchone()[0] > 0
    failed = conn.execute("SELECT count(*), sum(score) FROM scores WHERE pred_norm IS NULL").fetchone()
    assert tuple(failed) == (report.failures, 0.0)


def test_answers_made_right_score_one_and_wrong_ones_less(experiment: Experiment) -> None:
    conn, _ = experiment(p_correct={1.0: 1.0, 0.5: 1.0, 0.2: 0.0})
    score(conn, "synthetic")
    rows = conn.execute(
        "SELECT u.kv_budget, avg(s.score), avg(s.em) FROM scores s JOIN requests r USING (request_id) "
        "JOIN runs u USING (run_id) GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert [tuple(row) for row in rows] == [(0.2, 0.0, 0.0), (0.5, 1.0, 1.0), (1.0, 1.0, 1.0)]


def test_identical_answers_are_flagged_against_full_cache_but_never_at_full_cache(experiment: Experiment) -> None:
    conn, _ = experiment(p_correct=1.0)
    score(conn, "synthetic")
    rows = conn.execute(
        "SELECT u.is_full AND u.repeat_idx = 0, s.flags LIKE '%identical_to_full%', count(*) FROM scores s "
        "JOIN requests r USING (request_id) JOIN runs u USING (run_id) GROUP BY 1, 2"
    ).fetchall()
    assert {(row[0], row[1]) for row in rows} == {(1, 0), (0, 1)}


def test_a_second_scoring_does_nothing_and_a_new_fact_scores_its_run_again(experiment: Experiment) -> None:
    conn, _ = experiment(n_per_bin=4, partial=0.25)
    first = score(conn, "synthetic")
    assert score(conn, "synthetic").scored == 0
    run_id, request_id = conn.execute(
        "SELECT run_id, request_id FROM outcomes WHERE state = 'pending' AND run_id LIKE '%0.5%' LIMIT 1"
    ).fetchone()
    session = conn.execute("SELECT session_id FROM sessions").fetchone()[0]
    conn.execute(
        "INSERT INTO attempts VALUES (?,0,0,?,'t','http://x',200,'done',NULL,NULL,NULL,NULL,0.1)", (request_id, session)
    )
    conn.execute("INSERT INTO responses VALUES (?,0,'a',NULL,NULL,'stop',NULL,NULL,NULL,NULL,'t')", (request_id,))
    again = score(conn, "synthetic")
    assert again.runs_scored == (run_id,)
    assert again.skipped == first.scored - again.scored + 1


def test_a_retried_failure_loses_its_zero_until_it_is_finished_again(experiment: Experiment) -> None:
    conn, _ = experiment(n_per_bin=4, failures=0.3, n_bins=2)
    score(conn, "synthetic")
    request_id = conn.execute("SELECT request_id FROM failures LIMIT 1").fetchone()[0]
    session = conn.execute("SELECT session_id FROM sessions").fetchone()[0]
    conn.execute("INSERT INTO try_series VALUES (?,1,?,'t')", (request_id, session))
    score(conn, "synthetic")
    assert conn.execute("SELECT count(*) FROM scores WHERE request_id = ?", (request_id,)).fetchone()[0] == 0


def test_scores_of_another_scorer_version_are_made_anew(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn, _ = experiment(n_bins=1, n_per_bin=3)
    score(conn, "synthetic")
    for module in ("score", "runs_to_score"):
        monkeypatch.setattr(f"analyzer.scoring.{module}.SCORER_VERSION", SCORER_VERSION + "-next")
    assert score(conn, "synthetic").scored > 0
    assert {row[0] for row in conn.execute("SELECT scorer_version FROM scores")} == {SCORER_VERSION + "-next"}


def test_one_run_alone_can_be_scored(experiment: Experiment) -> None:
    conn, _ = experiment(n_per_bin=4)
    run_id = conn.execute("SELECT run_id FROM runs WHERE kv_budget = 0.5").fetchone()[0]
    assert score(conn, "synthetic", run_id=run_id).runs_scored == (run_id,)
    with pytest.raises(MissingPrerequisiteError, match="no run 'nope'"):
        score(conn, "synthetic", run_id="nope")


def test_a_group_that_was_never_run_is_refused_with_the_groups_there_are(experiment: Experiment) -> None:
    conn, _ = experiment(n_bins=1, n_per_bin=2)
    with pytest.raises(MissingPrerequisiteError, match="holds synthetic") as caught:
        score(conn, "other")
    assert "kvt sweep" in caught.value.do


def cut_answers(
    conn: sqlite3.Connection, *, says: str, prompt: dict[str, Any] | None = None, sent: dict[str, Any] | None = None
) -> set[tuple[Any, ...]]:
    """(budget, score) of cut answers that hold the gold and no mark; full cache's others begin with `says`."""
    for guard in ("responses_no_update", "datasets_no_update", "task_contracts_no_replace", "task_contracts_no_delete"):
        conn.execute(f"DROP TRIGGER {guard}")
    conn.execute("UPDATE responses SET finish_reason = 'length' WHERE request_id LIKE '%:0'")
    conn.execute("UPDATE responses SET text = ? || text WHERE finish_reason = 'stop'", (says,))
    if prompt is not None:
        conn.execute("UPDATE datasets SET prompt_json = json_patch(prompt_json, ?)", (json.dumps(prompt),))
    if sent is not None:
        contract = json.dumps({"decoding.extra_body": {"chat_template_kwargs": sent}})
        conn.execute(
            "INSERT OR REPLACE INTO task_contracts SELECT DISTINCT exp_group_id, generation, d.task, dataset_id, ?, "
            "'', 1, '' FROM runs u JOIN datasets d USING (dataset_id)",
            (contract,),
        )
    score(conn, "synthetic")
    rows = conn.execute(
        "SELECT u.kv_budget, s.score, s.failure_label FROM responses p JOIN requests r USING (request_id) "
        "JOIN runs u USING (run_id) JOIN scores s USING (request_id) WHERE p.finish_reason = 'length'"
    )
    return {tuple(row) for row in rows}


INSIDE = {(1.0, 0.0, "TRUNCATED"), (0.5, 0.0, "TRUNCATED")}
OUTSIDE = {(1.0, 1.0, None), (0.5, 1.0, None)}


@pytest.mark.parametrize(
    ("given", "read_as"),
    [
        ({"says": ""}, OUTSIDE),
        ({"says": "hm</think>"}, INSIDE),  # full cache's answers close what they never opened
        ({"says": "<think>hm</think>"}, OUTSIDE),
        ({"says": "", "prompt": {"reasoning_tag": "<think>"}}, INSIDE),  # the template opens it
        ({"says": "", "prompt": {"reasoning_tag": "<think>"}, "sent": {"thinking": False}}, OUTSIDE),  # not this one
        ({"says": "", "prompt": {"reasoning_tag": "[THINK]", "chat_template_kwargs": {"on": 1}}, "sent": {"on": 1}},
         INSIDE),
    ],
)  # fmt: skip
def test_a_cut_answer_without_marks_is_reasoning_where_the_template_opened_it(
    experiment: Experiment, given: dict[str, Any], read_as: Any
) -> None:
    conn, _ = experiment(n_bins=1, n_per_bin=6, p_correct=1.0, budgets=(1.0, 0.5))
    assert cut_answers(conn, **given) == read_as


@pytest.mark.parametrize(("says", "read_as"), [("", OUTSIDE), ("hm</think>", INSIDE)])
def test_many_whole_answers_that_never_close_reasoning_overrule_the_template(
    experiment: Experiment, says: str, read_as: Any
) -> None:
    conn, _ = experiment(n_bins=1, n_per_bin=30, p_correct=1.0, budgets=(1.0, 0.5))
    assert cut_answers(conn, says=says, prompt={"reasoning_tag": "<think>"}) == read_as


def test_an_unknown_metric_stops_before_anything_is_written(experiment: Experiment) -> None:
    conn, _ = experiment(n_bins=1, n_per_bin=2, metric="bleu")
    with pytest.raises(ConfigError, match="bleu"):
        score(conn, "synthetic")
    assert conn.execute("SELECT count(*) FROM scores").fetchone()[0] == 0


def test_a_metric_named_by_a_user_cannot_end_the_statement_that_writes_it(experiment: Experiment) -> None:
    conn, _ = experiment(n_bins=1, n_per_bin=2, budgets=(1.0, 0.5))
    conn.execute("DELETE FROM scores")
    (request_id,) = conn.execute("SELECT request_id FROM requests LIMIT 1").fetchone()
    row = (request_id, 1.0, 1.0, 1.0, "it's", None, None, "", None)
    derived_rows.write_scores(conn, [row], metric="o'f1", scorer_version="2")
    assert [tuple(row) for row in conn.execute("SELECT metric, pred_norm FROM scores")] == [("o'f1", "it's")]


CALL = '[{"name": "f", "arguments": "{}", "id": "a"}]'
BROKEN = '[{"name": "f", "arguments": "{"}]'


def calling(calls: str | None, text: str = "", **given: Any) -> tuple[float, str | None]:
    """Score and label of a reply under `tool_call`, where f() is right."""
    row = one(text, ['{"name": "f", "arguments": {}}'], metric="tool_call", called=bool(calls), read=calls, **given)
    return row["score"], row["failure_label"]


def test_a_reply_of_tool_calls_alone_is_no_empty_output() -> None:
    assert calling(CALL) == (1.0, None)
    assert calling(CALL.replace("f", "g")) == (0.0, None)
    assert calling(None) == (0.0, "EMPTY_OUTPUT")
    assert calling(None, "It is sunny.") == (0.0, None)
    other = one("", ["paris"], called=True)  # whatever the metric
    assert (other["score"], other["failure_label"]) == (0.0, None)


def test_calls_come_before_what_stands_in_the_text() -> None:
    assert calling(CALL, '{"name": "g", "arguments": {}}') == (1.0, None)
    assert calling(CALL.replace("f", "g"), '{"name": "f", "arguments": {}}') == (0.0, None)
    assert calling(None, '<think>hm</think>{"name": "f", "arguments": {}}') == (1.0, None)


def test_a_call_that_cannot_be_read_is_a_format_error_unless_it_was_cut() -> None:
    assert calling(BROKEN) == (0.0, "FORMAT_ERROR")
    assert calling(BROKEN, finish_reason="length") == (0.0, "TRUNCATED")
    assert calling(BROKEN, finish_reason="length", reasoned=True) == (0.0, "TRUNCATED")
    assert calling(None, finish_reason="length", reasoned=True) == (0.0, "TRUNCATED")
    assert calling(CALL, finish_reason="length", reasoned=True) == (1.0, None)  # it was whole
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "required": ["x"]}}}]
    assert calling(CALL, meta={"tools": tools}) == (0.0, "FORMAT_ERROR")


def test_where_no_call_is_right_a_failed_request_is_still_wrong() -> None:
    assert one("no", [], metric="tool_call")["score"] == 1
    assert one(None, [], metric="tool_call", error_type="http")["score"] == 0
    assert one("", [], metric="tool_call", finish_reason="length", reasoned=True)["score"] == 0  # cut while reasoning


@pytest.mark.parametrize(
    ("calls", "flags"),
    [
        ('[{"name": "f", "arguments": "{}"}]', ""),
        ('[{"name": "f", "arguments": "{"}]', "call_unreadable"),
        ('[{"name": "f", "arguments": "{\\"n\\": \\"two\\"}"}]', "call_schema"),
        ('[{"name": "g", "arguments": "{}"}]', "call_name"),
        (None, "call_name"),
        ('[{"name": "f", "arguments": "{\\"n\\": 2}"}]', "call_arguments"),
    ],
)
def test_the_first_fault_of_tool_calls_is_a_flag(calls: str | None, flags: str) -> None:
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    other = {"name": "g", "parameters": {"type": "object"}}
    offered = {"tools": [{"type": "function", "function": function} for function in (tool, other)]}
    golds, needed = ['{"name": "f", "arguments": {}}'], json.dumps(offered)
    row = one("", golds, metric="tool_call", called=bool(calls), read=calls, needed_json=needed)
    assert row["flags"] == flags
    failed = one(None, golds, metric="tool_call", error_type="http", needed_json=needed)
    assert failed["flags"] == ""  # it made no call, right or wrong

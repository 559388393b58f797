"""Prompts of later turns that were made of a run's own answers, made again from the stored answers."""

import json
import sqlite3
from typing import Any

from analyzer.read.later_turns import has_own_history, own_answers, with_own_answers
from analyzer.verify.differences import Difference, Findings
from kvt_async.contract.formulas.conversation import Turn, turn_of
from kvt_async.contract.formulas.prompt_text import (
    DEFAULT_TEMPLATE,
    context_parts,
    messages_sha256,
    render,
    tool_fields,
    turn_prefix,
)
from kvt_async.contract.settings_kv import cuts_prompts

_EXAMPLES = """SELECT e.example_id, x.question, x.context, x.meta_json FROM manifest_entries e
    JOIN examples x ON x.dataset_id = e.dataset_id AND x.example_id = e.example_id
    WHERE e.dataset_id = ? ORDER BY e.seq"""
_REQUESTS = "SELECT request_id, sample_idx, prompt_sha256 FROM requests WHERE run_id = ? AND example_id = ?"
_FAILED_UNSENT = "SELECT 1 FROM give_ups WHERE request_id = ? AND reason = 'earlier_turn_failed'"


def check_own_prompts(conn: sqlite3.Connection, findings: Findings) -> None:
    """Every later turn was sent with the stored answers to the turns before it, and with all of them."""
    runs: dict[str, list[str]] = {}
    for run_id, dataset, policy in conn.execute("SELECT run_id, dataset_id, kv_policy FROM runs").fetchall():
        if has_own_history(conn, run_id) and not cuts_prompts(policy):
            runs.setdefault(dataset, []).append(run_id)
    for dataset, of_dataset in runs.items():
        (prompt,) = conn.execute("SELECT prompt_json FROM datasets WHERE dataset_id = ?", (dataset,)).fetchone()
        rule, before, talk = json.loads(prompt), dict[str, int](), ""
        for example_id, question, context, meta_json in conn.execute(_EXAMPLES, (dataset,)):
            turn = turn_of(json.loads(meta_json)) or Turn(example_id, 0)
            if turn.conversation != talk:
                before, talk = {}, turn.conversation
            if turn.turn:
                example = (example_id, question, context, meta_json)
                for run_id in of_dataset:
                    _check(conn, findings, run_id, example, rule, before)
            before[example_id] = turn.turn


def _check(
    conn: sqlite3.Connection,
    findings: Findings,
    run_id: str,
    example: tuple[str, str, str, str],
    rule: dict[str, Any],
    before: dict[str, int],
) -> None:
    example_id, question, context, meta_json = example
    for request_id, sample_idx, stored in conn.execute(_REQUESTS, (run_id, example_id)).fetchall():
        findings.count("requests", 1)
        key = {"request_id": request_id}
        if stored == "":
            if conn.execute(_FAILED_UNSENT, (request_id,)).fetchone() is None:
                findings.add(Difference("requests", key, "prompt_sha256", "none", "that of the prompt sent"))
            continue
        answers = own_answers(conn, run_id, sample_idx, before, opened=bool(rule.get("reasoning_tag")))
        if len(answers) < len(before):
            findings.add(Difference("requests", key, "example_id", example_id, "a turn behind answered ones"))
            continue
        meta = with_own_answers(meta_json, answers)
        template, parts = rule.get("template") or DEFAULT_TEMPLATE, context_parts(meta, context)
        prefix = turn_prefix(rule.get("answer_prefix"), meta)
        messages, _ = render(template, context, question, meta["turns"], rule.get("system"), parts, prefix)
        sent = messages_sha256(messages, tool_fields(meta))
        if sent != stored:
            findings.add(Difference("requests", key, "prompt_sha256", stored, sent))

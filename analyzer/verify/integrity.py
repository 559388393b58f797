"""Are the facts whole? SQLite's own check, hashes, the account of requests, and the guards of the fact tables.

Facts can't be computed again, so this finds what contradicts itself: a prompt that no longer has its hash, a request
with two outcomes, a response without the try that gave it. Rows are streamed.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyzer.read.drift import group_drifts
from analyzer.read.later_turns import has_own_history
from analyzer.verify.differences import Difference, Findings
from analyzer.verify.turn_prompts import check_own_prompts
from kvt_async.contract.formulas.conversation import cluster_unit
from kvt_async.contract.formulas.prompt_text import (
    cluster_sha256,
    messages_sha256,
    stored_messages,
    tool_fields,
)
from kvt_async.contract.paths import manifest_path
from kvt_async.contract.schema_tables import FACT_TABLES
from kvt_async.contract.settings_kv import cuts_prompts

_PROMPTS = """
SELECT e.example_id, e.prompt_sha256, e.prompt_truncated, x.context_sha256, x.question, x.context, x.meta_json
FROM manifest_entries e JOIN examples x ON x.dataset_id = e.dataset_id AND x.example_id = e.example_id
WHERE e.dataset_id = ? ORDER BY e.seq
"""
_OTHER_PROMPT = """
SELECT u.kv_policy, u.run_id, r.turn_idx, r.request_id, r.prompt_sha256, e.prompt_sha256 FROM runs u
JOIN requests r ON r.run_id = u.run_id
JOIN manifest_entries e ON e.dataset_id = u.dataset_id AND e.example_id = r.example_id
WHERE r.prompt_sha256 <> e.prompt_sha256
AND NOT EXISTS (SELECT 1 FROM bench_stages b WHERE b.run_id = u.run_id AND b.salt IS NOT NULL)
"""


@dataclass(frozen=True)
class Contradiction:
    """Rows that can't be right: `query` gives the value of `key` and of `column`; `right` is what the latter may be."""

    table: str
    key: str
    column: str
    right: str
    query: str


_CONTRADICTIONS = (
    Contradiction(
        table="responses",
        key="request_id",
        column="attempt_idx",
        right="a try that succeeded",
        query="SELECT p.request_id, p.attempt_idx FROM responses p LEFT JOIN attempts a ON a.request_id = p.request_id "
        "AND a.attempt_idx = p.attempt_idx WHERE a.request_id IS NULL OR a.error_type IS NOT NULL",
    ),
    Contradiction(
        table="give_ups",
        key="request_id",
        column="reason",
        right="no failure: the request was answered in that try series or before",
        query="SELECT g.request_id, g.reason FROM give_ups g JOIN responses p ON p.request_id = g.request_id "
        "JOIN attempts a ON a.request_id = p.request_id AND a.attempt_idx = p.attempt_idx "
        "WHERE a.series_idx <= g.series_idx",
    ),
    Contradiction(
        table="requests",
        key="request_id",
        column="example_id",
        right="an example of the run's manifest",
        query="SELECT r.request_id, r.example_id FROM runs u JOIN requests r ON r.run_id = u.run_id "
        "LEFT JOIN manifest_entries e ON e.dataset_id = u.dataset_id AND e.example_id = r.example_id "
        "WHERE e.example_id IS NULL "
        "AND EXISTS (SELECT 1 FROM manifest_entries m WHERE m.dataset_id = u.dataset_id)",
    ),
)


def check_facts(
    conn: sqlite3.Connection, data_dir: Path | None = None, progress: Callable[[str], None] = lambda _: None
) -> Findings:
    """Every place where stored facts contradict themselves, in the whole database and the manifests in `data_dir`."""
    findings = Findings()
    progress("the file and its keys")
    problems = [str(row[0]) for row in conn.execute("PRAGMA integrity_check(20)")]
    for problem in problems if problems != ["ok"] else []:
        findings.add(Difference("database", {"check": "integrity_check"}, "result", problem, "ok"))
    for table, rowid, parent, _ in conn.execute("PRAGMA foreign_key_check"):
        findings.add(Difference(table, {"rowid": rowid}, "key", f"a row of {parent} that isn't there", "a row that is"))
    _guards(conn, findings)
    progress("hashes")
    _hashes(conn, findings)
    if data_dir is not None:
        _manifests(conn, findings, data_dir)
    _prompts(conn, findings)
    check_own_prompts(conn, findings)
    progress("outcomes")
    for rule in _CONTRADICTIONS:
        for name, stored in conn.execute(rule.query):
            findings.add(Difference(rule.table, {rule.key: name}, rule.column, stored, rule.right))
    _account(conn, findings)
    return findings


def check_drift(conn: sqlite3.Connection, group: str, generation: int, *, allowed: bool) -> Findings:
    """Whether the server stayed one server; a drift that the analysis allowed is a note."""
    findings = Findings()
    for drift in group_drifts(conn, group, generation):
        if allowed:
            findings.notes.append(f"DRIFT, allowed by analysis.allow_drift: {drift.key}: {drift.what}")
        else:
            key = {"server": drift.key, "session_id": drift.session_id}
            findings.add(Difference("server_snapshots", key, "identity_json", drift.what, "one server"))
    return findings


def _guards(conn: sqlite3.Connection, findings: Findings) -> None:
    names = {str(row[0]) for row in conn.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'trigger')")}
    for table in FACT_TABLES:
        for verb in ("update", "delete") if table in names else ():
            if f"{table}_no_{verb}" not in names:
                key = {"trigger": f"{table}_no_{verb}"}
                findings.add(Difference("database", key, "guard", "removed: facts could be changed", "in place"))


def _hashes(conn: sqlite3.Connection, findings: Findings) -> None:
    for group, generation, text, stored in conn.execute(
        "SELECT exp_group_id, generation, contract_json, contract_sha256 FROM experiments"
    ):
        key = {"exp_group_id": group, "generation": generation}
        _hash(findings, "experiments", key, "contract_sha256", stored, _sha256(text))
    for group, generation, task, text, stored in conn.execute(
        "SELECT exp_group_id, generation, task, contract_json, contract_sha256 FROM task_contracts"
    ):
        key = {"exp_group_id": group, "generation": generation, "task": task}
        _hash(findings, "task_contracts", key, "contract_sha256", stored, _sha256(text))
    for session, text, stored in conn.execute("SELECT session_id, config_yaml, config_sha256 FROM sessions"):
        _hash(findings, "sessions", {"session_id": session}, "config_sha256", stored, _sha256(text))
    for dataset, version, n in conn.execute("SELECT dataset_id, version, n_entries FROM manifests"):
        (have,) = conn.execute(
            "SELECT count(*) FROM manifest_entries WHERE dataset_id = ? AND version <= ?", (dataset, version)
        ).fetchone()
        _hash(findings, "manifests", {"dataset_id": dataset, "version": version}, "n_entries", n, have)


def _manifests(conn: sqlite3.Connection, findings: Findings, data_dir: Path) -> None:
    """Every manifest.json that is at hand is the one that was stored, unless it has grown since."""
    for dataset, version, stored in conn.execute(
        "SELECT dataset_id, max(version), sha256 FROM manifests GROUP BY dataset_id"
    ):
        name = re.sub(r"__g\d+$", "", dataset)
        file = manifest_path(str(data_dir), name)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or not file.is_file():
            continue
        in_file, content = _manifest(file)
        key = {"dataset_id": dataset, "version": version}
        if in_file is not None and in_file > version:
            findings.notes.append(f"{file} has grown to version {in_file} since; version {version} is stored")
        else:
            _hash(findings, "manifests", key, "sha256", stored, content)


def _manifest(file: Path) -> tuple[int | None, str]:
    """(its version, SHA-256 of all before the line that holds its own hash)."""
    digest, version = hashlib.sha256(), None
    with file.open("rb") as lines:
        for line in lines:
            if version is None and line.startswith(b'"version": '):
                version = int(line[len(b'"version": ') :].strip(b",\n "))
            if line.startswith(b'"sha256": '):
                break
            digest.update(line)
    return version, digest.hexdigest()


def _prompts(conn: sqlite3.Connection, findings: Findings) -> None:
    """Every prompt is rendered again. A context that was cut keeps the cluster of the whole one, which is gone."""
    for dataset, text in conn.execute("SELECT dataset_id, prompt_json FROM datasets").fetchall():
        rule: dict[str, Any] = json.loads(text)
        for row in conn.execute(_PROMPTS, (dataset,)):
            example, prompt_sha256, cut, context_sha256, question, context, meta = row
            of_row = json.loads(meta)
            messages = stored_messages(rule, context, question, of_row)
            key = {"dataset_id": dataset, "example_id": example}
            sent = messages_sha256(messages, tool_fields(of_row))
            if sent != prompt_sha256 and '"tools"' in meta:  # kvt of before took them for a note and sent none
                sent = messages_sha256(messages)
            _hash(findings, "manifest_entries", key, "prompt_sha256", prompt_sha256, sent)
            if not cut:
                cluster = cluster_sha256(context, cluster_unit(example, json.loads(meta)))
                _hash(findings, "examples", key, "context_sha256", context_sha256, cluster)
    own = {run_id: has_own_history(conn, run_id) for (run_id,) in conn.execute("SELECT run_id FROM runs").fetchall()}
    for policy, run_id, turn, request, stored, right in conn.execute(_OTHER_PROMPT):
        if not cuts_prompts(policy) and not (turn and own[run_id]):
            findings.add(Difference("requests", {"request_id": request}, "prompt_sha256", stored, right))


def _account(conn: sqlite3.Connection, findings: Findings) -> None:
    """Of every run, responses + failures + pending = requests, each counted by itself."""
    runs = conn.execute("SELECT run_id FROM runs ORDER BY run_id").fetchall()
    for (run,) in runs:
        states = dict(conn.execute("SELECT state, count(*) FROM outcomes WHERE run_id = ? GROUP BY 1", (run,)))
        (requests,) = conn.execute("SELECT count(*) FROM requests WHERE run_id = ?", (run,)).fetchone()
        counted = {state: states.get(state, 0) for state in ("response", "failure", "pending")}
        _hash(findings, "outcomes", {"run_id": run}, "requests", requests, sum(counted.values()))


def _hash(findings: Findings, table: str, key: dict[str, Any], column: str, stored: Any, recomputed: Any) -> None:
    findings.count(table, 1)
    if stored != recomputed:
        findings.add(Difference(table, key, column, stored, recomputed))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

"""A database as the report meets it: facts of a small sweep and derived rows written by hand.

The report only reads persisted results, so its tests say what is persisted and look at what people then read.
"""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from analyzer.results.results import Results, read_results
from kvt_async.contract.schema import connect_for_writing
from tests.analyzer.report_cases import DATASET, GROUP, SMALL, WHEN, Rows, Series
from tests.analyzer.report_derived import bin_stats, comparisons, compressed, drop, verdicts
from tests.tables import insert, insert_run, insert_session


def write(path: Path, rows: Rows | None = None) -> sqlite3.Connection:
    """Make the database at `path` and return the writing connection."""
    rows = rows or Rows()
    conn = connect_for_writing(path)
    conn.execute("BEGIN")
    _facts(conn, rows)
    _levels(conn, rows)
    verdicts(conn, rows)
    comparisons(conn, rows)
    for stage in ("score", "analyze"):
        insert(
            conn,
            "analysis_state",
            exp_group_id=GROUP,
            generation=1,
            stage=stage,
            scope="*",
            fingerprint="f",
            detail_json='{"resamples": 10000}',
        )
    conn.execute("COMMIT")
    return conn


def _facts(conn: sqlite3.Connection, rows: Rows) -> None:
    contract = {
        "dataset": {"name": "kvtext", "task": "retrieval", "dataset_id": DATASET},
        "model": {"name": "reference"},
        "tokenizer": {"name": "reference", "sha256": "3f9a" * 16},
        "prompt": {"template_version": "ab12" * 16},
        "decoding": {"temperature": 0, "max_tokens": 8},
    }
    insert(
        conn,
        "experiments",
        exp_group_id=GROUP,
        generation=1,
        created_at=WHEN,
        contract_json=json.dumps(contract),
        contract_sha256="cd34" * 16,
    )
    insert_session(
        conn,
        session_id="s1",
        exp_group_id=GROUP,
        started_at=WHEN,
        command="kvt sweep -c configs/experiments/demo.yaml",
        config_sha256="ef56" * 16,
        git_commit="0123456789abcdef",
        python="3.11.9",
        concurrency=8,
        order_seed=None,
    )
    insert(conn, "session_ends", session_id="s1", ended_at=WHEN, exit_code=0, reason="finished")
    insert(
        conn,
        "client_health",
        session_id="s1",
        created_at=WHEN,
        verdict=rows.client,
        error_bound_ms=rows.error_bound_ms,
        signal="loop lag p99",
        loop_lag_p50_ms=0.05,
        loop_lag_p99_ms=0.42,
        loop_lag_max_ms=2.1,
        send_lag_p99_ms=0.2,
        cpu_share=0.21,
        gc_pause_max_ms=0.6,
        detail_json="{}",
    )
    insert(
        conn,
        "server_snapshots",
        session_id="s1",
        taken_at=WHEN,
        phase="start",
        endpoint="http://127.0.0.1:8000/v1",
        identity_json='{"server": "kvt-reference/0.1.0", "models": ["reference"]}',
    )
    insert(
        conn,
        "probes",
        session_id="s1",
        kind="canary",
        level="snapkv 0.05",
        prompt_sha256="p",
        answer="101 102",
        verdict=rows.canary,
        detail_json="{}",
        created_at=WHEN,
    )
    insert(
        conn,
        "datasets",
        dataset_id=DATASET,
        name="kvtext",
        task="retrieval",
        tokenizer_name="reference",
        tokenizer_sha256="3f9a" * 16,
        source_revision="generator 1",
        metric="exact",
        prompt_json='{"template": "{context} {question}", "system": null, "endpoint": "chat"}',
        selection_json='{"n_bins": 5, "n_per_bin": 80}',
    )
    total = sum(_n(rows, b) for b in range(len(rows.edges)))
    insert(conn, "manifests", dataset_id=DATASET, version=1, sha256="9" * 64, created_at=WHEN, n_entries=total)
    seq = 0
    for bin_idx, (low, high) in enumerate(rows.edges):
        insert(conn, "bins", dataset_id=DATASET, bin_idx=bin_idx, lo_tokens=low, hi_tokens=high)
        for _ in range(_n(rows, bin_idx)):
            tokens = (low + high) // 2
            insert(
                conn,
                "examples",
                dataset_id=DATASET,
                example_id=f"e{seq}",
                question="what is the code of bado ?",
                context="the fox ran . the code of bado is 101 102 . the owl slept .",
                answers_json='["101 102"]',
                meta_json="{}",
                context_sha256=f"c{seq}",
            )
            insert(
                conn,
                "manifest_entries",
                dataset_id=DATASET,
                example_id=f"e{seq}",
                seq=seq,
                version=1,
                bin_idx=bin_idx,
                token_len=tokens,
                context_tokens=tokens - 9,
                original_tokens=tokens,
                prompt_truncated=0,
                prompt_sha256="p",
            )
            seq += 1


def _n(rows: Rows, bin_idx: int) -> int:
    return 0 if bin_idx == rows.empty_bin else rows.n


def _levels(conn: sqlite3.Connection, rows: Rows) -> None:
    below = compressed(rows)
    plan: list[tuple[Series, float, int, bool]] = []
    full = Series("full", lambda b, t: rows.full_acc, policy="full", evidence="full", fail=lambda b, t: rows.fail_full)
    if rows.baseline:
        plan.append((full, 1.0, 0, True))
    plan += [(s, b, 0, False) for s in rows.series for b in below]
    if rows.control_flips is not None and rows.baseline:
        plan.append((full, 1.0, 1, True))
    for level_idx, (series, budget, repeat, is_full) in enumerate(plan):
        _level(conn, rows, series, budget, repeat, is_full, level_idx, last=level_idx == len(plan) - 1)


def _level(
    conn: sqlite3.Connection,
    rows: Rows,
    series: Series,
    budget: float,
    repeat: int,
    is_full: bool,
    level_idx: int,
    *,
    last: bool,
) -> None:
    run_id = f"run{level_idx:02d}"
    rows.runs.append({"run_id": run_id, "series": series.name, "budget": budget, "repeat": repeat})
    insert_run(
        conn,
        run_id=run_id,
        exp_group_id=GROUP,
        dataset_id=DATASET,
        model_name="reference",
        base_url="http://127.0.0.1:8000/v1",
        series=series.name,
        kv_policy=series.policy,
        kv_budget=budget,
        kv_unit="fraction" if is_full else rows.unit,
        kv_mode=series.mode,
        is_full=int(is_full),
        kv_apply="none" if series.evidence == "unverified" else "body",
        repeat_idx=repeat,
        prompt_template_version="ab12" * 16,
        decoding_json='{"temperature": 0}',
        level_idx=level_idx,
        created_at=WHEN,
    )
    seen = is_full or series.evidence != "unverified"
    total, seq = 0, 0
    per_bin: list[tuple[int, int, int, float, float, float]] = []
    for bin_idx, (low, high) in enumerate(rows.edges):
        n, tokens = _n(rows, bin_idx), (low + high) // 2
        fraction = budget if is_full or rows.unit == "fraction" else min(1.0, budget / tokens)
        fail = series.fail(fraction, tokens)
        acc = min(rows.full_acc, series.curve(fraction, tokens)) * (1 - fail)
        per_bin.append((bin_idx, n, tokens, fraction, acc, fail))
        for k in range(n):
            request_id = f"{run_id}:{seq}"
            insert(
                conn,
                "requests",
                request_id=request_id,
                run_id=run_id,
                example_id=f"e{seq}",
                prompt_sha256="p",
                created_at=WHEN,
            )
            if not (last and seq < rows.pending):
                _outcome(conn, request_id, tokens, failed=k < round(fail * n), seq=seq)
                total += 1
            seq += 1
    filled = [p for p in per_bin if p[1]]
    for bin_idx, n, tokens, fraction, acc, fail in per_bin:
        bin_stats(conn, rows, run_id, bin_idx, n, tokens, fraction, acc, fail, is_full and repeat == 0, seen)
    mean = [sum(p[k] for p in filled) / max(1, len(filled)) for k in range(6)]
    bin_stats(
        conn,
        rows,
        run_id,
        -1,
        sum(p[1] for p in filled),
        int(mean[2]),
        mean[3],
        mean[4],
        mean[5],
        is_full and repeat == 0,
        seen,
    )
    status = "full" if is_full else series.evidence
    insert(
        conn,
        "run_evidence",
        run_id=run_id,
        status=status,
        source="echoed" if seen else "none",
        reason="the server echoed what it kept" if seen else "nothing shows that the server applied it",
        n=total,
        n_off=total if status == "contradicted" else 0,
        requested=budget,
        effective_p50=(1.0 if status == "contradicted" else budget) if seen else None,
        fingerprint="f",
    )
    whole = (-1, sum(p[1] for p in filled), 0, mean[3], mean[4], mean[5])
    for bin_idx, n, _, _, acc, fail in [*per_bin, whole]:
        if rows.baseline and (not is_full or repeat):
            drop(conn, rows, series, budget, repeat, bin_idx, run_id, n, acc, fail)


def _outcome(conn: sqlite3.Connection, request_id: str, tokens: int, *, failed: bool, seq: int) -> None:
    start = seq * 10_000_000
    insert(
        conn,
        "attempts",
        request_id=request_id,
        attempt_idx=0,
        series_idx=0,
        session_id="s1",
        started_at=WHEN,
        endpoint="http://127.0.0.1:8000/v1",
        http_status=None if failed else 200,
        end_state="timeout" if failed else "done",
        error_type="TotalTimeout" if failed else None,
        latency_s=0.02,
    )
    if failed:
        insert(conn, "give_ups", request_id=request_id, series_idx=0, reason="attempts_exhausted", created_at=WHEN)
        return
    insert(
        conn, "responses", request_id=request_id, attempt_idx=0, text="101 102", finish_reason="stop", created_at=WHEN
    )
    insert(
        conn,
        "telemetry",
        request_id=request_id,
        attempt_idx=0,
        scheduled_ns=start,
        start_ns=start,
        first_content_ns=start + 12_000_000,
        last_delta_ns=start + 20_000_000,
        end_ns=start + 20_000_000,
        stamp_source="transport",
        prompt_tokens=tokens,
        completion_tokens=3,
    )
    insert(
        conn,
        "scores",
        request_id=request_id,
        em=1.0,
        f1=1.0,
        score=1.0,
        metric="exact",
        pred_norm="101 102",
        gold_norm="101 102",
        flags="identical_to_full",
        scorer_version="1",
    )


def facts_of(tmp_path: Path, **changes: Any) -> Results:
    with closing(write(tmp_path / "facts.sqlite", Rows(**{**SMALL, **changes}))) as conn:
        return read_results(conn, GROUP, volumes=True)

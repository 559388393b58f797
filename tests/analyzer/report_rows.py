"""A database as the report meets it: facts of a small sweep and derived rows written by hand.

The report only reads persisted results, so its tests say what is persisted and look at what people then read. The
numbers come from closed formulas (accuracy as a function of budget and kept tokens), not from a simulated pipeline.
"""

import json
import math
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvt_async.contract.schema import connect_for_writing

GROUP, DATASET, WHEN = "demo", "kvtext__retrieval", "2026-01-02T03:04:05.000Z"
BUDGETS = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
EDGES = ((128, 240), (241, 480), (481, 860), (861, 1400), (1401, 2048))
BYTES_PER_TOKEN = 4 * 2 * 2 * 32 * 4
Curve = Callable[[float, int], float]  # (budget, prompt tokens) -> accuracy


def cliff(kept_tokens: float) -> Curve:
    return lambda budget, tokens: 1 / (1 + math.exp(-(budget * tokens - kept_tokens) / (kept_tokens * 0.12)))


def line(budget: float, tokens: int) -> float:
    return budget


def steep(budget: float, tokens: int) -> float:
    return budget**4


@dataclass(frozen=True)
class Series:
    """One series; `acc` overrides the curve, `verdict` the verdict that the curve would give."""

    name: str
    curve: Curve
    policy: str = "snapkv"
    mode: str = "question_aware"
    evidence: str = "verified"
    verdict: str | None = None
    fail: Curve = lambda budget, tokens: 0.0


DEMO = (
    Series("snapkv aware", cliff(48)),
    Series("snapkv agnostic", lambda b, t: 0.9 * b**1.2 + 0.1 * (b == 1), mode="question_agnostic"),
    Series("streaming_llm", line, policy="streaming_llm"),
    Series("random", steep, policy="random"),
)


@dataclass
class Rows:
    """Everything that differs between two test databases."""

    series: Sequence[Series] = DEMO
    budgets: Sequence[float] = BUDGETS
    edges: Sequence[tuple[int, int]] = EDGES
    n: int = 80
    unit: str = "fraction"
    empty_bin: int | None = None
    baseline: bool = True
    control_flips: int | None = 0
    pending: int = 0
    cached: float | None = 0.98
    client: str = "client-clean"
    full_acc: float = 0.996
    margin: float = 0.05
    fail_full: float = 0.0
    runs: list[dict[str, Any]] = field(default_factory=list)


def insert(conn: sqlite3.Connection, table: str, **row: Any) -> None:
    columns = ", ".join(f'"{name}"' for name in row)
    conn.execute(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))


def wilson(p: float, n: int, z: float = 1.96) -> tuple[float, float]:
    centre, half = p + z * z / 2 / n, z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def write(path: Path, rows: Rows | None = None) -> sqlite3.Connection:
    """Make the database at `path` and return the writing connection."""
    rows = rows or Rows()
    conn = connect_for_writing(path)
    conn.execute("BEGIN")
    _facts(conn, rows)
    _levels(conn, rows)
    _verdicts(conn, rows)
    for stage in ("score", "analyze"):
        insert(
            conn, "analysis_state", exp_group_id=GROUP, generation=1, stage=stage, scope="*", fingerprint="f",
            detail_json='{"resamples": 10000}',
        )  # fmt: skip
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
        conn, "experiments", exp_group_id=GROUP, generation=1, created_at=WHEN, contract_json=json.dumps(contract),
        contract_sha256="cd34" * 16,
    )  # fmt: skip
    insert(
        conn, "sessions", session_id="s1", exp_group_id=GROUP, generation=1, started_at=WHEN,
        command="kvt sweep -c configs/experiments/demo.yaml", config_yaml="a: 1\n", config_sha256="ef56" * 16,
        kvt_version="0.1.0", git_commit="0123456789abcdef", python="3.11.9", platform="Linux", engine_loop="truth",
        concurrency=8, order_seed=None,
    )  # fmt: skip
    insert(conn, "session_ends", session_id="s1", ended_at=WHEN, exit_code=0, reason="finished")
    insert(
        conn, "client_health", session_id="s1", created_at=WHEN, verdict=rows.client, error_bound_ms=0.42,
        signal="loop lag p99", loop_lag_p50_ms=0.05, loop_lag_p99_ms=0.42, loop_lag_max_ms=2.1, send_lag_p99_ms=0.2,
        cpu_share=0.21, gc_pause_max_ms=0.6, detail_json="{}",
    )  # fmt: skip
    insert(
        conn, "server_snapshots", session_id="s1", taken_at=WHEN, phase="start", endpoint="http://127.0.0.1:8000/v1",
        identity_json='{"server": "kvt-reference/0.1.0", "models": ["reference"]}',
    )  # fmt: skip
    insert(
        conn, "probes", session_id="s1", kind="canary", level="snapkv 0.05", prompt_sha256="p", answer="101 102",
        verdict="alive", detail_json="{}", created_at=WHEN,
    )  # fmt: skip
    insert(
        conn, "datasets", dataset_id=DATASET, name="kvtext", task="retrieval", tokenizer_name="reference",
        tokenizer_sha256="3f9a" * 16, source_revision="generator 1", metric="exact",
        prompt_json='{"template": "{context} {question}", "system": null, "endpoint": "chat"}',
        selection_json='{"n_bins": 5, "n_per_bin": 80}',
    )  # fmt: skip
    total = sum(_n(rows, b) for b in range(len(rows.edges)))
    insert(conn, "manifests", dataset_id=DATASET, version=1, sha256="9" * 64, created_at=WHEN, n_entries=total)
    seq = 0
    for bin_idx, (low, high) in enumerate(rows.edges):
        insert(conn, "bins", dataset_id=DATASET, bin_idx=bin_idx, lo_tokens=low, hi_tokens=high)
        for _ in range(_n(rows, bin_idx)):
            tokens = (low + high) // 2
            insert(
                conn, "examples", dataset_id=DATASET, example_id=f"e{seq}", question="what is the code of bado ?",
                context="the fox ran . the code of bado is 101 102 . the owl slept .", answers_json='["101 102"]',
                meta_json="{}", context_sha256=f"c{seq}",
            )  # fmt: skip
            insert(
                conn, "manifest_entries", dataset_id=DATASET, example_id=f"e{seq}", seq=seq, version=1,
                bin_idx=bin_idx, token_len=tokens, context_tokens=tokens - 9, original_tokens=tokens,
                prompt_truncated=0, prompt_sha256="p",
            )  # fmt: skip
            seq += 1


def _n(rows: Rows, bin_idx: int) -> int:
    return 0 if bin_idx == rows.empty_bin else rows.n


def _levels(conn: sqlite3.Connection, rows: Rows) -> None:
    below = [b for b in rows.budgets if not (rows.unit == "fraction" and b == 1.0)]
    plan: list[tuple[Series, float, int, bool]] = []
    full = Series("full", lambda b, t: rows.full_acc, policy="full", evidence="full", fail=lambda b, t: rows.fail_full)
    if rows.baseline:
        plan.append((full, 1.0, 0, True))
    plan += [(s, b, 0, False) for s in rows.series for b in sorted(below, reverse=True)]
    if rows.control_flips is not None and rows.baseline:
        plan.append((full, 1.0, 1, True))
    for level_idx, (series, budget, repeat, is_full) in enumerate(plan):
        _level(conn, rows, series, budget, repeat, is_full, level_idx, last=level_idx == len(plan) - 1)


def _level(
    conn: sqlite3.Connection, rows: Rows, series: Series, budget: float, repeat: int, is_full: bool, level_idx: int,
    *, last: bool,
) -> None:  # fmt: skip
    run_id = f"run{level_idx:02d}"
    rows.runs.append({"run_id": run_id, "series": series.name, "budget": budget, "repeat": repeat})
    insert(
        conn, "runs", run_id=run_id, exp_group_id=GROUP, generation=1, dataset_id=DATASET, model_name="reference",
        base_url="http://127.0.0.1:8000/v1", engine_name="kvt-reference", series=series.name, kv_policy=series.policy,
        kv_budget=budget, kv_unit="fraction" if is_full else rows.unit, kv_mode=series.mode, is_full=int(is_full),
        kv_apply="none" if series.evidence == "unverified" else "body", kv_params_json="{}", apply_json="{}",
        repeat_idx=repeat, prompt_template_version="ab12" * 16, decoding_json='{"temperature": 0}',
        level_idx=level_idx, created_at=WHEN,
    )  # fmt: skip
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
                conn, "requests", request_id=request_id, run_id=run_id, example_id=f"e{seq}", prompt_sha256="p",
                created_at=WHEN,
            )  # fmt: skip
            if not (last and seq < rows.pending):
                _outcome(conn, request_id, tokens, failed=k < round(fail * n), seq=seq)
                total += 1
            seq += 1
    filled = [p for p in per_bin if p[1]]
    for bin_idx, n, tokens, fraction, acc, fail in per_bin:
        _bin_stats(conn, rows, run_id, bin_idx, n, tokens, fraction, acc, fail, is_full and repeat == 0, seen)
    mean = [sum(p[k] for p in filled) / max(1, len(filled)) for k in range(6)]
    _bin_stats(
        conn, rows, run_id, -1, sum(p[1] for p in filled), int(mean[2]), mean[3], mean[4], mean[5],
        is_full and repeat == 0, seen,
    )  # fmt: skip
    status = "full" if is_full else series.evidence
    insert(
        conn, "run_evidence", run_id=run_id, status=status, source="echoed" if seen else "none",
        reason="the server echoed what it kept" if seen else "nothing shows that the server applied it", n=total,
        n_off=total if status == "contradicted" else 0, requested=budget,
        effective_p50=(1.0 if status == "contradicted" else budget) if seen else None, fingerprint="f",
    )  # fmt: skip
    whole = (-1, sum(p[1] for p in filled), 0, mean[3], mean[4], mean[5])
    for bin_idx, n, _, _, acc, fail in [*per_bin, whole]:
        if rows.baseline and (not is_full or repeat):
            _drop(conn, rows, series, budget, repeat, bin_idx, run_id, n, acc, fail)


def _outcome(conn: sqlite3.Connection, request_id: str, tokens: int, *, failed: bool, seq: int) -> None:
    start = seq * 10_000_000
    insert(
        conn, "attempts", request_id=request_id, attempt_idx=0, series_idx=0, session_id="s1", started_at=WHEN,
        endpoint="http://127.0.0.1:8000/v1", http_status=None if failed else 200,
        end_state="timeout" if failed else "done", error_type="TotalTimeout" if failed else None, latency_s=0.02,
    )  # fmt: skip
    if failed:
        insert(conn, "give_ups", request_id=request_id, series_idx=0, reason="attempts_exhausted", created_at=WHEN)
        return
    insert(
        conn, "responses", request_id=request_id, attempt_idx=0, text="101 102", finish_reason="stop", created_at=WHEN
    )
    insert(
        conn, "telemetry", request_id=request_id, attempt_idx=0, scheduled_ns=start, start_ns=start,
        first_content_ns=start + 12_000_000, last_delta_ns=start + 20_000_000, end_ns=start + 20_000_000,
        stamp_source="transport", prompt_tokens=tokens, completion_tokens=3,
    )  # fmt: skip
    insert(
        conn, "scores", request_id=request_id, em=1.0, f1=1.0, score=1.0, metric="exact", pred_norm="101 102",
        gold_norm="101 102", flags="identical_to_full", scorer_version="1",
    )  # fmt: skip


def _bin_stats(
    conn: sqlite3.Connection, rows: Rows, run_id: str, bin_idx: int, n: int, tokens: int, fraction: float, acc: float,
    fail: float, baseline: bool, seen: bool,
) -> None:  # fmt: skip
    row: dict[str, Any] = {"n_failures": 0, "label_counts_json": "{}", "flag_counts_json": "{}"}
    if n:
        failures = round(fail * n)
        low, high = wilson(acc, n)
        answered = n - failures > 0
        fail_low, fail_high = wilson(fail, n)
        row |= {
            "acc_mean": acc, "acc_std": math.sqrt(acc * (1 - acc)), "acc_ci_low": min(low, acc),
            "acc_ci_high": max(high, acc), "acc_ci_method": "wilson",
            "acc_answered": acc / (1 - fail) if answered else None,
            "em_mean": acc, "f1_mean": acc, "n_failures": failures, "fail_rate": fail, "fail_ci_low": fail_low,
            "fail_ci_high": fail_high,
            "label_counts_json": json.dumps({"TIMEOUT": failures} if failures else {}),
            "identical_to_full": None if baseline else acc,
        }  # fmt: skip
        if answered:
            row |= {
                "latency_p50_s": 0.02 + 2e-5 * tokens * fraction, "latency_p95_s": 0.03 + 3e-5 * tokens * fraction,
                "ttft_p50_s": 0.012 + 1e-5 * tokens, "ttft_p95_s": 0.015 + 2e-5 * tokens, "ttfb_p50_s": 0.008,
                "tpot_p50_s": 0.003 + 4e-6 * tokens * fraction, "tpot_p95_s": 0.005 + 5e-6 * tokens * fraction,
                "prompt_tokens_p50": tokens, "prompt_tokens_p95": tokens * 1.1, "completion_tokens_p50": 3,
                "completion_tokens_p95": 3, "token_len_p50": tokens, "context_tokens_p50": tokens - 9,
                "cached_share": rows.cached,
            }  # fmt: skip
            if seen:
                row |= {
                    "kept_fraction_p50": fraction, "kept_tokens_p50": round(fraction * tokens),
                    "kv_bytes_p50": round(fraction * tokens) * BYTES_PER_TOKEN,
                }  # fmt: skip
    insert(
        conn, "bin_stats", run_id=run_id, dataset_id=DATASET, bin_idx=bin_idx, n=n, n_clusters=n, fingerprint="f", **row
    )


def _drop(
    conn: sqlite3.Connection, rows: Rows, series: Series, budget: float, repeat: int, bin_idx: int, run_id: str,
    n: int, acc: float, fail: float,
) -> None:  # fmt: skip
    row: dict[str, Any] = {}
    if n:
        control = bool(repeat)
        drop = 0.0 if control else rows.full_acc * (1 - rows.fail_full) - acc
        half = 1.96 * math.sqrt(max(abs(drop) * (1 - abs(drop)), 0.5 / n) / n)
        low, high = wilson(acc, n)
        lost = min(drop, fail * rows.full_acc)
        flips = (rows.control_flips or 0) if bin_idx == -1 else 0
        row = {
            "acc_mean": acc, "acc_ci_low": min(low, acc), "acc_ci_high": max(high, acc), "drop_mean": drop,
            "drop_ci_low": drop - half, "drop_ci_high": drop + half,
            "n_worse": flips // 2 if control else round(drop * n), "n_better": flips - flips // 2 if control else 0,
            "p_safe": 0.001 if drop + half < rows.margin else 0.5, "p_loss": 0.001 if drop > half else 0.5,
            "p_collapse": 0.001 if drop - half > rows.margin else 0.5, "test_method": "tango",
            "drop_failures": lost, "drop_answers": drop - lost,
        }  # fmt: skip
    insert(
        conn, "budget_stats", exp_group_id=GROUP, generation=1, series=series.name, kv_budget=budget, repeat_idx=repeat,
        bin_idx=bin_idx, run_id=run_id, n=n, n_clusters=n, drop_json="{}", fingerprint="f", **row,
    )  # fmt: skip


def _verdicts(conn: sqlite3.Connection, rows: Rows) -> None:
    below = sorted((b for b in rows.budgets if not (rows.unit == "fraction" and b == 1.0)), reverse=True)
    for order, series in enumerate(rows.series):
        for bin_idx in (-1, *range(len(rows.edges))):
            stats = {
                r[0]: r[1:]
                for r in conn.execute(
                    "SELECT kv_budget, p_safe, p_loss, p_collapse, n FROM budget_stats WHERE series=? AND bin_idx=?",
                    (series.name, bin_idx),
                )
            }
            n = max((s[3] for s in stats.values()), default=0)
            row: dict[str, Any] = {"verdict": series.verdict or "no_baseline", "n": n, "partial": int(rows.pending > 0)}
            if rows.baseline:
                row["acc_full"] = rows.full_acc * (1 - rows.fail_full)
            if rows.baseline and n:
                safe: float | None = 1.0 if rows.unit == "fraction" else None
                for b in below:
                    if stats[b][0] > 0.025:
                        break
                    safe = b
                collapse = margin = None
                for b in reversed(below):
                    if stats[b][2] > 0.025:
                        break
                    margin = b
                for b in reversed(below):
                    if stats[b][1] > 0.025:
                        break
                    collapse = b
                verdict = "transition" if margin is not None else "cannot_tell"
                if below and safe == below[-1]:
                    verdict = "no_transition_in_range"
                row |= {
                    "safe_budget": safe, "collapse_budget": collapse, "collapse_margin_budget": margin,
                    "zone_low": margin, "zone_high": safe, "verdict": series.verdict or verdict,
                    "n_needed": 72 if verdict == "cannot_tell" else None,
                }  # fmt: skip
                if margin is not None:
                    row |= {
                        "half_loss_budget": margin,
                        "half_loss_ci_low": margin * 0.9,
                        "half_loss_ci_high": margin * 1.1,
                    }
            insert(
                conn, "transition_summary", exp_group_id=GROUP, generation=1, series=series.name,
                kv_policy=series.policy, kv_mode=series.mode, bin_idx=bin_idx, zone_json="{}",
                verdict_text=f"{series.name}: {row['verdict']}",
                role="exploratory" if bin_idx >= 0 else "confirmatory" if order == 0 else "holm",
                evidence=series.evidence, method="tango, alpha 0.05, margin 0.05, 10000 resamples, seed 1337",
                fingerprint="f", **row,
            )  # fmt: skip
    for a in range(len(rows.series)):
        for b in range(a + 1, len(rows.series)):
            for budget in below:
                acc = [
                    conn.execute(
                        "SELECT acc_mean, n FROM budget_stats WHERE series=? AND kv_budget=? AND bin_idx=-1",
                        (rows.series[k].name, budget),
                    ).fetchone()
                    for k in (a, b)
                ]
                if None in acc or acc[0][0] is None:
                    continue
                diff = acc[0][0] - acc[1][0]
                insert(
                    conn, "comparisons", exp_group_id=GROUP, generation=1, series_a=rows.series[a].name,
                    series_b=rows.series[b].name, kv_budget=budget, bin_idx=-1, n=acc[0][1], diff_mean=diff,
                    diff_ci_low=diff - 0.05, diff_ci_high=diff + 0.05, p=0.001 if abs(diff) > 0.05 else 0.6,
                    p_holm=0.01 if abs(diff) > 0.05 else 1.0, fingerprint="f",
                )  # fmt: skip


SNAPKV = Series("snapkv aware", cliff(48))
SMALL: dict[str, Any] = {"series": (SNAPKV,), "budgets": (1.0, 0.5, 0.2), "edges": EDGES[:2], "n": 10}
DEGENERATE: dict[str, dict[str, Any]] = {
    "one_bin": {**SMALL, "edges": EDGES[:1]},
    "one_budget": {**SMALL, "budgets": (1.0, 0.5)},
    "full_cache_only": {**SMALL, "budgets": (1.0,), "series": ()},
    "one_example": {**SMALL, "n": 1, "series": (Series("snapkv aware", cliff(48), verdict="cannot_tell"),)},
    "all_failed": {
        **SMALL,
        "fail_full": 1.0,
        "full_acc": 0.0,
        "series": (Series("snapkv aware", cliff(48), fail=lambda b, t: 1.0, verdict="nothing_to_lose"),),
    },
    "partial": {**SMALL, "pending": 3},
    "unverified": {**SMALL, "series": (Series("snapkv aware", cliff(48), evidence="unverified"),)},
    "no_baseline": {**SMALL, "baseline": False},
    "empty_bin": {**SMALL, "empty_bin": 1},
    "token_caps": {**SMALL, "unit": "tokens", "budgets": (512.0, 128.0, 32.0)},
    "many_series": {**SMALL, "series": tuple(Series(f"series {i}", cliff(30 + 4 * i)) for i in range(9))},
    "tiny_budgets": {**SMALL, "budgets": (1.0, 0.5, 0.1, 0.02, 0.01)},
}

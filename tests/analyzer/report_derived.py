"""Derived rows of the report's tests, written by hand: bin_stats, budget_stats, transition_summary, comparisons."""

import json
import math
import sqlite3
from typing import Any

from tests.analyzer.report_cases import BYTES_PER_TOKEN, DATASET, GROUP, Rows, Series
from tests.tables import insert

METHOD = '{"alpha": 0.05, "margin": 0.05, "resamples": 10000, "seed": 1337, "tests": "tango"}'


def wilson(p: float, n: int, z: float = 1.96) -> tuple[float, float]:
    centre, half = p + z * z / 2 / n, z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def compressed(rows: Rows) -> list[float]:
    """Budgets below full cache, largest first."""
    return sorted((b for b in rows.budgets if not (rows.unit == "fraction" and b == 1.0)), reverse=True)


def bin_stats(
    conn: sqlite3.Connection,
    rows: Rows,
    run_id: str,
    bin_idx: int,
    n: int,
    tokens: int,
    fraction: float,
    acc: float,
    fail: float,
    baseline: bool,
    seen: bool,
) -> None:
    row: dict[str, Any] = {"n_failures": 0, "label_counts_json": "{}", "flag_counts_json": "{}"}
    if n:
        failures = round(fail * n)
        low, high = wilson(acc, n)
        answered = n - failures > 0
        fail_low, fail_high = wilson(fail, n)
        row |= {
            "acc_mean": acc,
            "acc_std": math.sqrt(acc * (1 - acc)),
            "acc_ci_low": min(low, acc),
            "acc_ci_high": max(high, acc),
            "acc_ci_method": "wilson",
            "acc_answered": acc / (1 - fail) if answered else None,
            "em_mean": acc,
            "f1_mean": acc,
            "n_failures": failures,
            "fail_rate": fail,
            "fail_ci_low": fail_low,
            "fail_ci_high": fail_high,
            "label_counts_json": json.dumps({"TIMEOUT": failures} if failures else {}),
            "identical_to_full": None if baseline else acc,
        }
        if answered:
            row |= {
                "latency_p50_s": 0.02 + 2e-5 * tokens * fraction,
                "latency_p95_s": 0.03 + 3e-5 * tokens * fraction,
                "ttft_p50_s": 0.012 + 1e-5 * tokens,
                "ttft_p95_s": 0.015 + 2e-5 * tokens,
                "ttfb_p50_s": 0.008,
                "tpot_p50_s": 0.003 + 4e-6 * tokens * fraction,
                "tpot_p95_s": 0.005 + 5e-6 * tokens * fraction,
                "prompt_tokens_p50": tokens,
                "prompt_tokens_p95": tokens * 1.1,
                "completion_tokens_p50": 3,
                "completion_tokens_p95": 3,
                "token_len_p50": tokens,
                "context_tokens_p50": tokens - 9,
                "cached_share": rows.cached,
            }
            if seen:
                row |= {
                    "kept_fraction_p50": fraction,
                    "kept_tokens_p50": round(fraction * tokens),
                    "kv_bytes_p50": round(fraction * tokens) * BYTES_PER_TOKEN,
                }
    insert(
        conn, "bin_stats", run_id=run_id, dataset_id=DATASET, bin_idx=bin_idx, n=n, n_clusters=n, fingerprint="f", **row
    )


def drop(
    conn: sqlite3.Connection,
    rows: Rows,
    series: Series,
    budget: float,
    repeat: int,
    bin_idx: int,
    run_id: str,
    n: int,
    acc: float,
    fail: float,
) -> None:
    row: dict[str, Any] = {}
    if n:
        control = bool(repeat)
        lost_score = 0.0 if control else rows.full_acc * (1 - rows.fail_full) - acc
        half = 1.96 * math.sqrt(max(abs(lost_score) * (1 - abs(lost_score)), 0.5 / n) / n)
        low, high = wilson(acc, n)
        lost = min(lost_score, fail * rows.full_acc)
        flips = (rows.control_flips or 0) if bin_idx == -1 else 0
        row = {
            "acc_mean": acc,
            "acc_ci_low": min(low, acc),
            "acc_ci_high": max(high, acc),
            "drop_mean": lost_score,
            "drop_ci_low": lost_score - half,
            "drop_ci_high": lost_score + half,
            "n_worse": flips // 2 if control else round(lost_score * n),
            "n_better": flips - flips // 2 if control else 0,
            "p_safe": 0.001 if lost_score + half < rows.margin else 0.5,
            "p_loss": 0.001 if lost_score > half else 0.5,
            "p_collapse": 0.001 if lost_score - half > rows.margin else 0.5,
            "test_method": "tango",
            "drop_failures": lost,
            "drop_answers": lost_score - lost,
            "within_noise": None if control or rows.control_flips is None else int(_explained(rows, lost_score, n)),
        }
    insert(
        conn,
        "budget_stats",
        exp_group_id=GROUP,
        dataset_id=DATASET,
        generation=1,
        series=series.name,
        kv_budget=budget,
        repeat_idx=repeat,
        bin_idx=bin_idx,
        run_id=run_id,
        n=n,
        n_clusters=n,
        drop_json="{}",
        fingerprint="f",
        **row,
    )


def _explained(rows: Rows, lost: float, n: int) -> bool:
    flips = rows.control_flips or 0
    return bool(flips) and abs(lost) <= 1.96 * math.sqrt(flips / n / n)


def _zone(rows: Rows, below: list[float], row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"level": rows.level, "notes": list(rows.notes)}
    if row.get("n_needed") and below:
        found["needed"] = {"budget": below[0], "claim": "safe"}
    return found


def verdicts(conn: sqlite3.Connection, rows: Rows) -> None:
    """Fixed sequences over the stored p values, as the analyzer tests them."""
    below = compressed(rows)
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
                    "safe_budget": safe,
                    "collapse_budget": collapse,
                    "collapse_margin_budget": margin,
                    "zone_low": margin,
                    "zone_high": safe,
                    "verdict": series.verdict or verdict,
                    "n_needed": 72 if verdict == "cannot_tell" else None,
                }
                if margin is not None:
                    row |= {
                        "half_loss_budget": margin,
                        "half_loss_ci_low": margin * 0.9,
                        "half_loss_ci_high": margin * 1.1,
                    }
            insert(
                conn,
                "transition_summary",
                exp_group_id=GROUP,
                dataset_id=DATASET,
                generation=1,
                series=series.name,
                kv_policy=series.policy,
                kv_mode=series.mode,
                bin_idx=bin_idx,
                zone_json=json.dumps(_zone(rows, below, row)),
                verdict_text=f"{series.name}: {row['verdict']}",
                role="exploratory" if bin_idx >= 0 else "confirmatory" if order == 0 else "holm",
                evidence=series.evidence,
                method=METHOD,
                fingerprint="f",
                **row,
            )


def comparisons(conn: sqlite3.Connection, rows: Rows) -> None:
    """Every pair of series at every budget, over all bins."""
    below = compressed(rows)
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
                    conn,
                    "comparisons",
                    exp_group_id=GROUP,
                    dataset_id=DATASET,
                    generation=1,
                    series_a=rows.series[a].name,
                    series_b=rows.series[b].name,
                    kv_budget=budget,
                    bin_idx=-1,
                    n=acc[0][1],
                    diff_mean=diff,
                    diff_ci_low=diff - 0.05,
                    diff_ci_high=diff + 0.05,
                    p=0.001 if abs(diff) > 0.05 else 0.6,
                    p_holm=0.01 if abs(diff) > 0.05 else 1.0,
                    fingerprint="f",
                )

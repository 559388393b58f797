"""The persisted rows that charts and report read, each named after its table; columns are those of schema.sql."""

import json
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from analyzer.read.drift import Answers
from kvt_async.contract.formulas.prompt_counts import PromptCounts

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Run:
    run_id: str
    dataset_id: str
    model_name: str
    base_url: str
    engine_name: str
    series: str
    kv_policy: str
    kv_budget: float
    kv_unit: str
    kv_mode: str
    is_full: int
    kv_apply: str
    kv_params_json: str
    repeat_idx: int
    level_idx: int


@dataclass(frozen=True, slots=True)
class Bin:
    """bin_idx -1 stands for all bins together."""

    bin_idx: int
    lo_tokens: int
    hi_tokens: int

    @property
    def label(self) -> str:
        return "all lengths" if self.bin_idx < 0 else f"{self.lo_tokens:,}–{self.hi_tokens:,}"


@dataclass(frozen=True, slots=True)
class BinStat:
    run_id: str
    bin_idx: int
    n: int
    n_clusters: int
    acc_mean: float | None
    acc_std: float | None
    acc_ci_low: float | None
    acc_ci_high: float | None
    acc_ci_method: str | None
    acc_answered: float | None
    em_mean: float | None
    f1_mean: float | None
    n_failures: int
    fail_rate: float | None
    fail_ci_low: float | None
    fail_ci_high: float | None
    label_counts_json: str
    flag_counts_json: str
    identical_to_full: float | None
    latency_p50_s: float | None
    latency_p95_s: float | None
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    tpot_p50_s: float | None
    tpot_p95_s: float | None
    prompt_tokens_p50: float | None
    prompt_tokens_p95: float | None
    completion_tokens_p50: float | None
    completion_tokens_p95: float | None
    token_len_p50: float | None
    context_tokens_p50: float | None
    cached_share: float | None
    kept_fraction_p50: float | None
    kept_tokens_p50: float | None
    kv_bytes_p50: float | None

    @property
    def labels(self) -> dict[str, int]:
        return counts(self.label_counts_json)

    @property
    def flags(self) -> dict[str, int]:
        return counts(self.flag_counts_json)


@dataclass(frozen=True, slots=True)
class Evidence:
    run_id: str
    status: str
    source: str
    reason: str
    n: int
    n_off: int
    requested: float | None
    effective_p50: float | None


@dataclass(frozen=True, slots=True)
class Drop:
    """One row of budget_stats: a level against full cache, paired."""

    series: str
    kv_budget: float
    repeat_idx: int
    bin_idx: int
    run_id: str
    n: int
    n_clusters: int
    acc_mean: float | None
    acc_ci_low: float | None
    acc_ci_high: float | None
    drop_mean: float | None
    drop_ci_low: float | None
    drop_ci_high: float | None
    n_worse: int | None
    n_better: int | None
    p_safe: float | None
    p_loss: float | None
    p_collapse: float | None
    test_method: str | None
    drop_failures: float | None
    drop_answers: float | None
    drop_json: str
    within_noise: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of transition_summary."""

    series: str
    kv_policy: str
    kv_mode: str
    bin_idx: int
    n: int
    acc_full: float | None
    safe_budget: float | None
    collapse_budget: float | None
    collapse_margin_budget: float | None
    zone_low: float | None
    zone_high: float | None
    half_loss_budget: float | None
    half_loss_ci_low: float | None
    half_loss_ci_high: float | None
    zone_json: str
    verdict: str
    verdict_text: str
    n_needed: int | None
    role: str
    evidence: str
    partial: int
    method: str
    pre_budget: float | None
    transition_budget: float | None
    acc_pre: float | None
    acc_post: float | None
    drop: float | None
    transition_bin_idx: int | None

    @property
    def detail(self) -> dict[str, Any]:
        """zone_json: level, notes, needed, spread, noise, cliff, length_by_budget; {} where it says nothing."""
        loaded: dict[str, Any] = json.loads(self.zone_json or "{}")
        return loaded

    @property
    def judges(self) -> bool:
        """Whether this is a verdict about budgets, rather than the reason why there is none."""
        return self.verdict not in ("no_baseline", "nothing_to_lose", "unverified")

    @property
    def prompts(self) -> PromptCounts | None:
        """What the server's counts say of the group's prompts; None where this row doesn't hold it."""
        found = self.detail.get("prompts")
        return PromptCounts(**found) if found else None

    @property
    def beside_canary(self) -> Answers | None:
        """The sweep's answers beside a canary that doubted the budget; None: none did, or this row doesn't hold it."""
        found = self.detail.get("canary")
        return Answers(**found) if found else None

    @property
    def notes(self) -> list[str]:
        return [str(n) for n in self.detail.get("notes", [])]

    @property
    def asked(self) -> dict[str, Any]:
        """What the analysis was asked for: alpha, margin, resamples, seed; {} where the method is no JSON."""
        try:
            loaded = json.loads(self.method)
        except json.JSONDecodeError:
            return {}
        return loaded if isinstance(loaded, dict) else {}


@dataclass(frozen=True, slots=True)
class Comparison:
    series_a: str
    series_b: str
    kv_budget: float
    bin_idx: int
    n: int
    diff_mean: float | None
    diff_ci_low: float | None
    diff_ci_high: float | None
    p: float | None
    p_holm: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    run_id: str
    planned: int
    requests: int
    responses: int
    failures: int
    refused: int = 0  # of the pending: for a key or a quota

    @property
    def total(self) -> int:
        """Requests of this run, those not queued yet among them."""
        return max(self.planned, self.requests)

    @property
    def pending(self) -> int:
        return self.total - self.responses - self.failures


@dataclass(frozen=True, slots=True)
class Client:
    """The last client_health row of a session."""

    session_id: str
    verdict: str
    error_bound_ms: float
    signal: str
    loop_lag_p99_ms: float
    loop_lag_max_ms: float
    cpu_share: float
    gc_pause_max_ms: float


@dataclass(frozen=True, slots=True)
class Session:
    session_id: str
    started_at: str
    command: str
    config_sha256: str
    kvt_version: str
    git_commit: str | None
    python: str
    platform: str
    engine_loop: str | None
    concurrency: int | None
    order_seed: int | None
    ended_at: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Volume:
    """What one session moved. `wall_s` spans its first start to its last end on its own monotonic clock."""

    session_id: str
    n: int
    wall_s: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    n_done_alone: int = 0  # replies that [DONE] ended, without a finish_reason


def columns(row: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(row))


def counts(text: str) -> dict[str, int]:
    loaded: dict[str, Any] = json.loads(text or "{}")
    return {str(k): int(v) for k, v in loaded.items()}

"""The derived tables, one frozen class each: who writes a row and who reads it see the same fields.

A field is the column of its name in schema.sql. Some columns are no fields, since the writer adds them to every row:
exp_group_id and generation of the tables of a group, the dataset_id of those of a task, and the fingerprint of what the
rows were made from.
A JSON column holds its text, and a property reads it.
"""

import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from analyzer.read.drift import Answers
from kvt_async.contract.formulas.prompt_counts import PromptCounts
from kvt_async.contract.vocabulary import CUT_OFF, SeriesVerdict


@dataclass(frozen=True, slots=True)
class BinStat:
    """What one run did in one bin, and in all bins together (bin_idx -1, where every bin weighs as much)."""

    TABLE: ClassVar[str] = "bin_stats"
    KEY: ClassVar[tuple[str, ...]] = ("run_id", "bin_idx")

    run_id: str
    dataset_id: str
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
    ttfb_p50_s: float | None
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
    """Whether the server applied the budget of one run, from what its replies and its pages say."""

    TABLE: ClassVar[str] = "run_evidence"
    KEY: ClassVar[tuple[str, ...]] = ("run_id",)

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
    """One level against full cache in one bin (-1: all), paired by example."""

    TABLE: ClassVar[str] = "budget_stats"
    KEY: ClassVar[tuple[str, ...]] = ("dataset_id", "series", "kv_budget", "repeat_idx", "bin_idx")

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

    @property
    def drop_cut_off(self) -> float | None:
        """Part of drop_answers: answers that were cut off before anything right; None where that isn't known."""
        return None if self.drop_answers is None else float(json.loads(self.drop_json or "{}").get(CUT_OFF, 0.0))

    @property
    def drop_wrong(self) -> float | None:
        """The rest of drop_answers: wrong answers that were not cut off."""
        cut_off = self.drop_cut_off
        return None if self.drop_answers is None or cut_off is None else self.drop_answers - cut_off


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the tests of one series allow to be said in one bin (-1: all)."""

    TABLE: ClassVar[str] = "transition_summary"
    KEY: ClassVar[tuple[str, ...]] = ("dataset_id", "series", "bin_idx")

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
    zone_low_tokens: float | None
    zone_high_tokens: float | None
    half_loss_tokens: float | None
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
        """What zone_json holds, e.g. level, notes, needed, spread, noise, cliff, left_out; {} where it is empty."""
        loaded: dict[str, Any] = json.loads(self.zone_json or "{}")
        return loaded

    @property
    def loss(self) -> float | None:
        """The claim called loss: the largest budget such that it and all below are proven to lose something."""
        return self.collapse_budget

    @property
    def broken(self) -> float | None:
        """The claim called broken: the largest budget such that it and all below lose more than the margin."""
        return self.zone_low

    @property
    def judges(self) -> bool:
        """Whether this is a verdict about budgets, rather than the reason why there is none."""
        return SeriesVerdict(self.verdict).judges

    @property
    def has_no_evidence(self) -> bool:
        """Whether there is no verdict because hardly any answer was compressed while it was generated."""
        levels = self.detail.get("while_generating", [])
        never_shown = all(level["said"] and not level["shown"] for level in levels)
        return self.verdict == SeriesVerdict.UNVERIFIED and bool(levels) and never_shown

    @property
    def prompts(self) -> PromptCounts | None:
        """What the server's counts say of the group's prompts; None where this row doesn't hold it."""
        stored = self.detail.get("prompts")
        return PromptCounts(**stored) if stored else None

    @property
    def beside_canary(self) -> Answers | None:
        """The sweep's answers beside a canary that doubted the budget; None: none did, or this row doesn't hold it."""
        stored = self.detail.get("canary")
        return Answers(**stored) if stored else None

    @property
    def left_out(self) -> list[dict[str, Any]]:
        """Levels of the series that the row is not about, for most of their requests are pending: {budget, answers,
        planned}."""
        return list(self.detail.get("left_out", []))

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
    """Two series at the same budget in one bin (-1: all), paired by example."""

    TABLE: ClassVar[str] = "comparisons"
    KEY: ClassVar[tuple[str, ...]] = ("dataset_id", "series_a", "series_b", "kv_budget", "bin_idx")

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
class OutcomeChange:
    """What else than the score changed at one level of a task, all bins together, paired with full cache by answer."""

    TABLE: ClassVar[str] = "outcome_changes"
    KEY: ClassVar[tuple[str, ...]] = ("dataset_id", "series", "kv_budget", "repeat_idx", "measure")

    series: str
    kv_budget: float
    repeat_idx: int
    measure: str
    n: int
    full_value: float | None
    value: float | None
    change: float | None
    change_ci_low: float | None
    change_ci_high: float | None
    p_holm: float | None


@dataclass(frozen=True, slots=True)
class BenchTurn:
    """Turns of one number of a load's conversations; turn 3 stands for it and all later ones."""

    TABLE: ClassVar[str] = "bench_turns"
    KEY: ClassVar[tuple[str, ...]] = ("level", "load", "turn")

    level: str
    load: str
    turn: int
    n: int
    n_failed: int
    n_lost: int
    asked_tokens: float | None
    prompt_tokens: float | None
    shared_tokens: float | None
    cached_tokens: float | None
    shared_share: float | None
    cached_share: float | None
    cache: str
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p99_s: float | None
    latency_p50_s: float | None
    latency_p99_s: float | None
    delay_p50_s: float | None
    delay_p99_s: float | None


@dataclass(frozen=True, slots=True)
class BenchConversations:
    """The conversations of a load, each as one."""

    TABLE: ClassVar[str] = "bench_conversations"
    KEY: ClassVar[tuple[str, ...]] = ("level", "load")

    level: str
    load: str
    n: int
    n_whole: int
    n_failed: int
    turns_mean: float
    duration_p50_s: float | None
    duration_p99_s: float | None
    think_mean_s: float | None
    input_tokens_mean: float | None
    output_tokens_mean: float | None


def as_columns(row: Any, **more: Any) -> dict[str, Any]:
    """A row of a derived table by column, with `more` columns that are no fields of it."""
    return {name: getattr(row, name) for name in columns(type(row))} | more


def json_text(value: Any) -> str:
    """The text of a JSON column."""
    return json.dumps(value, sort_keys=True)


def columns(row: type) -> tuple[str, ...]:
    """The columns of a row's class, in the order of its fields."""
    return tuple(field.name for field in fields(row))


def counts(text: str) -> dict[str, int]:
    loaded: dict[str, Any] = json.loads(text or "{}")
    return {str(k): int(v) for k, v in loaded.items()}

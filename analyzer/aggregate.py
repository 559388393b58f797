"""Scores -> bin_stats: what one run did in each bin, and over all bins (bin_idx -1).

Bin -1 weighs bins equally for everything that is a mean of examples (accuracy, EM, F1, failure rate); counts are sums,
and latency and token percentiles are taken over all responses together. A bin without finished requests is a row with
n = 0 and NULL means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer.bootstrap import percentile_interval
from analyzer.intervals import effective_n, wilson
from analyzer.labels import FLAGS

Floats = npt.NDArray[np.float64]
ALL_BINS = -1

_PERCENTILES = {
    "latency_p50_s": ("latency_s", 0.5),
    "latency_p95_s": ("latency_s", 0.95),
    "ttft_p50_s": ("ttft_s", 0.5),
    "ttft_p95_s": ("ttft_s", 0.95),
    "ttfb_p50_s": ("ttfb_s", 0.5),
    "tpot_p50_s": ("tpot_s", 0.5),
    "tpot_p95_s": ("tpot_s", 0.95),
    "prompt_tokens_p50": ("prompt_tokens", 0.5),
    "prompt_tokens_p95": ("prompt_tokens", 0.95),
    "completion_tokens_p50": ("completion_tokens", 0.5),
    "completion_tokens_p95": ("completion_tokens", 0.95),
    "token_len_p50": ("token_len", 0.5),
    "context_tokens_p50": ("context_tokens", 0.5),
    "kept_fraction_p50": ("kept_fraction", 0.5),
    "kept_tokens_p50": ("kept_tokens", 0.5),
    "kv_bytes_p50": ("kv_bytes", 0.5),
}


@dataclass(frozen=True)
class CiRule:
    """How accuracy's interval is made: settings.analysis.ci and alpha."""

    ci: str
    alpha: float


def bin_rows(
    outcomes: pl.DataFrame,
    *,
    run_id: str,
    dataset_id: str,
    bins: Sequence[int],
    rule: CiRule,
    is_baseline: bool,
) -> list[dict[str, Any]]:
    """bin_stats rows (without fingerprint) of one run: every bin of the dataset, then -1.

    outcomes: `outcomes.outcomes` joined with entries, plus kept_fraction. Where the rule asks for bootstrap intervals,
    with_bootstrap puts them in later.
    """
    by_bin = {key[0]: part for key, part in outcomes.group_by("bin_idx")}
    present = [b for b in bins if b in by_bin]
    rows = []
    for b in [*bins, ALL_BINS]:
        part = outcomes if b == ALL_BINS else by_bin.get(b, outcomes.clear())
        row: dict[str, Any] = {"run_id": run_id, "dataset_id": dataset_id, "bin_idx": b, "n": part.height}
        row["n_clusters"] = part["cluster"].n_unique()
        row |= _means(part, present if b == ALL_BINS else [b], rule)
        row |= _rates(part, present if b == ALL_BINS else [b], rule.alpha, is_baseline=is_baseline)
        row |= _percentiles(part)
        rows.append(row)
    return rows


def with_bootstrap(row: Mapping[str, Any], rule: CiRule, replicates: Floats) -> dict[str, Any]:
    """A bin_stats row with the interval that the rule asks for; replicates [resamples] of the row's mean."""
    if rule.ci != "bootstrap" or not row["n"]:
        return dict(row)
    low, high = percentile_interval(replicates, rule.alpha)
    return {**row, "acc_ci_low": low, "acc_ci_high": high, "acc_ci_method": "percentile_bootstrap"}


def _means(part: pl.DataFrame, bins: Sequence[int], rule: CiRule) -> dict[str, Any]:
    score = part["score"].to_numpy()
    low, high, method = accuracy_interval(
        score, bin_weights(part["bin_idx"].to_numpy()), part["cluster"].to_numpy(), rule.alpha
    )
    return {
        "acc_mean": mean_of_bins(part, "score", bins),
        "acc_std": float(np.std(score)) if len(score) else None,
        "acc_ci_low": low,
        "acc_ci_high": high,
        "acc_ci_method": method,
        "acc_answered": mean_of_bins(part.filter(~pl.col("is_failure")), "score", bins),
        "em_mean": mean_of_bins(part, "em", bins),
        "f1_mean": mean_of_bins(part, "f1", bins),
    }


def accuracy_interval(
    score: Floats, weight: Floats, cluster: npt.NDArray[np.int64], alpha: float
) -> tuple[float | None, float | None, str | None]:
    """(low, high, method) of the weighted mean of scores; all None without scores.

    Wilson's interval at the effective number of observations, which for 0/1 scores of distinct contexts is their
    number.
    """
    if not len(score):
        return None, None, None
    low, high = wilson(float(np.sum(weight * score)), effective_n(score, weight, cluster), alpha)
    plain = bool(np.all((score == 0) | (score == 1))) and int(np.bincount(cluster).max()) == 1
    return low, high, "wilson" if plain else "wilson_effective_n"


def bin_weights(bin_idx: npt.NDArray[np.int64]) -> Floats:
    """Weight of each example in the equal-weight mean of bins: [n], sums to 1."""
    if not len(bin_idx):
        return np.empty(0)
    count = np.bincount(bin_idx)
    return np.asarray(1.0 / (np.count_nonzero(count) * count[bin_idx]), dtype=np.float64)


def mean_of_bins(part: pl.DataFrame, column: str, bins: Sequence[int]) -> float | None:
    """Mean over `bins` of each bin's mean; bins without rows are left out; None without any."""
    means = part.filter(pl.col("bin_idx").is_in(list(bins))).group_by("bin_idx").agg(pl.col(column).mean())
    values = means.sort("bin_idx")[column].drop_nulls().to_numpy()
    return float(np.mean(values)) if len(values) else None


def _rates(part: pl.DataFrame, bins: Sequence[int], alpha: float, *, is_baseline: bool) -> dict[str, Any]:
    failed = part["is_failure"].cast(pl.Float64).to_numpy()
    weight = bin_weights(part["bin_idx"].to_numpy())
    rate = float(np.sum(weight * failed)) if len(failed) else float("nan")
    low, high = wilson(rate, effective_n(failed, weight, np.arange(len(failed))) if len(failed) else 0, alpha)
    labels = part.drop_nulls("failure_label").group_by("failure_label").len().sort("failure_label")
    flag_counts = {name: int(part["flags"].str.contains(name, literal=True).sum() or 0) for name in FLAGS}
    answered = part.filter(~pl.col("is_failure")).with_columns(
        same=pl.col("flags").str.contains("identical_to_full", literal=True).cast(pl.Float64)
    )
    told = part.filter(pl.col("cached_tokens").is_not_null())
    cached, prompt = (int(told[name].sum() or 0) for name in ("cached_tokens", "prompt_tokens"))
    return {
        "n_failures": int(failed.sum()),
        "fail_rate": rate,
        "fail_ci_low": low,
        "fail_ci_high": high,
        "label_counts_json": dict(labels.iter_rows()),
        "flag_counts_json": {name: count for name, count in flag_counts.items() if count},
        "identical_to_full": None if is_baseline else mean_of_bins(answered, "same", bins),
        "cached_share": cached / prompt if prompt else None,
    }


def _percentiles(part: pl.DataFrame) -> dict[str, Any]:
    wanted = part.select(**{name: pl.col(column).quantile(q, "linear") for name, (column, q) in _PERCENTILES.items()})
    return dict(wanted.row(0, named=True))

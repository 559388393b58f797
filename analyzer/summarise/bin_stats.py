"""Scores -> bin_stats: what one run did in each bin, and over all bins (bin_idx -1).

Bin -1 weighs bins equally for everything that is a mean of scores (accuracy, EM, F1, share of identical texts). Counts
are sums, a failure rate is failures over requests, and latency and token percentiles are taken over all responses
together. A bin without finished requests is a row with n = 0 and NULL means.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analyzer.read.runs import Run
from analyzer.scoring.failure_labels import FLAGS
from analyzer.stats.bootstrap import percentile_interval
from analyzer.stats.intervals import effective_n, is_binary, wilson
from analyzer.stats.paired_tests import Units
from analyzer.store.tables import BinStat, columns, json_text

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ALL_BINS = -1

# Column of bin_stats -> the column of the outcomes that it is a percentile of, and which: ttft_p95_s -> (ttft_s, 0.95).
_PERCENTILES = {
    name: (f"{found[1]}{found[3]}", int(found[2]) / 100)
    for name in columns(BinStat)
    if (found := re.fullmatch(r"(\w+)_p(\d\d)(_s|)", name))
}


@dataclass(frozen=True)
class CiRule:
    """How accuracy's interval is made: settings.analysis.ci and alpha."""

    ci: str
    alpha: float


def bin_rows(
    run: Run, outcomes: pl.DataFrame, bins: Sequence[int], rule: CiRule, scored: pl.DataFrame
) -> list[BinStat]:
    """bin_stats rows of one run: every bin of the dataset, then -1.

    outcomes: `outcomes.outcomes` joined with entries, plus kept_fraction: a row for each answer. scored: a row for each
    example with its bin_idx, cluster and one score, which accuracy is of; with one answer each it is the same frame.
    Where the rule asks for bootstrap intervals, with_bootstrap puts them in later.
    """
    parts = {key[0]: part for key, part in outcomes.group_by("bin_idx")}
    examples = parts if scored is outcomes else {key[0]: part for key, part in scored.group_by("bin_idx")}
    means = {b: _means(parts[b], examples.get(b, scored.clear())) for b in bins if b in parts}
    means[ALL_BINS] = _mean_of_means([means[b] for b in bins if b in parts])
    rows = []
    for b in [*bins, ALL_BINS]:
        part = outcomes if b == ALL_BINS else parts.get(b, outcomes.clear())
        own = scored if b == ALL_BINS else examples.get(b, scored.clear())
        figures: dict[str, Any] = means.get(b, _mean_of_means([])) | _spread(own, rule)
        figures |= {"n_clusters": int(np.count_nonzero(np.bincount(part["cluster"].to_numpy()))) if part.height else 0}
        figures |= _counts(part, rule.alpha) | _percentiles(part)
        if run.is_baseline:
            figures["identical_to_full"] = None
        rows.append(BinStat(run_id=run.run_id, dataset_id=run.dataset_id, bin_idx=b, n=part.height, **figures))
    return rows


def with_bootstrap(row: BinStat, rule: CiRule, replicates: Floats) -> BinStat:
    """The row with the interval that the rule asks for; replicates [resamples] of the row's mean."""
    if rule.ci != "bootstrap" or not row.n:
        return row
    low, high = percentile_interval(replicates, rule.alpha)
    return replace(row, acc_ci_low=low, acc_ci_high=high, acc_ci_method="percentile_bootstrap")


_MEANS = ("acc_mean", "acc_answered", "em_mean", "f1_mean", "identical_to_full")


def _means(part: pl.DataFrame, scored: pl.DataFrame) -> dict[str, float | None]:
    """_MEANS of one bin's outcomes and examples; summed by numpy, in their order, so that no number of threads shows in
    a digit."""
    answered = ~part["is_failure"].to_numpy()
    score = part["score"].to_numpy()
    same = part["flags"].str.contains("identical_to_full", literal=True).cast(pl.Float64).to_numpy()
    values = (scored["score"].to_numpy(), score[answered], part["em"].to_numpy(), part["f1"].to_numpy(), same[answered])
    return {name: float(np.mean(v)) if len(v) else None for name, v in zip(_MEANS, values, strict=True)}


def _mean_of_means(bins: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Equal-weight means over bins, without those that have none; None without any."""
    present = {name: [v for means in bins if (v := means[name]) is not None] for name in _MEANS}
    return {name: float(np.mean(values)) if values else None for name, values in present.items()}


def _spread(part: pl.DataFrame, rule: CiRule) -> dict[str, Any]:
    score, cluster, bin_idx = (part[name].to_numpy() for name in ("score", "cluster", "bin_idx"))
    low, high, method = accuracy_interval(score, bin_weights(bin_idx), cluster, rule.alpha, bin_idx)
    return {
        "acc_std": float(np.std(score)) if len(score) else None,
        "acc_ci_low": low,
        "acc_ci_high": high,
        "acc_ci_method": method,
    }


def accuracy_interval(
    score: Floats, weight: Floats, cluster: Ints, alpha: float, bin_idx: Ints | None = None
) -> tuple[float | None, float | None, str | None]:
    """(low, high, method) of the weighted mean of scores [n] in [0, 1]; all None without scores.

    cluster [n] numbers contexts, bin_idx [n] the bins that weight [n] makes equal (None: one bin). Where each context
    has one example: Wilson's interval at the effective number of observations, which for 0/1 scores of one bin is their
    number. Where contexts have several: the bound of the paired tests, on scores in place of differences.
    """
    if not len(score):
        return None, None, None
    if int(np.bincount(cluster).max()) > 1:
        # A score s in [0, 1] is a difference 2s - 1 in [-1, 1]: the same test, the same worst cases at both ends.
        low, high = Units.weighted(2 * score - 1, cluster, weight).interval(alpha)
        return (low + 1) / 2, (high + 1) / 2, "exact_bound"
    strata = np.zeros(len(score), dtype=np.int64) if bin_idx is None else bin_idx
    low, high = wilson(float(np.sum(weight * score)), effective_n(score, weight, strata), alpha)
    return low, high, "wilson" if np.ptp(strata) == 0 and is_binary(score) else "wilson_effective_n"


def bin_weights(bin_idx: npt.NDArray[np.int64]) -> Floats:
    """Weight of each example in the equal-weight mean of bins: [n], sums to 1."""
    if not len(bin_idx):
        return np.empty(0)
    count = np.bincount(bin_idx)
    return np.asarray(1.0 / (np.count_nonzero(count) * count[bin_idx]), dtype=np.float64)


def _counts(part: pl.DataFrame, alpha: float) -> dict[str, Any]:
    n, n_failures = part.height, int(part["is_failure"].sum())
    low, high = wilson(n_failures / n if n else float("nan"), n, alpha)
    counted = pl.col("cached_tokens").is_not_null()
    counts = part.select(
        **{name: pl.col("flags").str.contains(name, literal=True).sum() for name in FLAGS},
        cached=pl.col("cached_tokens").sum(),
        prompt=pl.col("prompt_tokens").filter(counted).sum(),
    ).row(0, named=True)
    labels = part["failure_label"].drop_nulls().value_counts().sort("failure_label")
    return {
        "n_failures": n_failures,
        "fail_rate": n_failures / n if n else float("nan"),
        "fail_ci_low": low,
        "fail_ci_high": high,
        "label_counts_json": json_text(dict(labels.iter_rows())),
        "flag_counts_json": json_text({name: int(counts[name]) for name in FLAGS if counts[name]}),
        "cached_share": counts["cached"] / counts["prompt"] if counts["prompt"] else None,
    }


def _percentiles(part: pl.DataFrame) -> dict[str, Any]:
    wanted = part.select(**{name: pl.col(column).quantile(q, "linear") for name, (column, q) in _PERCENTILES.items()})
    return dict(wanted.row(0, named=True))

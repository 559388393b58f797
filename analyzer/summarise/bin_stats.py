"""Scores -> bin_stats: what one run did in each bin, and over all bins (bin_idx -1).

Bin -1 weighs bins equally for everything that is a mean of scores (accuracy, EM, F1, share of identical texts). Counts
are sums, a failure rate is failures over requests, and latency and token percentiles are taken over all responses
together. A bin without finished requests is a row with n = 0 and NULL means.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
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
_NOTHING: dict[str, Any] = {  # of a bin without an outcome
    **dict.fromkeys(("n", "n_failures", "cached", "prompt", *FLAGS), 0),
    **dict.fromkeys(_PERCENTILES),
    "labels": {},
}
_Columns = Mapping[str, npt.NDArray[Any]]
_Given = Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True)
class CiRule:
    """How accuracy's interval is made: settings.analysis.ci and alpha."""

    ci: str
    alpha: float


def bin_rows(
    runs: Sequence[Run], outcomes: pl.DataFrame, bins: Sequence[int], rule: CiRule, scored: pl.DataFrame
) -> list[list[BinStat]]:
    """bin_stats rows of each run: every bin of the dataset, then -1.

    outcomes: `outcomes.outcomes` joined with entries, plus kept_fraction: a row for each answer, run by run. scored: a
    row for each example of a run with its bin_idx, cluster and one score, which accuracy is of; with one answer each it
    is the same frame. Where the rule asks for bootstrap intervals, with_bootstrap puts them in later.
    """
    figures, labels = _figures(outcomes), _labels(outcomes)
    same = pl.col("flags").str.contains("identical_to_full", literal=True).cast(pl.Float64)
    every = outcomes.select("run", "bin_idx", "cluster", "is_failure", "score", "em", "f1", same=same)
    answers = _by_run(every, len(runs))
    examples = answers
    if scored is not outcomes:
        examples = _by_run(scored.select("run", "bin_idx", "cluster", "score"), len(runs))
    rows = []
    for i, run in enumerate(runs):
        given = {b: figures[i, b] | {"labels": labels.get((i, b), {})} for b in [*bins, ALL_BINS] if (i, b) in figures}
        rows.append(_rows_of(run, answers[i], examples[i], bins, given, rule))
    return rows


def _rows_of(
    run: Run,
    answers: _Columns,
    examples: _Columns,
    bins: Sequence[int],
    given: Mapping[int, dict[str, Any]],
    rule: CiRule,
) -> list[BinStat]:
    """Rows of one run. given: of each bin that has an outcome, what `_figures` and `_labels` count."""
    parts = {b: _of_bin(answers, b) for b in [*bins, ALL_BINS]}
    scored = {b: _of_bin(examples, b) for b in [*bins, ALL_BINS]}
    means = {b: _means(parts[b], scored[b]) for b in bins if b in given}
    means[ALL_BINS] = _mean_of_means(list(means.values()))
    rows = []
    for b in [*bins, ALL_BINS]:
        figures: dict[str, Any] = means.get(b, _mean_of_means([])) | _spread(scored[b], rule)
        figures["n_clusters"] = int(np.count_nonzero(np.bincount(parts[b]["cluster"])))
        figures |= _counts(given.get(b, _NOTHING), rule.alpha)
        if run.is_baseline:
            figures["identical_to_full"] = None
        rows.append(BinStat(run_id=run.run_id, dataset_id=run.dataset_id, bin_idx=b, **figures))
    return rows


def _by_run(frame: pl.DataFrame, n_runs: int) -> list[_Columns]:
    """The columns of each run, of a frame that is sorted by run."""
    columns = {name: frame[name].to_numpy() for name in frame.columns}
    ends = np.searchsorted(columns["run"], np.arange(n_runs + 1))
    return [{name: values[start:stop] for name, values in columns.items()} for start, stop in pairwise(ends)]


def _of_bin(columns: _Columns, bin_idx: int) -> _Columns:
    if bin_idx == ALL_BINS:
        return columns
    rows = np.flatnonzero(columns["bin_idx"] == bin_idx)
    return {name: values[rows] for name, values in columns.items()}


def with_bootstrap(row: BinStat, rule: CiRule, replicates: Floats) -> BinStat:
    """The row with the interval that the rule asks for; replicates [resamples] of the row's mean."""
    if rule.ci != "bootstrap" or not row.n:
        return row
    low, high = percentile_interval(replicates, rule.alpha)
    return replace(row, acc_ci_low=low, acc_ci_high=high, acc_ci_method="percentile_bootstrap")


_MEANS = ("acc_mean", "acc_answered", "em_mean", "f1_mean", "identical_to_full")


def _means(part: _Columns, scored: _Columns) -> dict[str, float | None]:
    """_MEANS of one bin's outcomes and examples; summed by numpy, in their order, so that no number of threads shows in
    a digit."""
    answered = ~part["is_failure"]
    values = (scored["score"], part["score"][answered], part["em"], part["f1"], part["same"][answered])
    return {name: float(np.mean(v)) if len(v) else None for name, v in zip(_MEANS, values, strict=True)}


def _mean_of_means(bins: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Equal-weight means over bins, without those that have none; None without any."""
    present = {name: [v for means in bins if (v := means[name]) is not None] for name in _MEANS}
    return {name: float(np.mean(values)) if values else None for name, values in present.items()}


def _spread(part: _Columns, rule: CiRule) -> dict[str, Any]:
    score, cluster, bin_idx = (part[name] for name in ("score", "cluster", "bin_idx"))
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


def _figures(outcomes: pl.DataFrame) -> dict[tuple[int, int], dict[str, Any]]:
    """Counts, sums and percentiles by run and bin, and over all bins of a run."""
    counted = pl.col("cached_tokens").is_not_null()
    figures = {
        "n": pl.len(),
        "n_failures": pl.col("is_failure").sum(),
        "cached": pl.col("cached_tokens").sum(),
        "prompt": pl.col("prompt_tokens").filter(counted).sum(),
        **{name: pl.col("flags").str.contains(name, literal=True).sum() for name in FLAGS},
        **{name: pl.col(column).quantile(q, "linear") for name, (column, q) in _PERCENTILES.items()},
    }
    of_bins = outcomes.group_by("run", "bin_idx").agg(**figures)
    of_runs = outcomes.group_by("run").agg(**figures).with_columns(bin_idx=pl.lit(ALL_BINS, dtype=pl.Int64))
    both = pl.concat([of_bins, of_runs.select(of_bins.columns)])
    return {(row.pop("run"), row.pop("bin_idx")): row for row in both.to_dicts()}


def _labels(outcomes: pl.DataFrame) -> dict[tuple[int, int], dict[str, int]]:
    """How often each label occurs, by run and bin, and over all bins of a run."""
    counts = (
        outcomes.group_by("run", "bin_idx", "failure_label").len().drop_nulls("failure_label").sort("failure_label")
    )
    labels: dict[tuple[int, int], dict[str, int]] = {}
    for run, bin_idx, label, n in counts.iter_rows():
        for b in (bin_idx, ALL_BINS):
            of_bin = labels.setdefault((run, b), {})
            of_bin[label] = of_bin.get(label, 0) + n
    return labels


def _counts(given: Mapping[str, Any], alpha: float) -> dict[str, Any]:
    """Columns of bin_stats, of what was counted in one bin."""
    n, n_failures = given["n"], given["n_failures"]
    low, high = wilson(n_failures / n if n else float("nan"), n, alpha)
    return {
        "n": n,
        "n_failures": n_failures,
        "fail_rate": n_failures / n if n else float("nan"),
        "fail_ci_low": low,
        "fail_ci_high": high,
        "label_counts_json": json_text(given["labels"]),
        "flag_counts_json": json_text({name: given[name] for name in FLAGS if given[name]}),
        "cached_share": given["cached"] / given["prompt"] if given["prompt"] else None,
        **{name: given[name] for name in _PERCENTILES},
    }

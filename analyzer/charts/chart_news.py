"""Which charts would show nothing new beside the others, and why: a page leaves them out, their files are there."""

from collections.abc import Mapping

import polars as pl

from analyzer.charts.frames import ChartData, only_full
from analyzer.results.results import ALL, Results

BY_BIN = ("acc_by_budget_bins", "heatmap_budget_length", "acc_by_kept_tokens")
KNOWN = {
    "acc_by_kept_tokens": ("kept_tokens_p50", "how many tokens were kept is not known"),
    "pareto": ("kv_bytes_p50", "how many bytes were kept is not known"),
}


def without_news(results: Results, data: ChartData) -> Mapping[str, str]:
    """Chart -> why it is left out. What is drawn first, the verdict and accuracy by budget, is never left out."""
    levels = data.levels
    reasons = {
        name: why
        for name, (column, why) in KNOWN.items()
        if (known := levels.filter(pl.col(column) > 0)).is_empty() or only_full(known, levels)
    }
    answered = levels.filter((pl.col("bin_idx") >= 0) & pl.col("acc_mean").is_not_null())
    if answered["bin_idx"].n_unique() == 1:
        reasons |= dict.fromkeys(BY_BIN, "all prompts are in one length bin: it repeats accuracy by budget")
    if answered.is_empty():
        reasons |= dict.fromkeys(BY_BIN, "no length bin has answers")
    reasons["acc_by_bin"] = "it repeats the accuracy in each length bin"
    whole = [s for run in results.runs if (s := results.stat(run)) is not None]
    n = sum(s.n for s in whole)
    if not sum(s.n_failures for s in whole):
        reasons["fail_by_bin"] = f"no request failed, of {n:,}"
    drops = [d.drop_mean for d in results.drops if d.bin_idx == ALL and d.repeat_idx == 0 and d.drop_mean is not None]
    if not any(drops):
        reasons["drop_decomposition"] = "no level lost or gained anything" if drops else "nothing can be compared"
    if not any(s.latency_p50_s is not None for s in whole):
        reasons |= dict.fromkeys(("latency_p50_by_bin", "ttft_tpot_by_budget"), "no latency was measured")
    return reasons

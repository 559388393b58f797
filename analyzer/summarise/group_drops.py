"""Every level of a group against full cache -> its rows of budget_stats."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from analyzer.read.runs import Run
from analyzer.stats import paired_tests
from analyzer.stats.decompose import decompose
from analyzer.stats.noise import Noise
from analyzer.stats.transition import BudgetTest
from analyzer.store.tables import Drop, json_text
from analyzer.summarise.bin_stats import bin_weights
from analyzer.summarise.group import Group

Tests = Mapping[tuple[str, int], BudgetTest]  # of a run in a bin
Noises = Mapping[int, Noise | None]  # of a bin


def drop_rows(group: Group, tests: Tests, noises: Noises) -> list[Drop]:
    """A row for each run but full cache in each bin, all bins together first. Without full cache no row has a test."""
    rows = []
    for run in group.runs:
        for b in group.everywhere if not run.is_baseline else ():
            row = _untested(group, run, b)
            if group.full is not None:
                control = noises[b] if not run.is_full else None  # a repeat of full cache is the control itself
                row = _with_test(row, tests[run.run_id, b], control, group.analysis.alpha)
                row = _with_shares(row, group, group.full, run)
            rows.append(row)
    return rows


def _untested(group: Group, run: Run, bin_idx: int) -> Drop:
    stat = group.stats[run.run_id, bin_idx]
    return Drop(
        series=run.series,
        kv_budget=run.kv_budget,
        repeat_idx=run.repeat_idx,
        bin_idx=bin_idx,
        run_id=run.run_id,
        n=0,
        n_clusters=0,
        acc_mean=stat.acc_mean,
        acc_ci_low=stat.acc_ci_low,
        acc_ci_high=stat.acc_ci_high,
        drop_mean=None,
        drop_ci_low=None,
        drop_ci_high=None,
        n_worse=None,
        n_better=None,
        p_safe=None,
        p_loss=None,
        p_collapse=None,
        test_method=None,
        drop_failures=None,
        drop_answers=None,
        drop_json="{}",
        within_noise=None,
    )


def _with_test(row: Drop, test: BudgetTest, control: Noise | None, alpha: float) -> Drop:
    """The row with its test; without any pair the p values are unknown."""
    row = replace(
        row,
        n=test.n,
        n_clusters=test.n_clusters,
        drop_mean=test.drop,
        drop_ci_low=test.drop_low,
        drop_ci_high=test.drop_high,
        n_worse=test.n_worse,
        n_better=test.n_better,
    )
    if not test.n:
        return row
    proven = min(test.p_loss, test.p_gain) <= alpha / 2  # then it is no noise, however large that is
    return replace(
        row,
        p_safe=test.p_safe,
        p_loss=test.p_loss,
        p_collapse=test.p_broken,
        test_method=paired_tests.METHOD,
        within_noise=int(not proven and control.explains(test, alpha)) if control else None,
    )


def _with_shares(row: Drop, group: Group, full: Run, run: Run) -> Drop:
    """The row with what failed requests, answers cut off and wrong ones have of its drop; unknown without a pair."""
    at_full, here, k = group.outcomes[full.run_id], group.outcomes[run.run_id], group.samples
    paired = group.grid.rows(row.bin_idx) & ~np.isnan(group.grid.score[full.run_id] - group.grid.score[run.run_id])
    if not paired.any() or group.analysis.aggregate != "mean":  # the best of several answers is no sum over them
        return row
    answers, weight = np.repeat(paired, k), np.repeat(bin_weights(group.grid.bin_idx[paired]) / k, k)
    shares = decompose(at_full.of(answers), here.of(answers), weight)
    by_label = json_text(shares.by_label)
    return replace(row, drop_failures=shares.failures, drop_answers=shares.answers, drop_json=by_label)

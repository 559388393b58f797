"""Several tasks, one verdict: claims over tasks on scores where the answer is known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.stats.loss_bound import loss_bound, lost_share
from analyzer.stats.margin import Margin
from analyzer.stats.partial_conjunction import at_least
from analyzer.stats.suite import Pool, Suite, SuiteRule, TaskScores, suite
from analyzer.stats.transition import Grid, against_full

RULE = SuiteRule()


def task(name: str, lost: Mapping[float, int], n: int = 200, bins: int = 1, first_context: int = 0) -> TaskScores:
    """Full cache is always right; at each budget so many answers are lost, the first ones of the task."""
    score = {"full": np.ones(n)} | {f"b{b}": np.where(np.arange(n) < k, 0.0, 1.0) for b, k in lost.items()}
    grid = Grid(score, np.arange(n) * bins // n, first_context + np.arange(n))
    return TaskScores(name, grid, "full", {b: f"b{b}" for b in lost})


def apart(*tasks: TaskScores) -> list[TaskScores]:
    """The tasks, each with contexts of its own."""
    return [replace(one, grid=replace(one.grid, cluster=one.grid.cluster + 10_000 * i)) for i, one in enumerate(tasks)]


def told(*tasks: TaskScores, rule: SuiteRule = RULE) -> Suite:
    return suite(apart(*tasks), rule)


def test_safe_needs_the_mean_below_the_margin_and_every_task_below_the_guard() -> None:
    clean = {0.5: 0, 0.25: 0, 0.1: 0}
    done = told(task("a", clean), task("b", {0.5: 0, 0.25: 8, 0.1: 60}), task("c", clean), task("d", clean))
    assert (done.suite_safe, done.mean_safe, done.safe_everywhere) == (0.25, 0.25, 0.5)
    last = done.at(0.1)
    assert last is not None
    assert last.test.drop == pytest.approx(0.3 / 4)
    assert last.worst.task == "b"
    # On average less than 0.05 is lost, and one task loses far more than the guard.
    many = [task(f"t{i}", {0.5: 0}) for i in range(12)]
    spared = told(*many, task("bad", {0.5: 60}))
    assert spared.mean_safe == 0.5
    assert spared.suite_safe is None
    assert spared.broken_somewhere == 0.5
    assert spared.broken_tasks == ("bad",)


def test_tasks_weigh_equally_whatever_their_sizes_and_bins() -> None:
    done = told(task("large", {0.5: 0}, n=400, bins=5), task("small", {0.5: 8}, n=40, bins=2))
    row = done.at(0.5)
    assert row is not None
    assert row.test.drop == pytest.approx((0 + 8 / 40) / 2)
    assert row.mean_full - row.mean_here == pytest.approx(row.test.drop)


def test_one_task_alone_is_judged_as_it_is_without_a_suite() -> None:
    alone = task("a", {0.5: 3, 0.25: 20}, bins=4)
    row = told(alone).at(0.25)
    single = against_full(alone.grid, "full", "b0.25", 0.25, -1, margin=0.05, alpha=0.05)
    assert row is not None
    assert (row.test.p_safe, row.test.p_broken) == pytest.approx((single.p_safe, single.p_broken))
    assert row.worst_task_bound == pytest.approx(single.drop_high, abs=1e-6)


def test_a_context_that_tasks_share_is_one_unit() -> None:
    """Two tasks ask of the same 40 contexts: as much is proven as by 40 contexts, not by 80."""
    shared = [task("a", {0.5: 0}, n=40), task("b", {0.5: 0}, n=40)]
    together, separate = suite(shared, RULE), suite(apart(*shared), RULE)
    assert (together.n_contexts, together.shares_contexts) == (40, True)
    assert (separate.n_contexts, separate.shares_contexts) == (80, False)
    assert together.budgets[0].test.p_safe == pytest.approx(0.95**40)
    assert separate.budgets[0].test.p_safe == pytest.approx(0.95**80)


def test_the_bound_of_the_worst_task_is_the_largest_of_their_own() -> None:
    done = told(task("a", {0.5: 0}, n=72), task("b", {0.5: 0}, n=40))
    row = done.at(0.5)
    assert row is not None
    assert row.worst.task == "b"
    assert row.worst_task_bound == pytest.approx(1 - 0.025 ** (1 / 40), abs=1e-6)


def test_a_task_without_any_pair_leaves_the_suite_unproven() -> None:
    empty = task("empty", {0.5: 0})
    empty.grid.score["b0.5"][:] = np.nan
    empty.grid.score["full"][:] = np.nan
    done = told(task("a", {0.5: 0}), empty)
    assert (done.suite_safe, done.mean_safe, done.safe_everywhere) == (None, None, None)
    assert done.budgets[0].worst_task_bound == 1.0


def test_only_budgets_that_every_task_has_are_compared() -> None:
    done = told(task("a", {0.5: 0, 0.25: 0}), task("b", {0.5: 0}))
    assert [row.budget for row in done.budgets] == [0.5]


def test_failures_at_full_cache_buy_no_safety_for_a_suite_either() -> None:
    lost = np.arange(100) < 12
    score = {"full": np.where(np.arange(100) >= 88, 0.0, 1.0), "b": np.where(lost, 0.0, 1.0)}
    grid = Grid(score, np.zeros(100, dtype=int), np.arange(100), {"full": np.arange(100) >= 88})
    alone = TaskScores("a", grid, "full", {0.5: "b"})
    row = suite([alone], RULE).budgets[0]
    assert row.test.drop == 0.0
    assert row.worst_task_bound > 12 / 88
    assert row.test.p_safe > 0.5


def test_tasks_with_nothing_to_lose_are_not_counted_as_safe() -> None:
    tasks = apart(task("a", {0.5: 0}), task("floor", {0.5: 0}))
    tasks[1] = replace(tasks[1], p_headroom=0.9)
    done = suite(tasks, RULE)
    assert done.budgets[0].n_safe_tasks == 1
    assert (done.suite_safe, done.safe_everywhere) == (0.5, None)
    assert suite(tasks, SuiteRule(p_headroom=0.5)).suite_safe is None


def test_what_a_task_cannot_tell_is_said_with_its_number() -> None:
    done = told(task("a", {0.5: 0}, n=200), task("few", {0.5: 0}, n=15))
    needs = {need.task: need for need in done.needs}
    assert done.suite_safe is None
    assert needs["few"].is_open
    assert not needs["a"].is_open
    assert needs["few"].n_needed is not None
    assert 23 <= needs["few"].n_needed < 100
    assert done.n_needed is not None
    assert done.n_needed > 200


def test_a_mean_beyond_the_margin_has_no_number_that_would_prove_it_safe() -> None:
    done = told(task("a", {0.5: 100}), task("b", {0.5: 100}))
    assert done.n_needed is None
    assert done.mean_broken == 0.5


@pytest.mark.parametrize("independent", [True, False])
def test_no_more_tasks_are_counted_than_there_are_small_p_values(independent: bool) -> None:
    assert at_least([0.0] * 5, 0.025, independent=independent) == 5
    assert at_least([1e-9, 1e-9, 0.9, 0.9], 0.025, independent=independent) == 2
    assert at_least([1.0] * 4, 0.025, independent=independent) == 0
    assert at_least([], 0.025, independent=independent) == 0


def test_fisher_counts_what_bonferroni_cannot() -> None:
    """Five tasks at p = 0.03 prove that some are safe together, though none does alone."""
    p_values = [0.03] * 5
    assert at_least(p_values, 0.025, independent=True) == 4
    assert at_least(p_values, 0.025, independent=False) == 0


def test_tasks_that_share_contexts_are_not_counted_as_if_they_were_independent() -> None:
    """60 pairs without a loss prove 0.05 at p = 0.046: together they do, where each tells something of its own."""
    tasks = [task(name, {0.5: 0}, n=60) for name in "abcde"]
    assert suite(apart(*tasks), RULE).budgets[0].n_safe_tasks > 0
    assert suite(tasks, RULE).budgets[0].n_safe_tasks == 0


SCORES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=4, max_size=60
)


def grid_of(pairs: Sequence[tuple[float, float]]) -> Grid:
    full, here = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    return Grid({"full": full, "b": here}, np.arange(len(full)) % 2, np.arange(len(full)) // 2)


@given(SCORES, st.floats(0.02, 0.6))
def test_a_relative_margin_is_passed_exactly_where_the_bound_of_the_lost_share_is_below_it(
    pairs: list[tuple[float, float]], rho: float
) -> None:
    grid = grid_of(pairs)
    bound = loss_bound(grid, "full", "b", -1, kind="relative", level=0.025)
    test = against_full(grid, "full", "b", 0.5, -1, margin=Margin(rho, "relative"), alpha=None)
    assert (test.p_safe <= 0.025) == (bound <= rho) or abs(bound - rho) < 1e-6
    lost = lost_share(grid, "full", "b", -1, 0.05)
    if lost is not None:
        assert lost.low - 1e-9 <= lost.share <= lost.high + 1e-9
        assert (test.p_broken <= 0.025) == (lost.low > rho) or abs(lost.low - rho) < 1e-6


def test_where_full_cache_is_always_right_both_kinds_of_margin_say_the_same() -> None:
    grid = task("a", {0.5: 6}).grid
    absolute = against_full(grid, "full", "b0.5", 0.5, -1, margin=0.05, alpha=0.05)
    relative = against_full(grid, "full", "b0.5", 0.5, -1, margin=Margin(0.05, "relative"), alpha=0.05)
    assert absolute.p_safe == relative.p_safe
    assert (absolute.drop, absolute.drop_high) == (relative.drop, relative.drop_high)


def test_a_task_at_its_floor_is_safe_by_an_absolute_margin_and_never_by_a_relative_one() -> None:
    n = 400
    score = {"full": np.where(np.arange(n) < 8, 1.0, 0.0), "b": np.zeros(n)}
    grid = Grid(score, np.zeros(n, dtype=int), np.arange(n))
    assert against_full(grid, "full", "b", 0.5, -1, margin=0.05, alpha=None).p_safe < 0.025
    assert against_full(grid, "full", "b", 0.5, -1, margin=Margin(0.1, "relative"), alpha=None).p_safe > 0.5


@given(st.lists(st.tuples(st.integers(5, 40), st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=5))
def test_the_shares_of_a_pool_are_those_of_tasks_bins_and_examples(shapes: list[tuple[int, int, int]]) -> None:
    tasks = apart(*(task(f"t{i}", {0.5: lost}, n=n, bins=bins) for i, (n, lost, bins) in enumerate(shapes)))
    drops = [
        np.mean([(one.grid.score["full"] - one.grid.score["b0.5"])[one.grid.bin_idx == b].mean() for b in range(bins)])
        for one, (_, _, bins) in zip(tasks, shapes, strict=True)
    ]
    pool = Pool(tasks).grid
    assert pool.units(pool.score["full"] - pool.score["0.5"], pool.rows(-1)).mean == pytest.approx(np.mean(drops))

"""What the contexts of a task could prove at best, before anything is sent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.stats.guard_reach import out_of_reach
from analyzer.stats.paired_tests import Units
from analyzer.stats.sample_layout import Layout
from kvt_async.contract.formulas.provable_loss import least_provable_loss


@pytest.mark.parametrize(("contexts", "least"), [(40, 0.088), (20, 0.168), (8, 0.369), (4, 0.602)])
def test_the_least_provable_loss_is_that_of_the_contexts_not_of_their_questions(contexts: int, least: float) -> None:
    layout = Layout.of(np.arange(40) * contexts // 40, np.zeros(40, dtype=int))
    assert layout.reach(0.025) == pytest.approx(least, abs=5e-4)
    assert layout.reach(0.025) == pytest.approx(1 - 0.025 ** (1 / contexts))


def test_a_heavy_context_leaves_more_possible_than_its_number_says() -> None:
    """Of 40 questions 20 share one context: 21 contexts, and yet .72 can't be excluded."""
    cluster = np.array([0] * 20 + list(range(1, 21)))
    assert Layout.of(cluster, np.zeros(40, dtype=int)).reach(0.025) == pytest.approx(0.72, abs=5e-3)


def test_tasks_out_of_reach_are_named_with_the_contexts_they_would_need() -> None:
    layouts = {
        "enough": Layout.even(40),
        "few": Layout.even(10),
        "shared": Layout.of(np.arange(40) // 5, np.zeros(40, dtype=int)),
    }
    short = {one.task: one for one in out_of_reach(layouts, 0.15, 0.025)}
    assert set(short) == {"few", "shared"}
    assert (short["few"].contexts, short["few"].needed, short["few"].examples) == (10, 23, 23)
    assert (short["shared"].contexts, short["shared"].needed, short["shared"].examples) == (8, 23, 115)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=3, max_size=60), st.floats(0.02, 0.5))
def test_the_reach_is_the_bound_of_the_test_itself_where_nothing_is_lost(
    places: list[tuple[int, int]], level: float
) -> None:
    bins, contexts = (np.array(column) for column in zip(*places, strict=True))
    layout, units = Layout.of(contexts, bins), Units.of(np.zeros(len(bins)), contexts, bins)
    if len(np.unique(np.round(units.weight, 9))) <= 8:
        assert layout.reach(level) == pytest.approx(units.upper(level), abs=1e-5)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=60))
def test_the_runner_tells_the_same_reach_before_anything_is_sent(places: list[tuple[int, int]]) -> None:
    contexts, bins = (np.array(column) for column in zip(*places, strict=True))
    told = least_provable_loss([(str(context), bin_idx) for context, bin_idx in places])
    assert told == pytest.approx(Units.of(np.zeros(len(bins)), contexts, bins).upper(0.025), abs=1e-5)
    assert least_provable_loss([]) == 1.0

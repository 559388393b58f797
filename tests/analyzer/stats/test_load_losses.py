"""Losses under load: which loads a claim may be made of, and how often one is false."""

import numpy as np
import pytest
from calibrate_load import LOST, Server, bound, curve, experiment
from hypothesis import given
from hypothesis import strategies as st

from analyzer.stats.load_losses import ArmShares, LoadTests, LoadVerdict, loss_by_failures, rejected, verdicts

LEVEL = 0.025


def said(*tests: tuple[float, float, float], planned: int = 0, can_lose: bool = True) -> list[str]:
    return [str(v) for v in verdicts([LoadTests(*t) for t in tests], LEVEL, planned=planned, can_lose=can_lose)]


def test_safety_is_proven_from_the_lowest_load_up_and_stops_at_the_first_that_is_not() -> None:
    safe, open_one = (0.001, 0.9, 1.0), (0.2, 0.3, 0.9)
    assert said(safe, open_one, safe) == ["safe", "cannot_tell", "cannot_tell"]
    assert said(safe, (0.02, 0.004, 1.0)) == ["safe", "small_loss"]
    assert said(safe, can_lose=False) == ["nothing_to_lose"]


def test_a_loss_is_tested_over_all_loads_that_the_ladder_may_have() -> None:
    lossy = (1.0, 0.02, 0.5)
    assert said(lossy) == ["loss"]
    assert said(lossy, planned=2) == ["cannot_tell"]
    assert said((1.0, 0.001, 0.001), lossy, planned=2) == ["beyond", "loss"], "what is rejected leaves its share"
    assert said((0.001, 0.9, 1.0), (1.0, 0.001, 0.5), (0.001, 0.9, 1.0)) == ["safe", "loss", "cannot_tell"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(0, 6))
def test_more_planned_loads_never_prove_more(p: list[float], more: int) -> None:
    few, many = rejected(p, LEVEL, len(p)), rejected(p, LEVEL, len(p) + more)
    assert all(a or not b for a, b in zip(few, many, strict=True))
    assert all(few[i] >= few[j] for i in range(len(p)) for j in range(len(p)) if p[i] <= p[j])


def test_failures_get_their_share_of_a_loss() -> None:
    assert loss_by_failures(ArmShares(0.8, 0, 0), ArmShares(0.6, 0.25, 0)) == pytest.approx(0.2)
    assert loss_by_failures(ArmShares(0.8, 0, 0), ArmShares(0.6, 0, 0)) == 0
    assert loss_by_failures(ArmShares(0.8, 0, 0), ArmShares(0, 1, np.nan)) == pytest.approx(0.8)


@pytest.mark.parametrize("first", [8, 99])
def test_a_planted_loss_is_found_at_its_loads_and_rarely_elsewhere(first: int) -> None:
    rng, n = np.random.default_rng(5), 200
    planted = Server(curve(first, 0.4), noise=0.1, failing=0.02, stops=True)
    experiments = [experiment(planted, 80, 1, rng) for _ in range(n)]
    lost = np.array([[v in LOST for v in one] + [False] * (5 - len(one)) for one in experiments])
    harmless = np.array(planted.loss) == 0
    assert lost[:, harmless].any(axis=1).mean() <= bound(n)
    assert first == 99 or lost[:, -1].mean() > 0.9
    assert LoadVerdict.BEYOND in experiments[0] or first == 99

"""Two repeats of full cache, one with the same seeds and one with others: does the server keep to them?"""

import numpy as np
import pytest

from analyzer.stats.seed_effect import SeedEffect, seed_effect
from kvt_async.contract.vocabulary import SeedVerdict


def effect(same: float, other: float, n: int = 200) -> SeedEffect:
    """So many answers differ with the same seeds and with others, each spread over the examples by chance."""
    rng = np.random.default_rng(11)
    draws = [(rng.random(n) < share).astype(float) for share in (same, other)]
    return seed_effect(draws[0], draws[1], np.arange(n), np.zeros(n, dtype=int), alpha=0.05)


@pytest.mark.parametrize(
    ("same", "other", "verdict"),
    [
        (0.0, 0.9, SeedVerdict.KEPT),
        (0.4, 0.9, SeedVerdict.KEPT),  # the server's own noise: its answers differ, and yet less than without a seed
        (0.95, 0.95, SeedVerdict.IGNORED),
        (0.0, 0.0, SeedVerdict.NOTHING_DIFFERS),
        (0.03, 0.04, SeedVerdict.CANNOT_TELL),
    ],
)
def test_seeds_are_kept_where_equal_ones_differ_less_and_ignored_where_both_differ_alike(
    same: float, other: float, verdict: SeedVerdict
) -> None:
    assert effect(same, other).verdict == verdict


def test_server_noise_and_sampling_noise_stand_beside_each_other() -> None:
    told = effect(0.4, 0.9)
    assert told.same == pytest.approx(0.4, abs=0.1)
    assert told.other == pytest.approx(0.9, abs=0.1)
    assert told.removed is not None
    assert told.removed.low <= told.removed.share <= told.removed.high


def test_few_examples_cannot_tell_and_say_how_many_would() -> None:
    told = effect(0.5, 0.6, n=20)
    assert told.verdict == SeedVerdict.CANNOT_TELL
    assert told.n == 20
    assert told.n_needed is None or told.n_needed > 20


def test_questions_of_one_context_are_one_observation() -> None:
    same, other = np.zeros(40), np.ones(40)
    apart = seed_effect(same, other, np.arange(40), np.zeros(40, dtype=int), alpha=0.05)
    together = seed_effect(same, other, np.zeros(40, dtype=int), np.zeros(40, dtype=int), alpha=0.05)
    assert (apart.verdict, together.verdict) == (SeedVerdict.KEPT, SeedVerdict.CANNOT_TELL)


def test_without_a_pair_nothing_can_be_told() -> None:
    empty = np.full(5, np.nan)
    assert seed_effect(empty, empty, np.arange(5), np.zeros(5, dtype=int), alpha=0.05).verdict == "cannot_tell"

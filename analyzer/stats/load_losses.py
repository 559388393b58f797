"""What answers lose under load: the paired tests of a budget, put in order over loads.

An example is the unit, however often a load asked it: its score there is the mean of its answers. "Less than the margin
is lost" is a fixed sequence from the lowest load up. A loss is looked for at every load, by Holm over as many loads as
the ladder may have: which loads are sent at all can depend on what failed, so the highest one is no load that was fixed
beforehand, and p values of loads that were never sent count as 1. Either way the chance that any claim of its kind is
false stays at one test's level (docs/STATISTICS.md, Under load).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class LoadVerdict(StrEnum):
    """What is proven of one load."""

    BEYOND = "beyond"  # more than the margin is lost
    LOSS = "loss"  # something is lost; how much of the margin isn't known
    SMALL_LOSS = "small_loss"  # something is lost, and less than the margin
    SAFE = "safe"  # less than the margin is lost
    CANNOT_TELL = "cannot_tell"
    NOTHING_TO_LOSE = "nothing_to_lose"  # unloaded answers are worth no more than guesses


@dataclass(frozen=True, slots=True)
class LoadTests:
    """One-sided p values of a load: "the margin or more is lost", "nothing is lost", "at most the margin is"."""

    p_safe: float
    p_loss: float
    p_beyond: float


def verdicts(tests: Sequence[LoadTests], level: float, *, planned: int, can_lose: bool) -> list[LoadVerdict]:
    """What is proven of each load, given from the lowest up; `level`: one-sided chance of error of each kind of claim.

    `planned`: loads that the ladder could have had. `can_lose`: unloaded answers are proven to be worth the margin more
    than guesses are; where that isn't shown nothing is safe.
    """
    n = max(planned, len(tests))
    lost = rejected([test.p_loss for test in tests], level, n)
    beyond = rejected([test.p_beyond for test in tests], level, n)
    result, so_far = [], can_lose
    for test, is_lost, is_beyond in zip(tests, lost, beyond, strict=True):
        so_far = so_far and test.p_safe <= level
        if is_beyond:
            result.append(LoadVerdict.BEYOND)
        elif is_lost:
            result.append(LoadVerdict.SMALL_LOSS if so_far else LoadVerdict.LOSS)
        elif so_far:
            result.append(LoadVerdict.SAFE)
        else:
            result.append(LoadVerdict.CANNOT_TELL if can_lose else LoadVerdict.NOTHING_TO_LOSE)
    return result


def rejected(p: Sequence[float], level: float, n: int) -> list[bool]:
    """Holm's step-down over n hypotheses, of which those without a p value here have 1."""
    result = [False] * len(p)
    for rank, at in enumerate(np.argsort(p, kind="stable")):
        if not p[at] <= level / (n - rank):
            break
        result[at] = True
    return result


@dataclass(frozen=True, slots=True)
class ArmShares:
    """Of one arm: mean score, share of answers that failed, and share of the others that their length cut off; every
    bin weighs alike."""

    accuracy: float
    failed: float
    cut_off: float

    @property
    def of_answered(self) -> float:
        """Mean score of what was answered; NaN: nothing was."""
        return self.accuracy / (1 - self.failed) if self.failed < 1 else float("nan")


def loss_by_failures(unloaded: ArmShares, loaded: ArmShares) -> float:
    """The part of unloaded.accuracy - loaded.accuracy that is failed requests; the rest is answers.

    Accuracy = (1 - failure rate) x accuracy of the answered; each factor's effect is averaged over both orders
    (decompose.py). Where an arm answered nothing, its answers are taken to be worth the other's.
    """
    worth = [arm.of_answered for arm in (unloaded, loaded)]
    known = [value for value in worth if not np.isnan(value)]
    return (loaded.failed - unloaded.failed) * float(np.mean(known)) if known else 0.0
